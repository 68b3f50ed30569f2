"""The probes' answers, and observers that fail."""

import asyncio
import logging

import pytest
import structlog
from tests.support.logging_state import logs_as_before
from tests.unit.test_metrics import CREATE, acquired, batch, command

from waypost.wire.event_types import EventType
from waypost_worker.partition.failure import (
    FailingCommandError,
    RefusedCommandError,
    SlowBatchError,
    SlowCommandError,
    Suspects,
    UnexpectedError,
)
from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.ports import RefusedError, TimedOutError, UnavailableError
from waypost_worker.telemetry.health import HEARTBEAT_SECONDS, Health, heartbeat
from waypost_worker.telemetry.logs import configure_logs
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.observers import Observers

PATIENCE = 120.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(PATIENCE, clock)


def told() -> AppliedBatch:
    return batch(command(0, EventType.CREATE, CREATE))


async def answers() -> None:
    """A store that is well."""


def test_a_worker_has_started_once_it_is_connected(health: Health) -> None:
    assert not health.started().ok
    health.stage = "running"
    assert health.started().ok
    health.stage = "draining"
    assert health.started().ok


def test_a_silent_event_loop_is_dead(health: Health, clock: Clock) -> None:
    clock.now += HEARTBEAT_SECONDS - 1
    assert health.live().ok
    clock.now += 2
    assert health.live().checks["heartbeat"] == "silent for 11 s"
    health.beat()
    assert health.live().ok


def test_a_partition_that_makes_no_progress_despite_lag_is_dead(health: Health, clock: Clock) -> None:
    health.applied(4, told())
    health.lag(4, 17, 100)
    clock.now += PATIENCE + 1
    health.beat()
    assert health.live().checks["progress"] == "partition 4: 17 commands wait, none applied for 121 s"
    health.applied(4, told())
    assert health.live().ok


def test_no_progress_is_fine_without_lag_or_while_a_server_is_unreachable(
    health: Health, clock: Clock
) -> None:
    health.applied(1, told())
    health.applied(2, told())
    health.lag(1, 0, 5)
    health.lag(2, 99, 7)
    health.ended(2, UnavailableError("Postgres is away"), 5)
    clock.now += 10 * PATIENCE
    health.beat()
    assert health.live().ok


def test_reading_on_is_progress_even_if_there_is_nothing_to_apply(health: Health, clock: Clock) -> None:
    """Behind a long aborted transaction, for example."""
    health.acquired(4, acquired(), 0.1)
    for position in range(0, 5000, 1000):
        health.lag(4, 9000 - position, position)
        clock.now += PATIENCE - 1
        health.beat()
        assert health.live().ok
    health.lag(4, 5000, 4000)
    clock.now += 2
    health.beat()
    assert not health.live().ok


async def ready(health: Health, *partitions: int) -> str:
    health.stage, health.check_store = "running", answers
    health.assignment(frozenset(partitions), rebalancing=False)
    report = await health.ready()
    assert report.ok == (report.checks["partitions"] == "ok")
    return report.checks["partitions"]


async def test_a_partition_whose_owner_fails_is_not_ready_until_it_makes_progress(health: Health) -> None:
    bug = UnexpectedError(TypeError("secret text"), Suspects(7, 7, 9, 3))
    for _ in range(3):
        health.acquired(1, acquired(), 0.1)
        health.ended(1, bug, 5)
        assert await ready(health, 1) == (
            "partition 1: unexpected error: TypeError at an unknown place, "
            "with the commands from offset 7 to 9 in progress"
        )
        health.acquired(1, acquired(), 0.1)
        assert "TypeError" in await ready(health, 1), "acquiring alone is no sign of health"
        health.lag(1, 5, 7)
        assert "TypeError" in await ready(health, 1)
    health.applied(1, told())
    assert await ready(health, 1) == "ok"


@pytest.mark.parametrize("end", ["nothing left", "released"])
async def test_a_failed_owner_that_has_nothing_left_to_do_is_well(health: Health, end: str) -> None:
    health.ended(1, UnexpectedError(TypeError()), 5)
    health.lag(1, 0, 7)
    assert "TypeError" in await ready(health, 1), "nobody has acquired it"
    if end == "released":
        health.ended(1, None, 0)
    health.acquired(1, acquired(), 0.1)
    health.lag(1, 0, 7)
    assert await ready(health, 1) == "ok"


SLOW = SlowBatchError(TimedOutError("Postgres: canceled", "statement_timeout"), Suspects(7, 7, 8, 2))


@pytest.mark.parametrize(
    "refusal",
    [
        FailingCommandError(1, 4711, 9, UnexpectedError(TypeError("secret text"))),
        SlowCommandError(1, 4711, 3, SLOW),
    ],
)
async def test_a_partition_that_is_refused_at_a_command_names_it_even_while_it_is_tried_again(
    health: Health, refusal: RefusedCommandError
) -> None:
    health.ended(1, refusal, 30)
    health.acquired(2, acquired(), 0.1)
    health.acquired(1, acquired(), 0.1)
    said = await ready(health, 1, 2)
    assert said.startswith("partition 1: refused: The command at offset 4711 of partition 1 ")
    assert "secret text" not in said
    health.ended(1, UnavailableError("Postgres is away"), 5)
    assert await ready(health, 1, 2) == "partition 1: unavailable: Postgres is away"
    health.acquired(1, acquired(), 0.1)
    assert "4711" in await ready(health, 1, 2)
    health.applied(1, told())
    assert await ready(health, 1, 2) == "ok"


async def test_a_batch_that_is_too_slow_is_reported_like_an_unreachable_server(health: Health) -> None:
    health.ended(1, SLOW, 1)
    said = await ready(health, 1)
    assert said.startswith("partition 1: unavailable: Postgres: canceled. The batch had 2 commands")
    assert said.endswith("the limit is statement_timeout")
    health.acquired(1, acquired(), 0.1)
    assert await ready(health, 1) == "ok"


async def test_an_open_transaction_is_reported_and_makes_nobody_unready(health: Health) -> None:
    health.acquired(1, acquired(), 0.1)
    health.open_transaction(1, 9, 40, 3)
    await ready(health, 1)
    assert (await health.ready()).notes == {}
    health.open_transaction(1, 35, 40, 17)
    report = await health.ready()
    assert report.ok
    assert report.notes == {
        "transactions": "partition 1: a client's transaction is open at offset 40 for 35 s, and 17 records from there "
        "on wait for its end"
    }
    health.open_transaction(1, 0, 40, 0)
    assert (await health.ready()).notes == {}
    health.open_transaction(1, 35, 40, 17)
    health.assignment(frozenset(), rebalancing=False)
    assert (await health.ready()).notes == {}


async def test_ready_means_that_the_store_answers_and_every_assigned_partition_is_owned(
    health: Health,
) -> None:
    assert (await health.ready()).checks == {"worker": "starting"}
    health.stage = "running"
    health.check_store = answers
    assert (await health.ready()).checks["partitions"] == "waiting for the group's assignment"
    health.assignment(frozenset({0, 1}), rebalancing=False)
    health.applied(0, told())
    assert (await health.ready()).checks["partitions"] == "partition 1: being acquired"
    health.ended(1, RefusedError("the topic was cut"), 30)
    assert (await health.ready()).checks["partitions"] == "partition 1: refused: the topic was cut"
    health.applied(1, told())
    assert (await health.ready()).ok
    health.stage = "draining"
    assert not (await health.ready()).ok


async def test_a_worker_without_partitions_is_ready(health: Health) -> None:
    health.stage, health.check_store = "running", answers
    health.assignment(frozenset(), rebalancing=False)
    assert (await health.ready()).ok


async def test_a_store_that_fails_makes_a_worker_unready(health: Health) -> None:
    async def fails() -> None:
        raise OSError("no route")

    health.stage, health.check_store = "running", fails
    health.assignment(frozenset(), rebalancing=False)
    assert (await health.ready()).checks["postgres"] == "OSError: no route"


async def test_the_heartbeat_shows_how_long_the_loop_was_blocked() -> None:
    delays: list[float] = []
    told = asyncio.Event()

    def beat(delay: float) -> None:
        delays.append(delay)
        told.set()

    task = asyncio.create_task(heartbeat(beat))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.2, lambda: _block(0.2))
    await asyncio.wait_for(told.wait(), 10)
    task.cancel()
    assert delays[0] > 0.1


def _block(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        pass


def test_an_observer_that_fails_is_left_out_and_the_others_are_notified() -> None:
    class Failing(Metrics):
        calls = 0

        def applied(self, partition: int, batch: AppliedBatch) -> None:
            type(self).calls += 1
            raise RuntimeError("no disk")

    health = Health(PATIENCE)
    both = Observers(Failing(), health)
    with structlog.testing.capture_logs() as logs:
        both.applied(7, told())
        both.applied(7, told())
    assert Failing.calls == 1
    assert [line["event"] for line in logs] == ["observer_failed"]
    health.stage, health.check_store = "running", answers
    health.assignment(frozenset({7}), rebalancing=False)
    assert asyncio.run(health.ready()).ok


def test_the_log_level_can_change_while_the_process_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_as_before():
        level = configure_logs("warning", "json")
        log = structlog.get_logger("test")
        log.info("one")
        level.set("debug")
        log.debug("two")
        logging.getLogger("library").debug("three")
        level.set(level.configured)
        log.info("four")
        log.warning("five")
        said = capsys.readouterr().err
        seen = [word for word in ("one", "two", "three", "four", "five") if f'"{word}"' in said]
        assert seen == ["two", "three", "five"]
