"""When a consumer counts as stuck: asked for long, behind at two looks in the same place. It is then replaced."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from waypost.subscriber.watchdog import Activity, FetchProgress, Watch, Watchdog

PARTITION = TopicPartition("results", 0)
READING = Activity(asking_for=0.0, without_partitions=None)


def reading(**positions: int) -> FetchProgress[str]:
    progress: FetchProgress[str] = FetchProgress(10)
    progress.begin(positions)
    return progress


def test_only_time_spent_asking_makes_a_partition_hungry() -> None:
    progress = reading(a=5, b=7)
    progress.asked(6, {"b"})
    assert progress.hungry() == []
    assert progress.hungry(asking_for=4) == ["a"]
    progress.asked(6, {"b"})
    assert progress.hungry() == ["a"]


def test_what_stands_behind_at_the_second_look_is_stuck() -> None:
    progress = reading(a=5, b=7)
    assert progress.stuck({"a": 8, "b": 7}) == {}
    assert progress.stuck({"a": 9, "b": 7}) == {"a": 4}


def test_a_record_that_came_between_two_looks_clears_it() -> None:
    progress = reading(a=5)
    progress.asked(11, ())
    assert progress.stuck({"a": 8}) == {}
    progress.came("a", 6)
    assert progress.hungry() == []
    assert progress.stuck({"a": 8}) == {}
    assert progress.stuck({"a": 8}) == {"a": 2}


def test_a_partition_at_the_end_of_its_log_is_not_hungry() -> None:
    progress = reading(a=5)
    progress.asked(11, ())
    assert progress.hungry() == ["a"]
    assert progress.stuck({"a": 5}) == {}
    assert progress.hungry() == []


def test_a_partition_that_went_away_is_forgotten() -> None:
    progress = reading(a=5, b=5)
    progress.stuck({"a": 8})
    progress.begin({"b": 5})
    assert progress.stuck({"a": 8}) == {}
    assert progress.stuck({"b": 8}) == {}
    assert progress.stuck({"b": 8}) == {"b": 3}


def test_offsets_that_were_passed_over_are_not_waited_for() -> None:
    progress = reading(a=5)
    progress.passed("a", 8)
    progress.came("a", 6)  # the records before them, which are handed out later
    for _ in range(2):
        assert progress.stuck({"a": 8}) == {}
    progress.stuck({"a": 9})
    assert progress.stuck({"a": 9}) == {"a": 3}
    progress.begin({"a": 5})
    progress.stuck({"a": 8})
    assert progress.stuck({"a": 8}) == {"a": 3}


def test_restarts_that_do_not_help_become_rare() -> None:
    progress = reading(a=5)
    patiences = []
    for _ in range(9):
        progress.restarted(["a"])
        progress.begin({"a": 5})
        patiences.append(progress.patience)
    assert patiences == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    progress.came("a", 6)
    assert progress.patience == 10


class Probe:
    """A reader, as far as the watchdog asks it."""

    def __init__(self, end: int, error: Exception | None = None) -> None:
        self.end = end
        self.error = error
        self.stopped = 0
        cluster = SimpleNamespace(partitions_for_topic=lambda _: {0})
        self.connections = SimpleNamespace(cluster=cluster, add_topic=self.nothing)

    async def nothing(self, *_: Any) -> None:
        return

    async def start(self) -> None:
        if self.error is not None:
            raise self.error

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    async def stop(self) -> None:
        self.stopped += 1


class Guarded:
    """A watchdog over a partition that is read up to offset 5 and whose log ends where the probe says."""

    def __init__(self, probe: Probe, patience: float = 10.0) -> None:
        self.activity = READING
        self.told: list[str] = []
        self.replaced = 0
        self.on_replace: Callable[[], None] = lambda: None
        self.progress: FetchProgress[TopicPartition] = FetchProgress(patience)
        self.progress.begin({PARTITION: 5})
        self.watchdog = Watchdog(
            "results",
            Watch(patience, self.told.append),
            self.progress,
            lambda: self.activity,
            make_probe=lambda: probe,  # type: ignore[arg-type, return-value]
            replace=self.replace,
            longest_rebalance=60,
        )

    async def replace(self) -> None:
        self.replaced += 1
        self.on_replace()


async def test_a_consumer_that_gives_nothing_is_in_trouble_at_the_second_look() -> None:
    probe = Probe(end=8)
    guarded = Guarded(probe)
    assert await guarded.watchdog.trouble() is None
    assert probe.stopped == 0  # it was not hungry, so nobody asked
    guarded.activity = READING._replace(asking_for=10.0)
    assert await guarded.watchdog.trouble() is None
    why = await guarded.watchdog.trouble()
    assert why == "partitions whose logs grow returned nothing; partition (records waiting): 0 (3)"
    assert probe.stopped == 2


@pytest.mark.parametrize("error", [KafkaConnectionError("gone"), TimeoutError()])
async def test_a_consumer_is_not_blamed_for_a_cluster_that_does_not_answer(error: Exception) -> None:
    probe = Probe(end=8, error=error)
    guarded = Guarded(probe)
    for activity in (Activity(100.0, None), Activity(100.0, 1000.0)):
        guarded.activity = activity
        assert [await guarded.watchdog.trouble() for _ in range(3)] == [None] * 3
    assert probe.stopped == 6


async def test_waiting_for_partitions_is_trouble_after_the_longest_rebalance() -> None:
    guarded = Guarded(Probe(end=8))
    guarded.activity = Activity(0.0, without_partitions=70.0)
    assert await guarded.watchdog.trouble() is None
    guarded.activity = Activity(0.0, without_partitions=70.5)
    assert await guarded.watchdog.trouble() == "it has waited 70 s for its partitions"


async def test_a_stuck_consumer_is_reported_and_replaced() -> None:
    guarded = Guarded(Probe(end=8), patience=0.004)
    replaced = asyncio.Event()
    guarded.on_replace = replaced.set
    guarded.activity = READING._replace(asking_for=1.0)
    guarded.watchdog.start()
    async with asyncio.timeout(10):
        await replaced.wait()
    guarded.watchdog.check()
    await guarded.watchdog.stop()
    assert guarded.watchdog.restarts == guarded.replaced == len(guarded.told) == 1
    assert guarded.told[0].startswith(
        "the Kafka consumer of results was stuck and is replaced: partitions whose logs grow returned nothing"
    )


async def test_an_error_of_a_replacement_ends_the_watchdog_and_is_raised_to_the_reader() -> None:
    guarded = Guarded(Probe(end=8), patience=0.004)
    raised = asyncio.Event()

    def fail() -> None:
        raised.set()
        raise LookupError("no consumer")

    guarded.on_replace = fail
    guarded.activity = READING._replace(asking_for=1.0)
    guarded.watchdog.check()  # nothing to raise before the start
    guarded.watchdog.start()
    async with asyncio.timeout(10):
        await raised.wait()
        await guarded.watchdog.stop()
    with pytest.raises(LookupError, match="no consumer"):
        guarded.watchdog.check()
