"""Unexpected errors of an owner: what is known about them, and the search for the command that causes one.

A bug shows as an exception that no port promises. It ends the term like any other error. If it comes from commands
themselves, the same batch fails in every term. The search makes that batch smaller until a single command is left,
so that all commands before it are applied and the message can name it. Pure: knows no clock, no log and no store.
"""

import traceback
from dataclasses import dataclass
from typing import Final

from waypost_worker.partition.ports import OwnerError, RefusedError

_PACKAGES: Final = ("waypost.", "waypost_worker.")


# What an operator can do about such a command; a command line that passes over one is to be named here.
REMEDY: Final = (
    "Report the traceback, which the event 'owner_failed' has in the log, and start a worker version without the "
    "error: the partition then continues by itself."
)


@dataclass(frozen=True, slots=True)
class Suspects:
    """The commands in hand when a term failed: ``count`` records from offset ``first`` to ``last``.

    ``position`` is the next offset to apply. It is lower than ``first`` if offsets without commands lie between.
    """

    position: int
    first: int
    last: int
    count: int


class UnexpectedError(OwnerError):
    """An error that no port promises, ``__cause__``, ended the term.

    ``suspects`` are the commands that were being decoded or decided on, if the error came from there. The message
    names the error's type and place, but not its text, which may quote a command.
    """

    def __init__(self, cause: BaseException, suspects: Suspects | None = None) -> None:
        self.place = place_of(cause)
        self.suspects = suspects
        text = f"{type(cause).__name__} at {self.place}"
        if suspects is not None:
            text += f", with the commands from offset {suspects.first} to {suspects.last} in hand"
        super().__init__(text)
        self.__cause__ = cause


class FailingCommandError(RefusedError):
    """The command at ``offset`` makes every term fail: the partition can't go past it."""

    def __init__(self, partition: int, offset: int, terms: int, error: UnexpectedError) -> None:
        self.offset = offset
        cause = error.__cause__
        super().__init__(
            f"The command at offset {offset} of partition {partition} makes its owner fail: "
            f"{type(cause).__name__} at {error.place}, {terms} times in a row, the last time with this command "
            f"alone. All commands before it are applied and answered; it and those after it wait unchanged in the "
            f"command topic. {REMEDY}"
        )
        self.__cause__ = cause


def place_of(error: BaseException) -> str:
    """Return module and line where an error was raised: the innermost place in Waypost's own code, if any."""
    innermost = own = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", "?"))
        innermost = f"{module}:{line}"
        if module.startswith(_PACKAGES):
            own = innermost
    return own or innermost or "an unknown place"


class FailingCommandSearch:
    """Finds the command at which an owner's terms fail, by smaller and smaller batches.

    It begins once ``patience`` terms in a row failed at the same position, and halves the batch from then on. Other
    errors between these terms neither count nor end the search; a position beyond the suspects ends it.
    """

    def __init__(self, patience: int = 3) -> None:
        self._patience = patience
        self._suspects: Suspects | None = None
        self._most: int | None = None
        self.terms = 0
        """How many terms failed in a row."""

    def most_records(self, position: int) -> int | None:
        """Return the most records that a batch at this position may have; None if there is no reason for a limit."""
        return self._most if self._holds(position) else None

    def failed(self, suspects: Suspects) -> int | None:
        """Note that a term failed with these commands in hand; return the failing one's offset once it is known."""
        searching = self._most is not None and self._holds(suspects.position)
        same = self._suspects is not None and self._suspects.position == suspects.position
        self.terms = self.terms + 1 if searching or same else 1
        self._suspects = suspects
        if self.terms < self._patience:
            self._most = None
            return None
        self._most = max(1, suspects.count // 2)
        return suspects.first if suspects.count == 1 else None

    @property
    def is_searching(self) -> bool:
        """Whether the next term takes a smaller batch than the last."""
        return self._most is not None

    def _holds(self, position: int) -> bool:
        suspects = self._suspects
        return suspects is not None and suspects.position <= position <= suspects.last
