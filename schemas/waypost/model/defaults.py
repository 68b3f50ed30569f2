"""The default policy of one partition: what sessions without a policy of their own follow. Pure.

It is changed by a command in the log, never by a worker's configuration, so replay finds it again.
"""

from dataclasses import dataclass, field

from waypost.errors import InvalidCommandError
from waypost.model.commands import Command, ConfigureDefaults
from waypost.model.decisions import DefaultsConfigured, Duplicate, Rejected
from waypost.model.index import DEDUP_WINDOW
from waypost.model.retention import RetentionPolicy


@dataclass(slots=True)
class Defaults:
    """The policy, and the ids of the last commands that changed it, oldest first."""

    policy: RetentionPolicy = field(default_factory=RetentionPolicy)
    recent: list[str] = field(default_factory=list)

    def decide(
        self, command: Command, action: ConfigureDefaults
    ) -> DefaultsConfigured | Duplicate | Rejected:
        """What the command would do."""
        if command.id in self.recent:
            return Duplicate(None)
        try:
            return DefaultsConfigured(self.policy.changed(action.changes))
        except InvalidCommandError as refusal:
            return Rejected(refusal.code, refusal.message)

    def evolve(self, command: Command, decision: DefaultsConfigured) -> None:
        """Take the decision over."""
        self.policy = decision.policy
        if command.id is not None:
            self.recent.append(command.id)
            del self.recent[:-DEDUP_WINDOW]
