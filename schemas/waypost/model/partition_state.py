"""Decisions of commands about a whole partition: the default policy, and who may change it. Pure.

It is changed by commands in the log that belong to no session, and by nothing else: not by a worker's configuration,
and not by what sessions hold. So replay finds it again, and it can be followed through the log without any session.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from waypost.errors import InvalidCommandError
from waypost.model.authority import Authority
from waypost.model.commands import Command, ConfigureAuthority, ConfigureDefaults, PartitionAction, Skip
from waypost.model.decisions import (
    AuthorityConfigured,
    DefaultsConfigured,
    Duplicate,
    NotSkipped,
    PartitionDecision,
    Rejected,
    Skipped,
)
from waypost.model.index import DEDUP_WINDOW
from waypost.model.retention import RetentionPolicy

UNAUTHORIZED: Final = "unauthorized"
# Returns whether a command has a valid signature of a public key.
SignedBy = Callable[[bytes], bool]


@dataclass(slots=True)
class PartitionState:
    """The default policy, the ids of the last commands that changed anything here, oldest first, and the authority.

    ``policy`` is what sessions without a policy of their own follow.
    """

    policy: RetentionPolicy = field(default_factory=RetentionPolicy)
    recent: list[str] = field(default_factory=list)
    authority: Authority = field(default_factory=Authority)

    def take(
        self, command: Command, action: PartitionAction, signed_by: SignedBy
    ) -> PartitionDecision | NotSkipped | Duplicate | Rejected:
        """Decide on the command and take the decision over.

        A command that had to be signed, and was, counts as signed even if it is rejected for something else.
        """
        is_signed = self.authority.key is not None
        decision = self._refused(command, signed_by) or self.decide(command, action)
        match decision:
            case Duplicate():
                pass
            case Rejected() | NotSkipped():
                if is_signed and not (isinstance(decision, Rejected) and decision.code == UNAUTHORIZED):
                    self._note_time(command)
            case _:
                self.evolve(command, decision)
        return decision

    def _refused(self, command: Command, signed_by: SignedBy) -> Duplicate | Rejected | None:
        key, signed_at = self.authority.key, self.authority.signed_at
        if key is not None and not signed_by(key):
            return Rejected(
                UNAUTHORIZED,
                "this partition has an authority, and the command is not signed with its key for this partition: "
                "sign it, as 'waypost' does with --authority-key",
            )
        if command.id in self.recent:
            return Duplicate(None)
        if key is not None and signed_at is not None and command.taken_at <= signed_at:
            return Rejected(
                UNAUTHORIZED,
                "the ce_time of a signed command must be later than that of the last one: sign it again",
            )
        return None

    def decide(self, command: Command, action: PartitionAction) -> PartitionDecision | NotSkipped | Rejected:
        """Return what the command would do if its sender is allowed to send it."""
        match action:
            case ConfigureDefaults():
                try:
                    return DefaultsConfigured(self.policy.changed(action.changes))
                except InvalidCommandError as refusal:
                    return Rejected(refusal.code, refusal.message)
            case ConfigureAuthority():
                return AuthorityConfigured(action.key)
            case Skip():
                return self._decide_to_skip(command, action)
            case _:
                assert_never(action)

    def _decide_to_skip(self, command: Command, action: Skip) -> Skipped | NotSkipped | Rejected:
        if self.authority.key is None:
            return Rejected(
                UNAUTHORIZED,
                "this partition has no authority, and only an authority can have commands skipped: name one first, "
                "with 'waypost authority set'",
            )
        if action.offset >= command.position:
            return Rejected(
                "invalid-body", f"offset: {action.offset} is not before this command's own offset"
            )
        if action.offset in self.authority.skipped:
            return Skipped(action.offset, action.reason)
        return NotSkipped(action.offset, action.record, action.reason)

    def evolve(self, command: Command, decision: PartitionDecision) -> None:
        """Take an accepted decision over."""
        if self.authority.key is not None or isinstance(decision, AuthorityConfigured):
            self._note_time(command)
        match decision:
            case DefaultsConfigured():
                self.policy = decision.policy
            case AuthorityConfigured():
                self.authority = replace(self.authority, key=decision.key)
            case Skipped():
                return  # its time alone is remembered, which makes a repetition harmless
            case _:
                assert_never(decision)
        if command.id is not None:
            self.recent.append(command.id)
            del self.recent[:-DEDUP_WINDOW]

    def skip(self, offset: int) -> None:
        """Note that the command at this offset is skipped."""
        self.authority = replace(self.authority, skipped=(*self.authority.skipped, offset))

    def _note_time(self, command: Command) -> None:
        last = self.authority.signed_at
        # Only an unsigned command can be earlier than the last signed one.
        signed_at = command.taken_at if last is None else max(last, command.taken_at)
        self.authority = replace(self.authority, signed_at=signed_at)
