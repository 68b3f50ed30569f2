"""Replacing a consumer that no longer gets what is there for it.

Kafka clients are known to stop without an error (aiokafka's issues 625, 712, 718, 1017, 1145). From outside, that
always looks the same: the log grows, the consumer is polled, and nothing comes. The time spent polling counts, so that
an application that takes its time with an event is never mistaken for a stuck consumer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from waypost.kafka.partitions import partitions_of
from waypost.kafka.topic_reader import TopicReader

log = logging.getLogger("waypost")
_P = TypeVar("_P")
_LONGEST_PATIENCE: Final = 600.0
_PROBE_SECONDS: Final = 10.0


class FetchProgress(Generic[_P]):
    """The recent progress of each assigned partition. Seconds of polling; positions are next offsets.

    Pure: fed with seconds, positions and ends of logs.
    """

    def __init__(self, patience: float) -> None:
        self._first_patience = patience
        self._patience = patience
        self._asked: dict[_P, float] = {}
        self._positions: dict[_P, int] = {}
        self._passed: dict[_P, int] = {}
        self._suspected: dict[_P, int] = {}
        self._restarted_at: dict[_P, int] = {}

    @property
    def patience(self) -> float:
        """The number of seconds of polling in vain that make a partition suspect."""
        return self._patience

    def begin(self, positions: Mapping[_P, int]) -> None:
        """These partitions are read from here on, and no others."""
        self._positions = dict(positions)
        self._asked = dict.fromkeys(positions, 0.0)
        self._passed.clear()
        self._suspected.clear()

    def came(self, partition: _P, next_offset: int) -> None:
        """Records came; the next one will have this offset."""
        self._positions[partition] = next_offset
        self._asked[partition] = 0.0
        self._suspected.pop(partition, None)
        if self._restarted_at.get(partition, next_offset) < next_offset:
            self._restarted_at.clear()
            self._patience = self._first_patience

    def passed(self, partition: _P, next_offset: int) -> None:
        """The offsets before this one, as far as no records came of them, hold none that anybody can read."""
        self._passed[partition] = next_offset

    def asked(self, seconds: float, came: Collection[_P]) -> None:
        """Note that a call of this many seconds has returned records of these partitions only."""
        for partition in self._asked.keys() - set(came):
            self._asked[partition] += seconds

    def hungry(self, asking_for: float = 0.0) -> list[_P]:
        """The partitions that gave nothing for long; ``asking_for`` is the age of a call under way."""
        return [
            partition for partition, seconds in self._asked.items() if seconds + asking_for >= self._patience
        ]

    def stuck(self, ends: Mapping[_P, int]) -> dict[_P, int]:
        """Which of the hungry partitions are stuck, and by how many records, given the ends of their logs.

        A record may have come in the moment of looking: stuck is what stands at the same place the second time.
        """
        behind = {
            partition: end - self._positions[partition]
            for partition, end in ends.items()
            if partition in self._positions
            and end > max(self._positions[partition], self._passed.get(partition, 0))
        }
        found = {p: lag for p, lag in behind.items() if self._suspected.get(p) == self._positions[p]}
        for partition in ends.keys() - behind.keys():
            self._asked[partition] = 0.0  # at the end of its log: nothing was to come
        self._suspected = {partition: self._positions[partition] for partition in behind}
        return found

    def restarted(self, stuck: Iterable[_P]) -> None:
        """Note that the consumer was replaced. If that doesn't help, it is tried less and less often."""
        places = {p: self._positions[p] for p in stuck if p in self._positions}
        if any(self._restarted_at.get(partition) == at for partition, at in places.items()):
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
        self._restarted_at.update(places)
        self.begin({})


class Watch(NamedTuple):
    """After how many seconds of asking in vain a consumer is suspect, and whom to tell that it was replaced."""

    patience: float
    on_restart: Callable[[str], None] | None


class Activity(NamedTuple):
    """The state of a consumer: the age of the current call, and how long it has had no partitions.

    Seconds; 0 without a call, and None while it has partitions.
    """

    asking_for: float
    without_partitions: float | None


class Watchdog:
    """Checks a consumer of a topic for as long as it runs, and calls ``replace`` if it is stuck.

    ``restarts`` counts these calls. ``make_probe`` creates a reader that reads the ends of logs over a separate
    connection.
    """

    def __init__(
        self,
        topic: str,
        watch: Watch,
        progress: FetchProgress[TopicPartition],
        activity: Callable[[], Activity],
        *,
        make_probe: Callable[[], TopicReader],
        replace: Callable[[], Awaitable[None]],
        longest_rebalance: float,
    ) -> None:
        self.restarts = 0
        self._topic = topic
        self._watch = watch
        self._progress = progress
        self._activity = activity
        self._make_probe = make_probe
        self._replace = replace
        self._longest_rebalance = longest_rebalance
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start checking."""
        self._task = asyncio.create_task(self._run(), name="waypost-watchdog")

    async def stop(self) -> None:
        """Stop checking, in the middle of a replacement too."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def check(self) -> None:
        """Raise what ended the watchdog: an error of ``replace`` or of ``on_restart``."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def trouble(self) -> str | None:
        """Return what is wrong with the consumer; None if nothing is or if Kafka itself does not answer."""
        asking_for, waited = self._activity()
        if waited is not None:
            if waited > self._longest_rebalance + self._watch.patience and await self._ends(()) is not None:
                return f"it has waited {waited:.0f} s for its partitions"
            return None
        hungry = self._progress.hungry(asking_for)
        ends = await self._ends(hungry) if hungry else None
        behind = {} if ends is None else self._progress.stuck(ends)
        if not behind:
            return None
        listed = ", ".join(f"{p.partition} ({lag})" for p, lag in sorted(behind.items()))
        self._progress.restarted(behind)
        return f"partitions whose logs grow returned nothing; partition (records waiting): {listed}"

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._progress.patience / 4)
            try:
                why = await self.trouble()
            except Exception as error:
                log.info("the watchdog could not check: %r", error)
                continue
            if why is not None:
                await self._restart(why)

    async def _restart(self, why: str) -> None:
        self.restarts += 1
        told = f"the Kafka consumer of {self._topic} was stuck and is replaced: {why}"
        log.warning(told)
        if self._watch.on_restart is not None:
            self._watch.on_restart(told)
        await self._replace()

    async def _ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int] | None:
        """Return where the logs end, of all partitions if none is given; None if Kafka does not answer."""
        probe = self._make_probe()
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await probe.start()
                if not partitions:
                    numbers = await partitions_of(probe.connections, self._topic)
                    partitions = [TopicPartition(self._topic, number) for number in numbers]
                return await probe.end_offsets(partitions)
        except (KafkaError, TimeoutError) as error:
            log.debug("the ends of %s can't be read: %r", self._topic, error)
            return None
        finally:
            await probe.stop()
