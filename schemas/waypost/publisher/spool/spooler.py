"""The spool's thread: writes to the disk what the buffer wants there, loads it again, removes what is settled.

One thread for each publisher with a spool, so that no disk ever holds up the event loop (a publisher with
``durability="spool"`` writes in its calls as well). Owns the spool files from the claim to the end; knows the
order of nothing, which is the buffer's.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, cast

from waypost.errors import SpoolError
from waypost.publisher.pending import Pending
from waypost.publisher.spool.buffer import SpooledBuffer
from waypost.publisher.spool.directory import SpoolClaim
from waypost.publisher.spool.file import SpoolFile

log = logging.getLogger("waypost")
_CHUNK: Final = 500
_REMOVE_CHUNK: Final = 100  # calls that write through wait for the commit of one such chunk
_TICK: Final = 0.25
_PATIENCE: Final = 1.0  # after so many seconds of trouble the next attempt
_LOOK_SECONDS: Final = 2.0  # between two looks at what others left


@dataclass(frozen=True, slots=True)
class _Question:
    """Somebody waits until this holds; ``save`` if writing to the disk is what helps."""

    answered: Callable[[], bool]
    tell: Callable[[], None]
    save: bool


class _Left:
    """A file that a dead publisher left: how much of it is still to be loaded, and to be removed."""

    def __init__(self, file: SpoolFile) -> None:
        self.file = file
        self.count, self.size = file.totals()
        self.held = self.count
        self.row = 0
        self.set_aside = (0, 0)

    def load(self, most: int) -> list[Pending]:
        """The next commands; none at the end, or where the rest can't be read."""
        try:
            found = self.file.read(self.row, most=most)
        except SpoolError as error:
            log.error("the rest of what a publisher left can't be sent, and is kept: %s", error)
            return []
        lost, size = self.file.take_set_aside()
        self.count -= lost
        self.size -= size
        self.held -= lost
        self.set_aside = (lost, size)
        if found:
            self.row = found[-1].row
            self.count -= len(found)
            self.size -= sum(each.size for each in found)
        return found


class Spooler:
    """Serves the buffer from a thread. ``last_error`` is what went wrong with the disk since it last went well.

    ``quiet_seconds``: after so long without any progress all that is in memory is written to the disk too.
    ``adopt_after``: after so many seconds what another publisher left is taken over, where nobody started in its
    place, and while ``sending`` says that Kafka takes what we send.
    """

    def __init__(
        self, claim: SpoolClaim, quiet_seconds: float, adopt_after: float, sending: Callable[[], bool]
    ) -> None:
        self.last_error: str | None = None
        self._claim = claim
        self._quiet_seconds = quiet_seconds
        self._adopt_after = adopt_after
        self._sending = sending
        self._left = {file: left for file in claim.left if (left := self._counted(file)) is not None}
        self._to_load = deque(self._left.values())
        self.recovered = (sum(x.count for x in self._to_load), sum(x.size for x in self._to_load))
        self._news = threading.Event()
        self._closing = self._ended = False
        self._ending = threading.Lock()
        self._at_the_end: list[Callable[[], None]] = []
        self._asked: deque[_Question] = deque()
        self._look_at = 0.0
        self._look_error: str | None = None
        self._thread = threading.Thread(target=self._run, name="waypost-spool", daemon=True)

    def _counted(self, file: SpoolFile) -> _Left | None:
        """What there is in the file of a dead publisher; None if nothing is to be had, and it was given up."""
        empty = False
        try:
            left = _Left(file)
            if left.count:
                return left
            empty = True
        except SpoolError as error:
            log.error("what a publisher left can't be sent, and is kept: %s", error)
            self._claim.pass_over(file.path)
        self._claim.give_up(file, empty=empty)
        return None

    @property
    def own(self) -> SpoolFile:
        """The file of this publisher."""
        return self._claim.own

    def start(self, buffer: SpooledBuffer) -> None:
        """Begin to serve."""
        self._buffer = buffer
        self._thread.start()

    def hint(self) -> None:
        """There is work. From any thread."""
        self._news.set()

    def when_saved(self, number: int, tell: Callable[[], None]) -> None:
        """Write what is in memory to the disk and call ``tell``, in the spool's thread, once nothing up to this
        number is in memory alone.
        """
        self._ask(_Question(lambda: not self._buffer.in_memory_alone(number), tell, save=True))

    def when_roomy(self, tell: Callable[[], None]) -> None:
        """Call ``tell``, in the spool's thread, once a quarter of what can fill up is free."""
        self._ask(_Question(self._buffer.roomy, tell, save=False))

    def _ask(self, question: "_Question") -> None:
        with self._ending:
            if not self._ended:
                self._asked.append(question)
                self._news.set()
                return
        question.tell()

    def end(self, tell: Callable[[], None]) -> None:
        """As :meth:`close`, without waiting: ``tell`` is called in the spool's thread at its end."""
        with self._ending:
            if not self._ended:
                self._at_the_end.append(tell)
                tell = _nothing
            self._closing = True
        self._news.set()
        tell()

    def close(self) -> None:
        """Write what is in memory alone, as far as it fits, and close the files. From any thread but the spool's."""
        self.end(_nothing)
        self._thread.join()

    def _run(self) -> None:
        oldest, since = 0, monotonic()
        while not self._closing:
            self._news.wait(_TICK)
            self._news.clear()
            if (now_oldest := self._buffer.oldest()) != oldest or not oldest:
                oldest, since = now_oldest, monotonic()
            try:
                self._serve(quiet=monotonic() - since >= self._quiet_seconds)
                self.last_error = None
            except SpoolError as error:
                self._complain(error)
                self._pause()
            except Exception as error:
                log.exception("the spool's thread goes on after an error; commands stay where they are")
                self._complain(error)
                self._pause()
        self._end()

    def _pause(self) -> None:
        # News come in meanwhile, and only the end cuts this short.
        until = monotonic() + _PATIENCE
        while not self._closing and monotonic() < until:
            self._news.wait(_TICK)
            self._news.clear()
        self._news.set()

    def _complain(self, error: Exception) -> None:
        if self.last_error is None:
            log.error("the spool is in trouble; commands stay where they are: %s", error)
        self.last_error = str(error)

    def _serve(self, quiet: bool) -> None:
        self._buffer.listen()
        self._remove()
        if quiet or any(question.save for question in list(self._asked)):
            self._save()
        while self._spill():
            self._remove()
        while self._buffer.load_wanted() and self._load():
            pass
        self._answer()
        self.own.tidy(empty=not self._buffer.disk_count)
        for left in self._left:
            left.tidy(empty=False)
        self._look_around()

    def _look_around(self) -> None:
        """Take over what other publishers left meanwhile."""
        if monotonic() < self._look_at or not self._buffer.calm() or not self._sending():
            return
        self._look_at = monotonic() + min(_LOOK_SECONDS, self._adopt_after)
        try:
            found = self._claim.newly_left(self._adopt_after)
            self._look_error = None
        except SpoolError as error:
            if self._look_error is None:
                log.error("what other publishers left can't be looked for: %s", error)
            self._look_error = str(error)
            return
        if found is None or (left := self._counted(found)) is None:
            return
        if self._buffer.adopt(left.count, left.size):
            log.info("%d commands that another publisher left in %s are sent now", left.count, found.path)
            self._left[found] = left
            self._to_load.append(left)
            self._news.set()
        else:
            self._claim.give_up(found, empty=False)  # and after as many seconds we look again

    def _remove(self) -> None:
        found = self._buffer.removals()
        rows: dict[SpoolFile, list[int]] = {}
        for gone, _ in found:
            for pending in gone:
                if pending.home is not None:
                    rows.setdefault(cast("SpoolFile", pending.home), []).append(pending.row)
        try:
            for file, numbers in rows.items():
                for start in range(0, len(numbers), _REMOVE_CHUNK):
                    file.remove(numbers[start : start + _REMOVE_CHUNK])
        except SpoolError:
            self._buffer.put_off(found)
            raise
        for file, numbers in rows.items():
            self._release(file, len(numbers))
        for _, settled in found:
            if settled is not None:
                settled()

    def _release(self, file: SpoolFile, removed: int) -> None:
        """Give up a dead publisher's file once all that it held is in Kafka and removed."""
        left = self._left.get(file)
        if left is None:
            return
        left.held -= removed
        if left.held <= 0:
            del self._left[file]
            if left in self._to_load:
                self._to_load.remove(left)
            self._claim.give_up(file, empty=True)

    def _save(self) -> None:
        unsaved = self._buffer.unsaved()
        for start in range(0, len(unsaved), _CHUNK):
            chosen = self._buffer.save(unsaved[start : start + _CHUNK])
            if not chosen:
                continue
            try:
                self.own.add(chosen)
            except SpoolError:
                self._buffer.saved(chosen, well=False)
                raise
            self._buffer.saved(chosen, well=True)
            self._remove()

    def _answer(self) -> None:
        for _ in range(len(self._asked)):
            question = self._asked.popleft()
            if question.answered():
                question.tell()
            else:
                self._asked.append(question)

    def _spill(self) -> bool:
        count, new = self._buffer.spill(_CHUNK)
        if not count:
            return False
        try:
            if new:
                self.own.add(new)
        except SpoolError:
            self._buffer.spilled(new)
            raise
        self._buffer.spilled()
        return True

    def _load(self) -> bool:
        """Load some of the oldest stored commands; False if there is nothing to be found."""
        while self._to_load:
            left = self._to_load[0]
            left.set_aside = (0, 0)
            found = left.load(self._buffer.load_most)
            self._buffer.set_aside(*left.set_aside)
            if found:
                break
            self._to_load.popleft()
            if left.count:
                self._buffer.lost_sight(left.count, left.size)
            self._release(left.file, 0)
        else:
            first, last = self._buffer.next_stored()
            found = self.own.read(first - 1, last, self._buffer.load_most)
            self._buffer.set_aside(*self.own.take_set_aside())
        if found:
            self._buffer.loaded(found)
        return bool(found)

    def _end(self) -> None:
        try:
            self._remove()
            self._save()
        except SpoolError as error:
            log.error("the spool could not be brought up to date at the end: %s", error)
        for file in (*self._left, self.own):
            try:
                self._claim.give_up(file, empty=_is_empty(file))
            except (SpoolError, OSError) as error:
                log.error("a spool could not be closed: %s", error)
        with self._ending:
            self._ended = True
        # Who asked is told too, and has to look for himself.
        for tell in (*self._at_the_end, *(question.tell for question in self._asked)):
            tell()


def _nothing() -> None:
    pass


def _is_empty(file: SpoolFile) -> bool:
    try:
        return not file.read(0, most=1)
    except SpoolError:
        return False
