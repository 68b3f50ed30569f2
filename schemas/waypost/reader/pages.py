"""Results of a reader's listings: sessions and checkpoints, one page at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, overload

from waypost.deprecation import deprecated, warn_deprecated
from waypost.model.checkpoint import Checkpoint

_METHODS_OF_A_LIST: Final = frozenset(
    ("append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse", "sort")
)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Summary of a session, without its checkpoints.

    ``last_number`` is the highest number ever given, ``checkpoint_count`` how many checkpoints are left, and
    ``policy`` the session's own retention policy, None if the default applies. All times are the broker's.
    ``erased_at`` is when the session was erased, None if it was not: it holds nothing and takes no more commands.
    """

    session_id: str
    partition: int
    last_number: int
    checkpoint_count: int
    policy: dict[str, Any] | None
    first_recorded_at: datetime
    last_recorded_at: datetime
    erased_at: datetime | None = None

    def __repr__(self) -> str:
        if self.erased_at is not None:
            return f"<SessionInfo of {self.session_id!r}: erased at {self.erased_at.isoformat()}>"
        return (
            f"<SessionInfo of {self.session_id!r}: {self.checkpoint_count} of {self.last_number} checkpoints kept, "
            f"last recorded at {self.last_recorded_at.isoformat()}>"
        )

    @property
    @deprecated("last_number")
    def counter(self) -> int:
        """The old name of ``last_number``."""
        return self.last_number

    @property
    @deprecated("checkpoint_count")
    def checkpoints(self) -> int:
        """The old name of ``checkpoint_count``."""
        return self.checkpoint_count


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """Page of a session's checkpoints, and the ``cursor`` of the next page, which is None on the last one."""

    checkpoints: list[Checkpoint]
    cursor: str | None

    def __repr__(self) -> str:
        return (
            f"<CheckpointPage of {_listed([each.id for each in self.checkpoints])}, cursor {self.cursor!r}>"
        )


@dataclass(frozen=True, slots=True, eq=False)
class SessionPage(Sequence[SessionInfo]):
    """Page of a listing of sessions, and the ``cursor`` of the next page, which is None on the last one.

    It can be iterated, indexed and compared like the list ``sessions``.
    """

    sessions: list[SessionInfo]
    cursor: str | None

    def __repr__(self) -> str:
        return (
            f"<SessionPage of {_listed([each.session_id for each in self.sessions])}, cursor {self.cursor!r}>"
        )

    def __len__(self) -> int:
        return len(self.sessions)

    def __iter__(self) -> Iterator[SessionInfo]:
        return iter(self.sessions)

    @overload
    def __getitem__(self, at: int) -> SessionInfo: ...
    @overload
    def __getitem__(self, at: slice) -> list[SessionInfo]: ...
    def __getitem__(self, at: int | slice) -> SessionInfo | list[SessionInfo]:
        return self.sessions[at]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list):
            return self.sessions == other
        if isinstance(other, SessionPage):
            return (self.sessions, self.cursor) == (other.sessions, other.cursor)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it holds a list

    # Reader.sessions returned a list in 0.1. The rest of what a list can do goes with the deprecated names. There is no
    # __radd__: it would come before list's own += and turn an extension in place into a new list.

    if not TYPE_CHECKING:  # type checkers would take it to mean that there is any name

        def __getattr__(self, name: str) -> Any:
            if name not in _METHODS_OF_A_LIST:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            warn_deprecated(f"SessionPage.{name}", f"SessionPage.sessions.{name}()")
            return getattr(self.sessions, name)

    @deprecated("SessionPage.sessions")
    def __add__(self, other: list[SessionInfo]) -> list[SessionInfo]:
        return self.sessions + list(other)


def _listed(ids: list[str]) -> str:
    if len(ids) < 3:
        return " and ".join(map(repr, ids)) or "nothing"
    return f"{len(ids)} from {ids[0]!r} to {ids[-1]!r}"
