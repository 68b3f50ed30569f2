"""Batches that fail each time: the known facts about the error, and how the next batch is made smaller.

A bug shows as an exception that no port promises. It ends the term like any other error. If it comes from commands
themselves, the same batch fails in every term. So does a batch that the store can't finish within a time limit. In
both cases the batch is halved until it succeeds or a single command is left. All commands before that one are then
applied, and the message can name it. Pure: knows no clock, no log and no store.
"""

import traceback
from dataclasses import dataclass
from typing import Final

from waypost_worker.partition.ports import OwnerError, RefusedError, TimedOutError, UnavailableError

_PACKAGES: Final = ("waypost.", "waypost_worker.")
# Full batches until a limit is doubled. Each try that is too slow costs a term, and terms use up producer epochs, of
# which there are 32,767: at the upper end one try in a thousand batches fails.
_BATCHES_TO_GROW: Final = 8
_MOST_BATCHES_TO_GROW: Final = 1024


# Instructions for an operator about such a command.
REMEDY: Final = (
    "Report the traceback, which the event 'owner_failed' has in the log, and start a worker version without the "
    "error: the partition then continues by itself. If that takes too long, the holder of the authority's key can have "
    "this command skipped: see 'waypost commands skip --help'."
)


@dataclass(frozen=True, slots=True)
class Suspects:
    """The commands in progress when a term failed: ``count`` records from offset ``first`` to ``last``.

    ``position`` is the next offset to apply. It is lower than ``first`` if there are offsets without commands in
    between.
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
            text += f", with the commands from offset {suspects.first} to {suspects.last} in progress"
        super().__init__(text)
        self.__cause__ = cause


class SlowBatchError(UnavailableError):
    """The store could not finish a batch within a time limit, ``__cause__``. ``suspects`` are its commands."""

    def __init__(self, cause: TimedOutError, suspects: Suspects) -> None:
        self.setting = cause.setting
        self.suspects = suspects
        super().__init__(
            f"{cause}. The batch had {suspects.count} commands, from offset {suspects.first} to {suspects.last}; the "
            f"limit is {cause.setting}"
        )
        self.__cause__ = cause


class RefusedCommandError(RefusedError):
    """The partition can't go past the command at ``offset``."""

    def __init__(self, offset: int, message: str) -> None:
        self.offset = offset
        super().__init__(message)


class FailingCommandError(RefusedCommandError):
    """The command at ``offset`` makes every term fail."""

    def __init__(self, partition: int, offset: int, terms: int, error: UnexpectedError) -> None:
        cause = error.__cause__
        super().__init__(
            offset,
            f"The command at offset {offset} of partition {partition} makes its owner fail: "
            f"{type(cause).__name__} at {error.place}, {terms} times in a row, the last time with this command "
            f"alone. All commands before it are applied and answered; it and those after it wait unchanged in the "
            f"command topic. {REMEDY}",
        )
        self.__cause__ = cause


class SlowCommandError(RefusedCommandError):
    """The store can't finish the command at ``offset`` within a time limit, even alone."""

    def __init__(self, partition: int, offset: int, terms: int, error: SlowBatchError) -> None:
        cause = error.__cause__
        super().__init__(
            offset,
            f"The command at offset {offset} of partition {partition} can't be applied in time, {terms} times in a "
            f"row as the only one of its batch: {cause}. All commands before it are applied and answered; it and "
            f"those after it wait unchanged in the command topic. Raise {error.setting}, or find what it "
            "waits for, such as a lock; the partition then continues by itself.",
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


class BatchSizer:
    """Decides how many records a batch may have, after batches that failed.

    An unexpected error counts once ``patience`` terms in a row failed at the same position. The batch is then halved in
    each term. Other errors between these terms neither count nor end this search; a position beyond the suspects
    ends it.

    A batch that was not finished in time is halved immediately. The next one may be too large again, so the limit
    stays, and is doubled after a few full batches, up to ``largest``. If the doubled batch is too slow, it takes twice
    as many batches until the next attempt.
    """

    def __init__(self, largest: int, patience: int = 3) -> None:
        self._patience = patience
        self._suspects: Suspects | None = None
        self._most: int | None = None
        self._growth = _Growth(largest)
        self._slow: int | None = None
        self.terms = 0
        """How many terms failed in a row by unexpected errors."""
        self.slow_terms = 0
        """How many terms in a row could not finish the same command alone."""

    def most_records(self, position: int) -> int | None:
        """Return the most records that a batch at this position may have; None if there is no reason for a limit."""
        limits = (self._most if self._holds(position) else None, self._growth.most)
        return min((limit for limit in limits if limit is not None), default=None)

    def failed(self, suspects: Suspects) -> int | None:
        """Note that a term failed with these commands in progress. Return the failing one's offset once it is known."""
        searching = self._most is not None and self._holds(suspects.position)
        same = self._suspects is not None and self._suspects.position == suspects.position
        self.terms = self.terms + 1 if searching or same else 1
        self._suspects = suspects
        if self.terms < self._patience:
            self._most = None
            return None
        self._most = max(1, suspects.count // 2)
        return suspects.first if suspects.count == 1 else None

    def timed_out(self, suspects: Suspects) -> int | None:
        """Note that these commands were not applied in time; return the offset of one that never is, even alone."""
        self._growth.halve(suspects.count)
        if suspects.count > 1:
            self._slow, self.slow_terms = None, 0
            return None
        self.slow_terms = self.slow_terms + 1 if suspects.first == self._slow else 1
        self._slow = suspects.first
        return suspects.first if self.slow_terms >= self._patience else None

    def applied(self, count: int) -> None:
        """Note that a batch of ``count`` records was applied."""
        self._growth.applied(count)

    @property
    def is_searching(self) -> bool:
        """Return whether the next term uses a smaller batch than the last."""
        return self._most is not None

    def _holds(self, position: int) -> bool:
        suspects = self._suspects
        return suspects is not None and suspects.position <= position <= suspects.last


class _Growth:
    """A limit that is halved when a batch was too slow, and doubled after batches that were not."""

    def __init__(self, largest: int) -> None:
        self.most: int | None = None
        self._largest = largest
        self._applied = 0
        self._wanted = _BATCHES_TO_GROW
        self._grown = False

    def halve(self, count: int) -> None:
        if self._grown:
            self._wanted = min(2 * self._wanted, _MOST_BATCHES_TO_GROW)
        self.most, self._applied, self._grown = max(1, count // 2), 0, False

    def applied(self, count: int) -> None:
        if self.most is None and not self._grown:  # as nearly always
            return
        if self.most is not None and count < self.most:  # smaller for another reason, so it says nothing
            return
        self._applied += 1
        if self.most is None:
            if self._applied >= _MOST_BATCHES_TO_GROW:
                self._wanted, self._grown = _BATCHES_TO_GROW, False
        elif self._applied >= self._wanted:
            grown = 2 * self.most
            self.most, self._applied, self._grown = None if grown >= self._largest else grown, 0, True
