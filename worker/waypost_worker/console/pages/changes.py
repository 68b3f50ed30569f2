"""Changes to a session: from a form's fields to a command, and the text of its preview. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from waypost.errors import InvalidCommandError
from waypost.model.checkpoint import checkpoint_id
from waypost.model.commands import Action
from waypost.model.preview import Preview
from waypost.model.retention import RetentionPolicy
from waypost.wire.decode import parse_body
from waypost.wire.encode import checkpoint_body, policy_body, rollback_body
from waypost.wire.event_types import EventType
from waypost_worker.console.text import counted, span
from waypost_worker.operations.stored_session import StoredSession

POLICY_FIELDS: Final = ("max_checkpoints", "compress_after", "keep_recent", "max_age")
#: Changes of one checkpoint, which its number names.
_OF_CHECKPOINT: Final = {
    "rollback": EventType.ROLLBACK,
    "pin": EventType.PIN,
    "unpin": EventType.UNPIN,
    "delete": EventType.DELETE,
}
KINDS: Final = (*_OF_CHECKPOINT, "clear", "policy")
_MICROS: Final = 1_000_000
_MOST_NAMED: Final = 100


@dataclass(frozen=True, slots=True)
class Change:
    """A command that somebody is about to publish. ``fields`` are those of the form that it was made from."""

    kind: str
    type: str
    body: bytes
    action: Action
    fields: Mapping[str, str]
    number: int | None = None

    @property
    def question(self) -> str:
        """The question of the preview."""
        match self.kind:
            case "rollback" if self.fields.get("discard_later"):
                return f"Roll back to {self.number} and discard later checkpoints?"
            case "rollback":
                return f"Record a rollback to {self.number}?"
            case "clear":
                return "Remove all checkpoints?"
            case "policy":
                return "Change the retention policy?"
            case kind:
                return f"{kind.capitalize()} checkpoint {self.number}?"

    @property
    def verb(self) -> str:
        """The label of the button."""
        match self.kind:
            case "rollback":
                return "Roll back" if self.fields.get("discard_later") else "Record it"
            case "clear":
                return "Remove all"
            case "policy":
                return "Change it"
            case kind:
                return kind.capitalize()


def change_of(kind: str, session_id: str, fields: Mapping[str, str]) -> Change:
    """Return the command that a form asks for. InvalidCommandError says what is wrong with it."""
    if kind in _OF_CHECKPOINT:
        number = fields.get("checkpoint", "")
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise InvalidCommandError("invalid-body", f"checkpoint: {number!r} is not a number")
        identifier = checkpoint_id(session_id, int(number))
        discard = bool(fields.get("discard_later"))
        body = rollback_body(identifier, discard) if kind == "rollback" else checkpoint_body(identifier)
        kept = {"checkpoint": number, **({"discard_later": "1"} if kind == "rollback" and discard else {})}
        return _made(kind, _OF_CHECKPOINT[kind], body, kept, int(number))
    if kind == "clear":
        return _made(kind, EventType.CLEAR, b"{}", {})
    changes = {name: _number(name, fields[name]) for name in POLICY_FIELDS if fields.get(name) is not None}
    if not changes:
        raise InvalidCommandError("invalid-body", "the policy: name at least one field to change")
    given = {name: fields[name] for name in changes}
    return _made("policy", EventType.CONFIGURE, policy_body(changes), given)


def _made(kind: str, event: str, body: bytes, fields: Mapping[str, str], number: int | None = None) -> Change:
    return Change(kind, event, body, parse_body(event, body), fields, number)


def _number(name: str, text: str) -> int | float | None:
    text = text.strip()
    if name == "max_age":
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise InvalidCommandError(
                "invalid-body", f"max_age: {text!r} is not a number of seconds"
            ) from None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidCommandError("invalid-body", f"{name}: {text!r} is not a whole number")
    return int(text)


def policy_fields(policy: RetentionPolicy) -> dict[str, str]:
    """Return a policy as a form shows it."""
    age = "" if policy.max_age is None else f"{policy.max_age / _MICROS:g}"
    counts = {name: str(getattr(policy, name)) for name in POLICY_FIELDS[:3]}
    return {**counts, "max_age": age}


def policy_words(policy: RetentionPolicy) -> str:
    """Return a policy in a line."""
    age = "" if policy.max_age is None else f", none older than {span(policy.max_age / _MICROS)}"
    encrypted = ", only encrypted data" if policy.encrypted else ""
    return (
        f"at most {policy.max_checkpoints:,}, compressed above {policy.compress_after:,} to the last "
        f"{policy.keep_recent:,}{age}{encrypted}"
    )


@dataclass(frozen=True, slots=True)
class Removal:
    """A checkpoint that would go."""

    number: int
    name: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class PreviewPage:
    """The effect of a change. ``moved``: the session has changed since the preview that was confirmed."""

    session_id: str
    partition: int
    position: int
    question: str
    verb: str
    kind: str
    fields: Mapping[str, str]
    kept: int
    removals: tuple[Removal, ...]
    removed: int
    ranges: str
    pinned: int
    rejected: str | None
    policy: str | None
    old_policy: str
    moved: bool = False

    @property
    def summary(self) -> str:
        """Describe what would be removed."""
        if not self.removed:
            return "Removes nothing."
        pinned = f", {counted(self.pinned, 'of them pinned', 'of them pinned')}" if self.pinned else ""
        removed = f"{counted(self.removed, 'checkpoint')} ({self.ranges}){pinned}"
        return f"Removes {removed}. {counted(self.kept, 'is', 'are')} kept."


def preview_page(session: StoredSession, change: Change, preview: Preview, moved: bool) -> PreviewPage:
    """Return the page of a preview."""
    by_number = {entry.number: entry for entry in session.entries}
    gone = [by_number[number] for number in preview.removed]
    return PreviewPage(
        session.session_id,
        session.partition,
        session.last_position,
        change.question,
        change.verb,
        change.kind,
        change.fields,
        preview.kept,
        tuple(Removal(entry.number, entry.name, entry.pinned) for entry in gone[:_MOST_NAMED]),
        len(gone),
        ranges(preview.removed),
        sum(entry.pinned for entry in gone),
        None if preview.rejected is None else f"{preview.rejected.code}: {preview.rejected.message}",
        None if preview.policy is None else policy_words(preview.policy),
        policy_words(session.policy),
        moved,
    )


def ranges(numbers: Sequence[int], most: int = 8) -> str:
    """Return rising numbers in words: ``1, 3 to 7``."""
    if not numbers:
        return ""
    starts = [numbers[0], *(later for earlier, later in pairwise(numbers) if later != earlier + 1)]
    ends = [*(earlier for earlier, later in pairwise(numbers) if later != earlier + 1), numbers[-1]]
    parts = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more ranges" if len(parts) > most else "")
