"""Results that a replay computes again, compared with the results topic as both advance, in command order.

Owns the results position (E, F) while the log is replayed: E is the highest command offset among the results below
results offset F, and everything below F was checked. Results above ``highest``, the last that the topic answers, are
pending: the next worker on the rebuilt database emits them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import cast

from waypost_worker.partition.ports import FetchedResult, OwnerError, RefusedError, ResultRecord, ResultsLog
from waypost_worker.partition.tail import command_offset, essence
from waypost_worker.recovery.json_diff import first_difference
from waypost_worker.recovery.log_scan import first_result, is_fence, last_result


class DifferenceError(OwnerError):
    """A result in the topic is not what the command log gives now, or one of the two is missing."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """A replay's use of the results topic. Without ``contents``, it checks only how far the results go, not the
    results.

    If retention removed all results, it is unknown which commands were answered: with ``accept_trimmed``, all that are
    replayed count as answered.
    """

    contents: bool = True
    accept_trimmed: bool = False


class Comparison:
    """The results of one partition. ``emitted`` and ``results_offset`` are (E, F) as it is now."""

    def __init__(
        self,
        results: ResultsLog,
        emitted: int,
        results_offset: int,
        next_offset: int,
        options: CompareOptions,
    ) -> None:
        """From the stored position (E, F), with ``next_offset`` as the first command that will be replayed."""
        self.emitted = emitted
        self.results_offset = results_offset
        self.highest = emitted
        self.silent_below = emitted + 1  # results of commands below this do not have to be built
        self.compared = 0
        self.trimmed = 0
        self._results = results
        self._next_offset = next_offset
        self._contents = options.contents
        self._accept_trimmed = options.accept_trimmed
        self._stream: AsyncIterator[Sequence[FetchedResult]] | None = None
        self._piece: Sequence[FetchedResult] = ()
        self._at = 0
        self._end = results_offset

    async def open(self, last_command: int) -> None:
        """Find what the topic holds. RefusedError if it does not go with the stored position.

        ``last_command`` is the last that will be replayed.
        """
        start, self._end = await self._results.bounds()
        if self.results_offset > self._end:
            raise RefusedError(
                f"the results topic ends at {self._end}, before the stored position {self.results_offset}: it "
                "was recreated or truncated, or is another deployment's. Nothing was changed; see --topic-prefix"
            )
        self.trimmed = max(0, start - self.results_offset)
        self.results_offset = max(start, self.results_offset)
        last = await last_result(self._results, self.results_offset, self._end)
        if last is not None:
            self.highest = max(self.emitted, command_offset(last))
            if not self._contents:
                self.emitted, self.results_offset = self.highest, last.offset + 1
            elif self.trimmed:
                # The removed results answered commands before the first one that is left.
                first = await first_result(self._results, self.results_offset, self._end) or last
                self.emitted = max(self.emitted, command_offset(first) - 1)
        elif self.trimmed and not self._accept_trimmed:
            raise RefusedError(
                f"retention removed results {self.results_offset - self.trimmed} to {start - 1} and no "
                "later one is left, so it is unknown which commands were answered. Nothing was changed. To "
                "continue as if all were answered, set WAYPOST_ACCEPT_TRIMMED_RESULTS=true"
            )
        elif self.trimmed:
            self.emitted = self.highest = max(self.emitted, last_command)
        self.silent_below = self.emitted + 1

    async def hold(self, made: Sequence[tuple[int, ResultRecord]]) -> None:
        """Hold a batch's results against the topic, as far as it goes. DifferenceError at the first difference."""
        looked_again = False
        at = 0
        while (at := self._hold_alike(made, at)) < len(made):
            offset, record = made[at]
            if offset > self.highest and not looked_again:
                looked_again = True  # workers may have emitted more meanwhile
                await self._look_again()
            if offset > self.highest:
                return
            await self._hold(offset, record)
            at += 1

    async def close(self) -> None:
        """Stop reading."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OwnerError):
                await cast("AsyncGenerator[Sequence[FetchedResult], None]", stream).aclose()

    def _hold_alike(self, made: Sequence[tuple[int, ResultRecord]], first: int) -> int:
        """Take the results that equal those from ``first`` on byte for byte, as nearly all do, and are in memory.
        Return where that ended.
        """
        piece, begin, highest = self._piece, self._at, self.highest
        # The shorter of the two bounds it.
        at = begin
        for (offset, record), found in zip(
            islice(made, first, None), islice(piece, begin, None), strict=False
        ):
            if offset > highest or found.value != record.value or found.headers != record.headers:
                break
            at += 1
        if at == begin:
            return first
        self._at = at
        self.compared += at - begin
        first += at - begin
        self.emitted, self.results_offset = made[first - 1][0], piece[at - 1].offset + 1
        return first

    async def _hold(self, offset: int, record: ResultRecord) -> None:
        found = await self._peek()
        if found is not None and _alike(found, record):
            self._take(found, offset)
            self.compared += 1
            return
        while found is not None:
            answered = command_offset(found)
            if answered == offset:
                break
            if answered > offset:
                found = None
            elif answered < self._next_offset:
                # Emitted before the stored position could include it.
                self._take(found, answered)
                found = await self._peek()
            else:
                raise DifferenceError(
                    f"the results topic has a result of command {answered} (at offset {found.offset}), and the "
                    "command topic no such command: one of the topics was changed. " + self._stopped(offset)
                )
        if found is None:
            raise DifferenceError(
                f"the results topic has no result of command {offset}, though one of command {self.highest}: "
                "results were removed from it. " + self._stopped(offset)
            )
        if essence(found) != essence(record):
            raise DifferenceError(
                f"the result of command {offset} (at offset {found.offset} of the results topic) is not what the "
                f"command log gives now: {_difference(found, record)}. " + self._stopped(offset)
            )
        self._take(found, offset)
        self.compared += 1

    def _stopped(self, offset: int) -> str:
        return (
            f"The partition is rebuilt up to a batch before command {offset} and not further; to rebuild all, "
            "whatever the results say, use --no-compare"
        )

    def _take(self, found: FetchedResult, answered: int) -> None:
        self._at += 1
        self.emitted, self.results_offset = answered, found.offset + 1

    async def _peek(self) -> FetchedResult | None:
        """The next result in the topic; fence records are passed over."""
        while True:
            while self._at < len(self._piece):
                found = self._piece[self._at]
                if not is_fence(found):
                    return found
                self._at += 1
            if self._stream is None:
                self._stream = self._results.read(self.results_offset, self._end)
            piece = await anext(self._stream, None)
            if piece is None:
                return None
            self._piece, self._at = piece, 0

    async def _look_again(self) -> None:
        end = (await self._results.bounds())[1]
        if end <= self._end:
            return
        await self.close()
        last = await last_result(self._results, self._end, end)
        if last is not None:
            self.highest = max(self.highest, command_offset(last))
        self._end, self._piece, self._at = end, (), 0


def _alike(found: FetchedResult, made: ResultRecord) -> bool:
    """The usual case, recognized without parsing anything."""
    return found.value == made.value and tuple(found.headers) == tuple(made.headers)


def _difference(found: FetchedResult, made: ResultRecord) -> str:
    was, now = dict(found.headers), dict(made.headers)
    for name in ("ce_id", "ce_type"):
        if was.get(name) != now.get(name):
            had, has = (headers.get(name, b"").decode(errors="replace") for headers in (was, now))
            return f"its {name} is {had!r} in the topic, and {has!r} from the log"
    return first_difference(found.value, made.value, "the topic", "the log")
