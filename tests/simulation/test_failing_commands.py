"""Commands at which the worker has a bug: the partition stops there and says so, everything else goes on, and nothing
is lost once the bug is fixed.
"""

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from tests.simulation.agents import sessions_of
from tests.simulation.broker import CommandRecord, ResultsPartition
from tests.simulation.clients import Machine, SimulatedClock, SimulatedCommandLog, SimulatedResultsLog
from tests.simulation.database import Database, SimulatedStore
from tests.simulation.fleet import LIMITS
from tests.simulation.loop import OUTSIDE, Process
from tests.simulation.network import Server
from tests.simulation.oracle import judge
from tests.simulation.plan import WorldPlan
from tests.simulation.poison import PoisonError, PoisonMemoryError, PoisonRecursionError
from tests.simulation.world import World

from waypost.model.index import Session
from waypost_worker.partition import batching
from waypost_worker.partition.failure import FailingCommandError, UnexpectedError
from waypost_worker.partition.ports import OwnerError, Ports, RefusedError, UnavailableError
from waypost_worker.recovery.replay.reemit import ReemittingReplay

CREATE = b'{"name":"n","data":{}}'


class Told:
    """What owners said, besides what the world counts."""

    def __init__(self, world: World) -> None:
        self.ends: list[tuple[float, OwnerError | None]] = []
        self._world = world
        judge_end = world.poison.judge

        def judged(partition: int, why: OwnerError | None, died: Callable[[str], None]) -> None:
            self.ends.append((world.loop.time(), why))
            judge_end(partition, why, died)

        world.poison.judge = judged  # type: ignore[method-assign]

    def are_expected(self) -> None:
        """These errors are the test's own, and no bug of the worker."""
        self._world.poison.judge = lambda partition, why, died: self.ends.append(  # type: ignore[method-assign]
            (self._world.loop.time(), why)
        )

    def of(self, kind: type[OwnerError]) -> list[Any]:
        return [why for _, why in self.ends if isinstance(why, kind)]


def quiet(**changes: object) -> World:
    """One process, two partitions, no agents and no faults."""
    plan = WorldPlan(seed=1, processes=1, partitions=2, commands=0, duration=30.0, batch_records=1000)
    for name, value in changes.items():
        setattr(plan, name, value)
    return World(plan)


def send(world: World, partition: int, count: int) -> list[int]:
    session_id = sessions_of(partition, 2, 1)[0]
    kind = "waypost.checkpoint.create"
    return [world.traffic.send(partition, session_id, kind, CREATE) for _ in range(count)]


def poison(world: World, partition: int, offset: int) -> CommandRecord:
    record = next(record for record in world.commands[partition].records if record.offset == offset)
    world.poison.put(partition, record)
    return record


@pytest.mark.parametrize("size", [1, 2, 3, 100, 999])
@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_the_command_is_named_those_before_it_are_answered_and_other_partitions_continue(
    size: int, at: str
) -> None:
    world = quiet()
    told = Told(world)
    bad = {"first": 0, "middle": size // 2, "last": size - 1}[at]
    seen: dict[str, Any] = {}

    def begin() -> None:
        send(world, 0, size)
        send(world, 1, size)
        poison(world, 0, bad)

    def look() -> None:
        seen["refused"] = world.fleet.refused(0)
        seen["answered"] = world.last_answered(0)
        seen["other"] = world.last_answered(1)
        send(world, 1, 5)
        send(world, 0, 5)

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.loop.call_at(20, look, context=OUTSIDE)
    world.run()
    assert f"offset {bad} of partition 0" in seen["refused"]
    assert seen["answered"] == bad - 1
    assert seen["other"] == size - 1
    assert {why.offset for why in told.of(FailingCommandError)} == {bad}
    # The bug is gone when the world heals: what waited is applied and answered, each once.
    assert judge(world).problems == []
    assert world.last_answered(0) == size + 4


def test_the_search_takes_three_terms_and_then_one_for_each_halving() -> None:
    world = quiet()
    told = Told(world)

    def begin() -> None:
        send(world, 0, 1000)
        poison(world, 0, 777)

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.run()
    times = [when for when, why in told.ends if isinstance(why, UnexpectedError)]
    assert 3 <= len(times) <= 3 + 10
    first = next(when for when, why in told.ends if isinstance(why, FailingCommandError))
    assert first - times[0] < 5


def test_a_partition_that_is_refused_at_a_command_is_tried_again_less_and_less_often() -> None:
    """Each try takes a producer epoch, of which there are 32,767."""
    world = quiet(duration=400.0)
    told = Told(world)

    def begin() -> None:
        send(world, 0, 1)
        poison(world, 0, 0)

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.run()
    times = [when for when, why in told.ends if isinstance(why, FailingCommandError)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] < 3
    assert max(gaps) == pytest.approx(40, abs=1)  # 20 times refused_wait
    assert len(times) < 20


def test_errors_of_servers_in_between_neither_count_nor_end_the_search() -> None:
    world = quiet(duration=60.0)
    told = Told(world)

    def begin() -> None:
        send(world, 0, 64)
        poison(world, 0, 40)
        world.kafka.weather.refused = 0.05
        world.databases[0].server.weather.refused = 0.05

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.run()
    assert told.of(UnavailableError)
    assert {why.offset for why in told.of(FailingCommandError)} == {40}
    assert judge(world).problems == []


def test_a_server_that_fails_repeatedly_is_never_taken_for_a_bug() -> None:
    world = quiet(duration=60.0)
    told = Told(world)

    def begin() -> None:
        send(world, 0, 5)
        world.databases[0].server.down = True

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.run()
    assert len(told.of(UnavailableError)) > 5
    assert not told.of(UnexpectedError)
    assert not told.of(RefusedError)
    assert judge(world).problems == []


@pytest.mark.parametrize("kind", [PoisonMemoryError, PoisonRecursionError])
@pytest.mark.parametrize("step", ["decode", "decide"])
def test_want_of_memory_and_depth_count_as_well(step: str, kind: type[PoisonError]) -> None:
    world = quiet()
    told = Told(world)

    def begin() -> None:
        send(world, 0, 10)
        record = poison(world, 0, 6)
        world.poison._bad[id(record)] = (record, step, kind)

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.run()
    assert {type(why.__cause__) for why in told.of(UnexpectedError)} == {kind}
    assert {why.offset for why in told.of(FailingCommandError)} == {6}
    assert judge(world).problems == []


def test_several_bad_commands_are_named_one_at_a_time_as_each_is_fixed() -> None:
    world = quiet(duration=60.0)
    told = Told(world)
    records = {}

    def begin() -> None:
        send(world, 0, 100)
        for offset in (30, 31, 80):
            records[offset] = poison(world, 0, offset)

    def fix(offset: int) -> None:
        world.poison._bad.pop(id(records[offset]))

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.loop.call_at(15, fix, 30, context=OUTSIDE)
    world.loop.call_at(30, fix, 31, context=OUTSIDE)
    world.run()
    named = [why.offset for why in told.of(FailingCommandError)]
    assert sorted(set(named)) == [30, 31, 80]
    assert named == sorted(named)
    assert judge(world).problems == []


def test_a_new_owner_without_the_bug_continues() -> None:
    world = quiet(duration=30.0)

    def begin() -> None:
        send(world, 0, 20)
        poison(world, 0, 10)

    def upgrade() -> None:
        assert "offset 10" in (world.fleet.refused(0) or "")
        world.poison.fix()
        world.fleet.crash(world.fleet.hosts[0])
        new = world.fleet.boot(0)
        for partition in (0, 1):
            world.fleet.own(new, partition)

    seen: list[int] = []
    world.loop.call_at(1, begin, context=OUTSIDE)
    world.loop.call_at(10, upgrade, context=OUTSIDE)
    world.loop.call_at(15, lambda: seen.append(world.last_answered(0)), context=OUTSIDE)
    world.run()
    assert seen == [19]
    assert judge(world).problems == []


def test_batches_of_one_fetch_are_distinguished() -> None:
    """A fetch that is more than a batch may hold: only what is not applied yet is suspected."""
    world = quiet(batch_bytes=3000)
    told = Told(world)

    def begin() -> None:
        send(world, 0, 300)
        poison(world, 0, 250)

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.run()
    suspects = [why.suspects for why in told.of(UnexpectedError)]
    assert {one.first for one in suspects} == {one.position for one in suspects}
    assert suspects[0].first > 100
    assert suspects[0].last == 299
    assert {why.offset for why in told.of(FailingCommandError)} == {250}
    assert judge(world).problems == []


def test_a_bug_in_the_store_casts_no_suspicion_on_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    load = SimulatedStore.load
    world = quiet(duration=60.0)
    told = Told(world)

    async def broken(store: SimulatedStore, session_ids: Sequence[str]) -> dict[str, Session]:
        if not world.healed:
            raise PoisonError("of the store")
        return await load(store, session_ids)

    monkeypatch.setattr(SimulatedStore, "load", broken)
    world.loop.call_at(1, send, world, 0, 5, context=OUTSIDE)
    told.are_expected()
    world.run()
    failures = told.of(UnexpectedError)
    assert 5 < len(failures) < 20
    assert {why.suspects for why in failures} == {None}
    assert "tests.simulation.test_failing_commands" not in str(failures[0])
    assert "waypost_worker.partition" in str(failures[0])
    assert not told.of(FailingCommandError)
    assert judge(world).problems == []


@pytest.mark.parametrize(
    ("port", "name"),
    [
        *((SimulatedStore, name) for name in ("acquire", "record_claim", "commit", "save_position")),
        *((SimulatedResultsLog, name) for name in ("bounds", "claim", "append")),
        *((SimulatedCommandLog, name) for name in ("bounds", "fetch", "close")),
    ],
)
def test_a_bug_anywhere_ends_the_term_is_reported_and_the_owner_acquires_again(
    port: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = quiet(duration=30.0)
    told = Told(world)
    told.are_expected()
    method = getattr(port, name)
    raised: list[PoisonError] = []

    async def broken(self: Any, *arguments: Any) -> Any:
        if len(raised) < 3:
            if name == "close":  # or the world would miss it
                await method(self, *arguments)
            raised.append(PoisonError("of a port"))
            raise raised[-1]
        return await method(self, *arguments)

    monkeypatch.setattr(port, name, broken)
    world.loop.call_at(1, send, world, 0, 5, context=OUTSIDE)
    for second in (2, 4, 6):  # terms end, and what they held is closed
        world.loop.call_at(second, setattr, world.databases[0].server, "down", second != 6, context=OUTSIDE)
        world.loop.call_at(second, send, world, 0, 5, context=OUTSIDE)
    world.run()
    failures = told.of(UnexpectedError)
    assert [why.__cause__ for why in failures] == raised
    assert len(raised) == 3
    assert {why.suspects for why in failures} == {None}
    assert judge(world).problems == []


def test_a_wait_of_an_owner_may_be_canceled_and_the_owner_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = quiet(duration=30.0)
    told = Told(world)
    load = SimulatedStore.load
    canceled: list[bool] = []

    async def canceled_once(store: SimulatedStore, session_ids: Sequence[str]) -> dict[str, Session]:
        if not canceled:
            canceled.append(True)
            raise asyncio.CancelledError
        return await load(store, session_ids)

    monkeypatch.setattr(SimulatedStore, "load", canceled_once)
    told.are_expected()
    world.loop.call_at(1, send, world, 0, 5, context=OUTSIDE)
    world.run()
    (failure,) = told.of(UnexpectedError)
    assert str(failure).startswith("CancelledError at ")
    assert judge(world).problems == []


def test_an_owner_that_is_canceled_ends() -> None:
    world = quiet(duration=10.0)
    tasks: list[asyncio.Task[None]] = []
    ended: list[bool] = []

    def cancel() -> None:
        tasks.extend(running.task for running in world.fleet.hosts[0].owners.values())
        for task in tasks:
            task.cancel()

    world.loop.call_at(3, cancel, context=OUTSIDE)
    world.loop.call_at(4, lambda: ended.extend(task.cancelled() for task in tasks), context=OUTSIDE)
    world.run()
    assert ended == [True, True]
    assert not world.fleet.ends


def test_a_failed_batch_is_not_kept_in_memory_while_its_owner_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback holds all frames, and they hold the batch, which may be the very reason of a MemoryError."""
    world = quiet(duration=30.0)
    batches: list[weakref.ref[Any]] = []

    class Watched(batching.BatchSplitter):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            batches.append(weakref.ref(self))

    monkeypatch.setattr("waypost_worker.partition.term.BatchSplitter", Watched)
    alive: list[int] = []

    def begin() -> None:
        send(world, 0, 10)
        poison(world, 0, 0)

    world.loop.call_at(1, begin, context=OUTSIDE)
    world.loop.call_at(20, lambda: alive.append(sum(one() is not None for one in batches)), context=OUTSIDE)
    gc.disable()
    try:
        world.run()
    finally:
        gc.enable()
    assert len(batches) > 5
    assert alive == [0]


class Unseen:
    """The progress of a replay, which nobody looks at."""

    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        pass


@pytest.mark.parametrize("bug", ["of a command", "of the store"])
def test_a_replay_that_emits_ends_with_the_command_or_the_error(
    bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an owner, too. It must not try for ever where nobody looks."""
    world = quiet(duration=5.0)
    world.loop.call_at(1, send, world, 0, 20, context=OUTSIDE)
    world.run()
    database = Database(Server("rebuilt postgres", world.loop, Random(1), timeout=1.5))
    results = ResultsPartition(90.0, world.loop.time)
    ports = Ports(
        make_log=lambda: SimulatedCommandLog(world.kafka, world.topic, 0),
        make_results=lambda: SimulatedResultsLog(world.kafka, results, world.coordinator, "replay.0"),
        store=SimulatedStore(database, 0),
        clock=SimulatedClock(Machine(world.loop)),
    )
    if bug == "of the store":

        async def broken(store: SimulatedStore, session_ids: Sequence[str]) -> dict[str, Session]:
            raise PoisonError("of the store")

        monkeypatch.setattr(SimulatedStore, "load", broken)
    replay = ReemittingReplay(0, "sim.results", ports, 20, Unseen(), LIMITS)
    process = Process("replay")
    with world.poison.at_work():
        if bug == "of a command":
            poison(world, 0, 7)
        task = world.loop.start(process, replay.run())
        world.loop.run(task.done, world.loop.time() + 60)
    error = task.exception()
    if bug == "of the store":
        assert isinstance(error, PoisonError)
    else:
        assert isinstance(error, FailingCommandError)
        assert error.offset == 7
        assert database.tables[0].next_offset == 7
    world.loop.bury([process], [task])
