"""The ports CommandLog, ResultsLog and Clock over a simulated cluster, as a worker's Kafka client gives them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tests.simulation.broker import CommandPartition, Coordinator, ResultsPartition
from tests.simulation.loop import OUTSIDE, SimulatedLoop, current_process
from tests.simulation.network import Server

from waypost.envelope import KafkaRecord
from waypost_worker.partition.ports import Fence, FetchedResult, ResultRecord, UnavailableError

FETCH_WAIT = 1.0
PIECE = 7  # records that a read gives at a time


class SimulatedClock:
    """Boot time of one machine."""

    def __init__(self, loop: SimulatedLoop, booted: float) -> None:
        self._loop = loop
        self._booted = booted

    def boottime(self) -> float:
        return self._loop.time() - self._booted

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Topic:
    """The command topic as a whole: what every client of it can ask."""

    def __init__(self, partitions: Sequence[CommandPartition]) -> None:
        self.partitions = partitions
        self.count = len(partitions)  # more than there are, once an operator added some


class SimulatedCommandLog:
    """One partition of the command topic, for one term. ``stuck`` says whether fetching gives nothing."""

    def __init__(self, server: Server, topic: Topic, partition: int) -> None:
        self._server = server
        self._topic = topic
        self._log = topic.partitions[partition]
        self._at: int | None = None
        self.stuck = False
        self.closed = False
        self.process = current_process()

    async def partitions(self) -> int:
        return await self._server.call("partitions", lambda: self._topic.count)

    async def bounds(self) -> tuple[int, int]:
        return await self._server.call("bounds of commands", lambda: (self._log.start, self._log.stable_end))

    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        if first >= end:
            return []
        return await self._server.call(
            f"read commands {first} to {end}", partial(self._log.between, first, end)
        )

    async def seek(self, offset: int) -> None:
        self._at = offset

    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        if self._at is None:
            raise AssertionError("fetch before seek")
        for patient in (True, False):
            at = self._at
            records, behind = await self._server.call(
                f"fetch from {at}", partial(self._log.next_of, at, most)
            )
            if at != self._at:
                raise AssertionError("seek during a fetch")
            if self.stuck:
                records = []
            else:
                self._at = behind
            if records or not patient:
                return records
            await self._something_comes()
        raise AssertionError("unreachable")

    async def _something_comes(self) -> None:
        """A broker holds an empty fetch until there is something, for a bounded time."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Future[None] = loop.create_future()
        wake = partial(_wake, coming)
        self._log.waiting.append(wake)
        timer = loop.call_later(FETCH_WAIT, wake, context=OUTSIDE)
        try:
            await coming
        finally:
            timer.cancel()
            if wake in self._log.waiting:
                self._log.waiting.remove(wake)

    async def close(self) -> None:
        self.closed = True


class SimulatedResultsLog:
    """One partition of the results topic, for one term: a producer with a sequence, as FencedProducer is."""

    def __init__(
        self, server: Server, log: ResultsPartition, coordinator: Coordinator, transactional_id: str
    ) -> None:
        self._server = server
        self._log = log
        self._coordinator = coordinator
        self._transactional_id = transactional_id
        self._fence: Fence | None = None
        self._sequence = 0
        self._usable = False
        self.closed = False
        self.process = current_process()

    async def claim(self) -> Fence:
        self._usable = False
        self._fence = await self._server.call(
            f"claim {self._transactional_id}", partial(self._coordinator.claim, self._transactional_id)
        )
        self._sequence = 0
        self._usable = True
        return self._fence

    async def append(self, records: Sequence[ResultRecord]) -> int:
        if self._fence is None:
            raise AssertionError("append before claim")
        if not records:
            raise AssertionError("nothing to append")
        if not self._usable or self.closed:
            raise UnavailableError("this producer failed before")
        self._usable = False
        effect = partial(self._log.append, self._fence, self._sequence, tuple(records))
        epoch = self._fence.producer_epoch
        base = await self._server.call(f"append {len(records)} under epoch {epoch}", effect)
        self._sequence += len(records)
        self._usable = True
        return base

    async def bounds(self) -> tuple[int, int]:
        return await self._server.call("bounds of results", lambda: (self._log.start, self._log.end))

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        if first >= end:
            return
        records = await self._server.call(
            f"read results {first} to {end}", partial(self._log.between, first, end)
        )
        for at in range(0, len(records), PIECE):
            yield records[at : at + PIECE]

    @property
    def unanswered_append_seconds(self) -> float:
        return 2 * self._server.timeout

    async def close(self) -> None:
        self.closed = True


def _wake(coming: asyncio.Future[None]) -> None:
    if not coming.done():
        coming.set_result(None)
