"""A session's life told in short lines: what happens, and what is there afterwards."""

from typing import Any, TypeVar

from waypost.model.commands import (
    Action,
    Command,
    Configure,
    Create,
    Import,
    ImportItem,
    OnConflict,
    Pin,
)
from waypost.model.decisions import Accepted, Configured, Created, Decision, Duplicate, Imported, Rejected
from waypost.model.index import Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve

_D = TypeVar("_D", bound=Decision)


class Life:
    """A session named ``s``, its clock in seconds and the default policy that applies to it."""

    def __init__(self, default: RetentionPolicy | None = None) -> None:
        self.session = Session("s")
        self.default = default or RetentionPolicy()
        self.position = 0

    def does(self, action: Action, at: float = 0, id: str | None = None) -> Decision:
        """Decide and, if it is accepted, evolve. Without ``id`` the command gets one of its own."""
        self.position += 1
        command = Command(
            id=id or f"command-{self.position}",
            position=self.position,
            taken_at=self.position,
            recorded_at=round(at * 1_000_000),
            action=action,
        )
        decision = decide(self.session, command, self.default)
        if isinstance(decision, Accepted):
            evolve(self.session, command, decision)
        return decision

    def creates(self, *names: str, at: float = 0) -> None:
        for name in names:
            assert isinstance(self.does(Create(name, b"{}"), at), Created)

    def pins(self, *numbers: int) -> None:
        for number in numbers:
            assert isinstance(self.does(Pin(f"s:{number}")), Accepted)

    def configures(self, at: float = 0, **changes: int | None) -> Configured:
        return expect(Configured, self.does(Configure(tuple(changes.items())), at))

    def imports(self, *items: ImportItem, on_conflict: OnConflict = "skip", at: float = 0) -> Imported:
        return expect(Imported, self.does(Import(items, on_conflict), at))

    def refuses(self, action: Action) -> str:
        """The rejection code; a refused command changes nothing."""
        before = self.everything()
        decision = expect(Rejected, self.does(action))
        assert decision.message
        assert self.everything() == before
        return decision.code

    @property
    def numbers(self) -> list[int]:
        return [entry.number for entry in self.session.live()]

    @property
    def names(self) -> str:
        """Names in order, with a star where pinned; for one-letter names."""
        return " ".join(entry.name + "*" * entry.pinned for entry in self.session.live())

    def everything(self) -> Any:
        session = self.session
        return repr(
            (
                session.counter,
                session.policy,
                session.live(),
                session.recent,
                session.last_recorded_at,
                session.erased_at,
            )
        )


def item(id: str, name: str = "imported", timestamp: int = 7) -> ImportItem:
    return ImportItem(id, name, timestamp, b'{"from":"import"}', b"{}")


def expect(kind: type[_D], decision: Decision) -> _D:
    assert isinstance(decision, kind), decision
    return decision


def duplicate_of(decision: Decision) -> int | None:
    """The number that a duplicate names."""
    return expect(Duplicate, decision).number
