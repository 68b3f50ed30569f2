"""The ports CommandLog, ResultsLog and Clock over a simulated cluster, as a worker's Kafka client gives them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from tests.simulation.agents import EPOCH_MS
from tests.simulation.broker import CommandPartition, CommandRecord, Coordinator, ResultsPartition
from tests.simulation.loop import OUTSIDE, Process, SimulatedLoop, current_process
from tests.simulation.network import Server

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.grouping import Grouper
from waypost_worker.partition.ports import (
    Fence,
    FetchedResult,
    ReadProgress,
    RefusedError,
    ResultRecord,
    UnavailableError,
)

_T = TypeVar("_T")
FETCH_WAIT = 1.0
PIECE = 7  # records that a read gives at a time
LONGEST_OPENING = 0.8  # seconds
_NO_EPOCH = -1
# Records and the offset to go on from, and the ends of the log.
_Found: TypeAlias = tuple[tuple[list[CommandRecord], int], tuple[int, int]]


class Machine:
    """What the clocks of one machine show. The one that counts from its start began at ``booted``."""

    def __init__(self, loop: SimulatedLoop, booted: float = 0.0) -> None:
        self.loop = loop
        self.booted = booted
        self.clock_ahead = 0.0  # how far its wall clock is ahead of the broker's
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Its hypervisor pauses it: its clocks stand still."""
        self._stopped_at = self.loop.time()

    def resume(self) -> None:
        """It goes on, and its wall clock is set right; the other one has not counted the pause."""
        if self._stopped_at is not None:
            self.booted += self.loop.time() - self._stopped_at
            self._stopped_at = None


class SimulatedClock:
    """The clocks of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def boottime(self) -> float:
        return self._machine.loop.time() - self._machine.booted

    def walltime(self) -> float:
        return EPOCH_MS / 1000 + self._machine.loop.time() + self._machine.clock_ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Topic:
    """The command topic as a whole: what every client of it can ask."""

    def __init__(self, partitions: Sequence[CommandPartition]) -> None:
        self.partitions = partitions
        self.count = len(partitions)  # more than there are, once an operator added some
        self.generous = False  # whether fetches give more than was asked for, as they may
        self.has_ids = (
            True  # whether brokers tell topics of one name apart, and logs that were cut (Kafka 3.1)
        )
        self.fetches: dict[Process | None, GroupedQuestions[_Found]] = {}  # of each process
        self.bounds: dict[Process | None, GroupedQuestions[tuple[int, int]]] = {}

    def fetches_of(self, process: Process | None, server: Server) -> "GroupedQuestions[_Found]":
        """What the owners of a process fetch with."""
        return self.fetches.setdefault(process, GroupedQuestions(server, "fetch"))

    def bounds_of(self, process: Process | None, server: Server) -> "GroupedQuestions[tuple[int, int]]":
        """What the owners of a process ask where their logs begin and end."""
        return self.bounds.setdefault(process, GroupedQuestions(server, "bounds of commands"))


@dataclass(frozen=True, slots=True, eq=False)
class _Question(Generic[_T]):
    what: str
    answer: Callable[[], _T]

    def try_to_answer(self) -> "_T | Exception":
        """What the leader answers for this partition; an error is its own."""
        try:
            return self.answer()
        except Exception as error:
            return error


class GroupedQuestions(Generic[_T]):
    """Questions of one kind of one process: what its owners ask at the same time goes in one request."""

    def __init__(self, server: Server, kind: str) -> None:
        self._server = server
        self._kind = kind
        self.sizes: list[int] = []  # of the groups so far
        self._grouper: Grouper[_Question[_T], _T] = Grouper(
            self._run, most_items=100, most_weight=100, heavy=1000
        )

    async def ask(self, what: str, answer: Callable[[], _T]) -> _T:
        """Ask about a partition; ``answer`` is what its leader says."""
        return await self._grouper.submit(_Question(what, answer))

    async def _run(self, group: Sequence[_Question[_T]]) -> Sequence["_T | Exception"]:
        self.sizes.append(len(group))
        what = f"{self._kind} " + ", ".join(one.what for one in group)
        return await self._server.call(what, lambda: [one.try_to_answer() for one in group])


class SimulatedCommandLog:
    """One partition of the command topic, for one term. ``stuck`` says whether fetching gives nothing."""

    def __init__(self, server: Server, topic: Topic, partition: int) -> None:
        self._server = server
        self._topic = topic
        self._log = topic.partitions[partition]
        self._at: int | None = None
        self._ends: tuple[int | None, int | None] = (None, None)
        self._topic_id: int | None = None
        self._last_epoch = _NO_EPOCH  # leader epoch of what was read before the position
        self._read_up_to = (-1, _NO_EPOCH)
        self.stuck = False
        self.closed = False
        self.disturbances = 0  # of a fetch that goes on; here, every error that it meets ends the term
        self.process = current_process()
        self._number = partition
        self._fetches = topic.fetches_of(self.process, server)
        self._bounds = topic.bounds_of(self.process, server)

    @property
    def progress(self) -> ReadProgress:
        return ReadProgress(self._at or 0, *self._ends)

    async def partitions(self) -> int:
        return await self._server.call("partitions", self._partitions)

    def _partitions(self) -> int:
        self._check_topic()
        return self._topic.count

    def _check_topic(self) -> None:
        if self._topic_id is None:
            self._topic_id = self._log.topic_id
        if self._topic.has_ids and self._topic_id != self._log.topic_id:
            raise RefusedError("the topic was deleted and created again while it was read")

    async def bounds(self) -> tuple[int, int]:
        return await self._bounds.ask(
            f"p{self._number}", lambda: (self._log.start, self._log.seen_end(self.process))
        )

    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        if first >= end:
            return []
        records = await self._server.call(f"read commands {first} to {end}", partial(self._read, first, end))
        self._read_up_to = (end, self._log.leader_epoch)
        return records

    def _read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        self._check_topic()
        # A reader that is asked for what its broker does not have waits for it until it gives up.
        if self._log.seen_end(self.process) < min(end, self._log.stable_end):
            raise UnavailableError("the broker gives nothing up to there")
        return self._log.between(first, end)

    async def seek(self, offset: int) -> None:
        self._at = offset
        read_up_to, last_epoch = self._read_up_to
        self._last_epoch = last_epoch if offset == read_up_to else _NO_EPOCH

    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        if self._at is None:
            raise AssertionError("fetch before seek")
        for patient in (True, False):
            at = self._at
            (records, behind), self._ends = await self._fetches.ask(
                f"p{self._number} from {at}", partial(self._fetch, at, self._about(most))
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

    def _fetch(self, first: int, most: int) -> _Found:
        self._check_topic()
        if self._topic.has_ids and self._log.diverges(self._last_epoch, first):
            raise RefusedError(f"the log was cut before offset {first}")
        self._last_epoch = self._log.leader_epoch
        return self._log.next_of(first, most, self.process), self._log.ends(self.process)

    def _about(self, most: int) -> int:
        """A few more may come than were asked for."""
        return most + self._server.random.choice((0, 0, 0, 2)) if self._topic.generous else most

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


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    log: ResultsPartition
    fence: Fence
    sequence: int
    records: tuple[ResultRecord, ...]
    until: tuple[float, float]  # by boot time and by the wall clock, as in kafka.produce.OutgoingBatch

    def land(self, count: int | None = None) -> int | Exception:
        """What the leader does with the batch, or with this many of its records."""
        try:
            return self.log.append(self.fence, self.sequence, self.records[:count])
        except Exception as error:
            return error


class GroupedAppends:
    """The appends of one process: what its owners want to append at the same time goes in one request.

    ``bounds`` is what they ask where their logs begin and end.
    ``openings`` is how likely a connection has to be opened before a request. Others come together meanwhile.
    """

    def __init__(self, server: Server, machine: Machine, openings: float = 0.0) -> None:
        self._server = server
        self._clock = SimulatedClock(machine)
        self.openings = openings
        self.bounds: GroupedQuestions[tuple[int, int]] = GroupedQuestions(server, "bounds of results")
        self.sizes: list[int] = []  # of the groups so far
        self.grouper: Grouper[_Append, int] = Grouper(
            self._run, most_items=100, most_weight=1_000_000, heavy=1_000_000
        )

    def until(self) -> tuple[float, float]:
        """When an append that begins now must have been sent."""
        seconds = self._server.timeout
        return self._clock.boottime() + seconds, self._clock.walltime() + seconds

    async def _run(self, group: Sequence[_Append]) -> Sequence[int | Exception]:
        if self.openings and self._server.random.random() < self.openings:
            await asyncio.sleep(self._server.random.random() * LONGEST_OPENING)
        boottime, walltime = self._clock.boottime(), self._clock.walltime()
        sent = [one for one in group if boottime < one.until[0] and walltime < one.until[1]]
        if not sent:
            raise UnavailableError("nobody is waiting for these appends")
        self.sizes.append(len(sent))
        draw = self._server.random.randrange
        part = None
        # No owner relies on an append being in the log as a whole or not at all, nor on those of others beside it.
        if sum(len(one.records) for one in sent) > 1:
            whole, torn = sent[: (cut := draw(len(sent)))], sent[cut]
            part = partial(_land, whole, torn, draw(len(torn.records)))
        what = "append " + ", ".join(f"{len(one.records)} under {one.fence}" for one in sent)
        landed = dict(zip(sent, await self._server.call(what, partial(_land, sent), part), strict=True))
        return [landed.get(one, UnavailableError("its time was up")) for one in group]


def _land(whole: Sequence[_Append], torn: _Append | None = None, count: int = 0) -> list[int | Exception]:
    outcomes = [one.land() for one in whole]
    if torn is not None and count:
        torn.land(count)
    return outcomes


class SimulatedResultsLog:
    """One partition of the results topic, for one term: a producer with a sequence, as FencedProducer is.

    ``appends`` is what the owners of a process share.
    """

    def __init__(
        self,
        server: Server,
        log: ResultsPartition,
        coordinator: Coordinator,
        transactional_id: str,
        appends: GroupedAppends | None = None,
    ) -> None:
        self._server = server
        self._appends = appends or GroupedAppends(server, Machine(server.loop))
        self._log = log
        self._coordinator = coordinator
        self._transactional_id = transactional_id
        self._fence: Fence | None = None
        self._sequence = 0
        self._usable = False
        self.closed = False
        self.broker_time: float | None = None
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
        append = _Append(self._log, self._fence, self._sequence, tuple(records), self._appends.until())
        try:
            async with asyncio.timeout(self._server.timeout):
                base = await self._appends.grouper.submit(append)
        except TimeoutError:
            raise UnavailableError("no answer to an append in time") from None
        self.broker_time = EPOCH_MS / 1000 + self._server.loop.time() if self._log.dated else None
        self._sequence += len(records)
        self._usable = True
        return base

    async def bounds(self) -> tuple[int, int]:
        return await self._appends.bounds.ask(
            self._transactional_id, lambda: (self._log.start, self._log.seen_end(self.process))
        )

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        if first >= end:
            return
        for at in range(first, end, PIECE):
            below = min(end, at + PIECE)
            records = await self._server.call(f"read results {at} to {below}", partial(self._read, at, below))
            if records:
                yield records

    def _read(self, first: int, end: int) -> Sequence[FetchedResult]:
        # A reader that is asked for what its broker does not have waits for it until it gives up.
        if self._log.seen_end(self.process) < min(end, self._log.end):
            raise UnavailableError("the broker gives nothing up to there")
        return self._log.between(first, end)

    def producer_of(self, record: Any) -> int:
        producer_id: int = record.producer_id
        return producer_id

    @property
    def unanswered_append_seconds(self) -> float:
        return 2 * self._server.timeout

    async def close(self) -> None:
        self.closed = True


def _wake(coming: asyncio.Future[None]) -> None:
    if not coming.done():
        coming.set_result(None)
