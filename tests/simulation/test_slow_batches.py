"""A database that can't finish large batches in time: they become smaller, few terms are lost, and nothing else is."""

from typing import Any

import pytest
from tests.simulation.database import SimulatedStore
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.test_failing_commands import Told, quiet, send

from waypost_worker.partition.failure import SlowBatchError, SlowCommandError
from waypost_worker.partition.ports import Commit, TimedOutError


@pytest.mark.parametrize("fitting", [1, 2, 7, 64, 999])
@pytest.mark.parametrize("takes_effect", [False, True])
def test_a_backlog_is_processed_and_every_command_is_answered_once(
    monkeypatch: pytest.MonkeyPatch, fitting: int, takes_effect: bool
) -> None:
    """Whether what took too long took effect is unknown, so both happen here."""
    world = quiet(duration=120.0)
    told = Told(world)
    commit = SimulatedStore.commit

    async def slow_commit(store: Any, one: Commit) -> None:
        slow = one.next_offset - one.expected_offset > fitting
        if takes_effect or not slow:
            await commit(store, one)
        if slow:
            raise TimedOutError("too much at once", "statement_timeout")

    monkeypatch.setattr(SimulatedStore, "commit", slow_commit)
    world.loop.call_at(1, lambda: send(world, 0, 1000), context=OUTSIDE)
    world.run()
    assert judge(world).problems == []
    assert world.last_answered(0) == 999
    slow = told.of(SlowBatchError)
    assert slow
    assert len(slow) < 30, "each costs a producer epoch"
    assert not told.of(SlowCommandError)


def test_a_command_that_is_too_slow_alone_is_named_and_applied_once_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = quiet(duration=60.0)
    told = Told(world)
    told.are_expected()
    commit = SimulatedStore.commit
    seen: dict[str, Any] = {}

    async def slow_commit(store: Any, one: Commit) -> None:
        if "healed" not in seen and store._partition == 0 and one.expected_offset <= 40 < one.next_offset:
            raise TimedOutError("too much at once", "statement_timeout")
        await commit(store, one)

    def look() -> None:
        seen["refused"] = world.fleet.refused(0)
        seen["answered"] = world.last_answered(0)
        seen["other"] = world.last_answered(1)
        seen["healed"] = True

    monkeypatch.setattr(SimulatedStore, "commit", slow_commit)
    world.loop.call_at(1, lambda: (send(world, 0, 64), send(world, 1, 64)), context=OUTSIDE)
    world.loop.call_at(20, look, context=OUTSIDE)
    world.run()
    assert "offset 40 of partition 0" in seen["refused"]
    assert (seen["answered"], seen["other"]) == (39, 63)
    assert {why.offset for why in told.of(SlowCommandError)} == {40}
    assert judge(world).problems == []
    assert world.last_answered(0) == 63
