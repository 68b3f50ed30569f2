"""What the simulation found in the owner, each as the smallest world that shows it."""

import asyncio
from typing import Any

import pytest
from tests.simulation.agents import sessions_of
from tests.simulation.database import Tables
from tests.simulation.loop import OUTSIDE, current_process
from tests.simulation.oracle import judge
from tests.simulation.small_worlds import CREATE, commands, quiet
from tests.simulation.verifying import verify
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import RefusedError


def test_a_session_without_live_checkpoints_keeps_its_counter_when_it_is_loaded_again() -> None:
    world = quiet(cache_items=1)
    cleared, other = sessions_of(0, 1, 2)
    for at, (session_id, kind) in enumerate(
        [(cleared, "checkpoint.create"), (cleared, "session.clear"), (other, "checkpoint.create")] * 2
    ):
        body = CREATE if kind.endswith("create") else b"{}"
        world.loop.call_at(at * 0.5, world.traffic.send, 0, session_id, f"waypost.{kind}", body)
    world.run()
    assert judge(world).problems == []
    assert f"{cleared}:2" in world.results[0].records[4].value.decode()


def test_a_command_that_comes_during_the_check_for_a_stuck_consumer_is_not_taken_for_withheld() -> None:
    world = quiet(duration=20.0)
    call = world.kafka.call

    async def call_with_a_command_before_it(what: str, *effects: Any) -> Any:
        if what.startswith("bounds of commands") and world.loop.time() > 1 and not world.healed:
            world.traffic.send(0, sessions_of(0, 1, 1)[0], EventType.CREATE, CREATE)
        return await call(what, *effects)

    world.kafka.call = call_with_a_command_before_it  # type: ignore[method-assign, assignment]
    world.run()
    assert judge(world).problems == []
    assert world.traffic.published >= 3
    assert world.fleet.ends == {}


def test_an_owner_that_wakes_up_with_another_producer_id_doubles_nothing() -> None:
    world = quiet(epochs=1, duration=30.0, processes=2)
    put = world.databases[0].put

    def put_and_freeze(partition: int, tables: Tables) -> None:
        put(partition, tables)
        owner, heir = world.fleet.hosts
        if tables.next_offset == 1 and tables.epoch == 1 and not owner.process.paused:
            # Between the commit of a batch and its emission; the proof of ownership holds for 6 s.
            owner.process.paused = True
            world.loop.call_later(0.5, world.fleet.own, heir, partition, context=OUTSIDE)
            world.loop.call_later(4.5, world.fleet.wake, owner, context=OUTSIDE)

    world.databases[0].put = put_and_freeze  # type: ignore[method-assign]
    commands(world, 1, 6)
    world.run()
    assert judge(world).problems == []


def test_a_producer_id_counts_only_once_the_former_one_was_waited_out() -> None:
    """The second owner dies while it waits for the first; the third gets the second's id, and must wait as well."""
    world = quiet(epochs=2, duration=40.0, processes=3)
    frozen: list[bool] = []
    put = world.databases[0].put

    def put_and_freeze(partition: int, tables: Tables) -> None:
        put(partition, tables)
        first, second, third = world.fleet.hosts
        if tables.next_offset == 1 and not frozen:
            frozen.append(True)
            first.process.paused = True
            world.loop.call_later(0.5, world.fleet.own, second, partition, context=OUTSIDE)
            world.loop.call_later(1.5, world.fleet.crash, second, context=OUTSIDE)
            world.loop.call_later(2.0, world.fleet.own, third, partition, context=OUTSIDE)
            world.loop.call_later(4.5, world.fleet.wake, first, context=OUTSIDE)

    world.databases[0].put = put_and_freeze  # type: ignore[method-assign]
    # Its second acquisition uses up the epochs of the first producer id.
    world.loop.call_at(0.5, lambda: world.fleet.disown(world.fleet.hosts[0], 0), context=OUTSIDE)
    world.loop.call_at(0.8, lambda: world.fleet.own(world.fleet.hosts[0], 0), context=OUTSIDE)
    commands(world, 1.5, 20)
    world.run()
    assert frozen
    assert judge(world).problems == []


def test_an_owner_that_wakes_up_after_postgres_forgot_its_producer_id_doubles_nothing() -> None:
    """Seed 705: a new producer id and a restore at once. What Postgres forgot, the fence records still say."""
    world = quiet(epochs=1, duration=40.0, processes=2)
    frozen: list[bool] = []
    put = world.databases[0].put

    def put_freeze_and_restore(partition: int, tables: Tables) -> None:
        put(partition, tables)
        owner, heir = world.fleet.hosts
        if tables.next_offset == 1 and not frozen:
            frozen.append(True)
            owner.process.paused = True
            world.loop.call_later(0.3, world.databases[0].fail_over, 1000, context=OUTSIDE)
            world.loop.call_later(0.5, world.fleet.own, heir, partition, context=OUTSIDE)
            world.loop.call_later(4.5, world.fleet.wake, owner, context=OUTSIDE)

    world.databases[0].put = put_freeze_and_restore  # type: ignore[method-assign]
    commands(world, 1, 8)
    world.run()
    assert frozen
    assert judge(world).problems == []


def test_a_restore_to_the_moment_of_a_frozen_owner_lets_it_double_nothing() -> None:
    """An heir with another producer id answered a command; then Postgres forgot the heir, and the owner wakes up.

    It can commit the command again, which proves its ownership, and no epoch keeps it from appending.
    """
    world = quiet(epochs=1, duration=40.0, processes=2)
    database = world.databases[0]

    def freeze() -> None:
        owner, heir = world.fleet.hosts
        owner.process.paused = True
        world.fleet.own(heir, 0)

    def restore_and_wake() -> None:
        owner, heir = world.fleet.hosts
        assert world.last_answered(0) == 0, "the heir did not get anywhere"
        world.fleet.crash(heir)
        while database.tables[0].epoch > 1:
            database.fail_over(1)
        world.fleet.wake(owner)

    world.loop.call_at(1, freeze, context=OUTSIDE)
    world.loop.call_at(20, restore_and_wake, context=OUTSIDE)
    commands(world, 2)
    world.run()
    assert world.fleet.ends == {"ForeignWriterError": 1}
    assert judge(world).problems == []


def test_of_two_owners_with_one_epoch_only_the_one_whose_producer_is_recorded_commits() -> None:
    """Postgres lost what the owner recorded. What it commits now would hide its producer id from the next owner."""
    world = quiet(duration=15.0)
    world.loop.call_at(1, world.databases[0].fail_over, 2)  # the recorded producer, and the position
    commands(world, 2)
    world.run()
    assert world.fleet.ends == {"FencedError": 1}
    assert judge(world).problems == []


def test_an_end_from_a_former_leader_is_not_taken_for_that_of_the_results_topic() -> None:
    """The heir waits for an owner of another producer id, and then asks a broker that leads no more what there is."""
    world = quiet(epochs=1, duration=40.0, processes=2)
    frozen: list[bool] = []
    put = world.databases[0].put

    def put_and_freeze(partition: int, tables: Tables) -> None:
        put(partition, tables)
        owner, heir = world.fleet.hosts
        if tables.next_offset == 1 and not frozen:
            frozen.append(True)
            owner.process.paused = True
            world.loop.call_later(0.5, world.fleet.own, heir, partition, context=OUTSIDE)
            world.loop.call_later(2.0, world.results[0].lag, heir.process, context=OUTSIDE)
            world.loop.call_later(4.5, world.fleet.wake, owner, context=OUTSIDE)
            world.loop.call_later(4.7, world.fleet.crash, owner, context=OUTSIDE)  # after its append
            world.loop.call_later(20.0, world.results[0].catch_up, heir.process, context=OUTSIDE)

    world.databases[0].put = put_and_freeze  # type: ignore[method-assign]
    commands(world, 1, 6)
    world.run()
    assert frozen
    assert judge(world).problems == []


def freeze_at(world: World, request: str, seconds: float) -> list[str]:
    """Freeze the first process just before such a request of its; the second one takes over meanwhile."""
    call = world.databases[0].server.call
    frozen: list[str] = []

    async def call_after_a_freeze(what: str, *effects: Any) -> Any:
        owner, heir = world.fleet.hosts
        if what.startswith(request) and current_process() is owner.process and not frozen:
            frozen.append(what)
            owner.process.paused = True
            world.loop.call_later(0.5, world.fleet.own, heir, 0, context=OUTSIDE)
            world.loop.call_later(seconds, world.fleet.wake, owner, context=OUTSIDE)
            await asyncio.sleep(0)
        return await call(what, *effects)

    world.databases[0].server.call = call_after_a_freeze  # type: ignore[method-assign, assignment]
    return frozen


def test_an_owner_that_misses_a_checkpoint_which_its_heir_dropped_is_fenced() -> None:
    world = quiet(processes=2, duration=15.0)
    session_id = sessions_of(0, 1, 1)[0]
    frozen = freeze_at(world, "p0 contents", seconds=4)
    commands(world, 1)
    target = b'{"checkpoint_id":"%b:1"}' % session_id.encode()
    world.loop.call_at(2, world.traffic.send, 0, session_id, EventType.ROLLBACK, target)
    world.loop.call_at(2.5, world.traffic.send, 0, session_id, EventType.DELETE, target)
    world.run()
    assert frozen
    assert set(world.fleet.ends) == {"FencedError"}
    assert judge(world).problems == []


def test_what_an_heir_did_and_postgres_lost_is_not_taken_over_by_the_former_owner() -> None:
    world = quiet(processes=2, duration=15.0)
    frozen = freeze_at(world, "p0 load", seconds=4)
    lost: list[str] = []
    call = world.databases[0].server.call

    async def call_and_fail_over(what: str, *effects: Any) -> Any:
        answer = await call(what, *effects)
        owner, heir = world.fleet.hosts
        if frozen and not lost and current_process() is owner.process:
            lost.append(what)
            assert world.databases[0].tables[0].next_offset == 2, "the heir did not get anywhere"
            while world.databases[0].tables[0].epoch > 1:
                world.databases[0].fail_over(1)
            heir.process.paused = True
            world.loop.call_later(3, world.fleet.wake, heir, context=OUTSIDE)
        return answer

    world.databases[0].server.call = call_and_fail_over  # type: ignore[method-assign, assignment]
    commands(world, 1, 1.5)
    world.run()
    assert lost
    assert judge(world).problems == []


def test_a_result_that_is_missing_in_the_middle_is_refused_when_the_log_is_replayed() -> None:
    world = quiet(duration=15.0, disaster="cut_results")
    world.refusable = {0}
    commands(world, 1, 1.5, 2)

    def remove_a_result_and_lose_the_database() -> None:
        (missing,) = [record for record in world.results[0].records if b'"offset":1}' in record.value]
        world.results[0].records.remove(missing)
        world.databases[0].fail_over(1000)

    world.loop.call_at(3, remove_a_result_and_lose_the_database)
    commands(world, 3.5)
    world.run()
    assert "or there is none" in world.refusals[0]


def test_a_result_that_went_missing_before_later_ones_were_emitted_is_refused() -> None:
    """Seed 5623: the owner notices that results land too early, and then the last one in the topic is right.

    Half a batch is gone, so the broker still knows the last sequence number of the owner.
    """
    world = quiet(duration=15.0, disaster="cut_results")
    world.refusable = {0}
    commands(world, 1, 2, 2, 2.2)
    call, results = world.kafka.call, world.results[0]
    lost: list[bool] = []

    async def call_and_lose(what: str, *effects: Any) -> Any:
        answer = await call(what, *effects)
        if what.startswith("append") and not lost and b'"offset":2}' in results.records[-1].value:
            lost.append(True)
            await asyncio.sleep(0.5)  # so the next batch is committed before this result is known to be there
            results.cut(results.end - 1)
        return answer

    world.kafka.call = call_and_lose  # type: ignore[method-assign, assignment]
    world.run()
    assert "but no longer the one at offset 2: the topic was truncated" in world.refusals[0]
    assert judge(world).problems == []


def test_an_answered_command_whose_place_in_the_log_is_empty_is_refused() -> None:
    """Seed 8400: the log was recreated, and an aborted record took the offset of the only answered command."""
    world = quiet(duration=60.0, disaster="recreate_commands")  # until the renewal
    world.refusable = {0}
    commands(world, 1)

    def recreate_and_lose_the_database() -> None:
        world.commands[0].cut(0)
        world.commands[0].gap()
        world.databases[0].fail_over(1000)

    world.loop.call_at(2, recreate_and_lose_the_database)
    world.run()
    assert "up to offset 0, but the command topic, which ends at 1, has none there" in world.refusals[0]


def test_a_results_position_is_not_saved_over_that_of_commits_that_were_lost() -> None:
    """Seed 4835: Postgres lost commits, and the owner that had made them said goodbye.

    The next one has all results still to be compared. With the former one's position stored, a result that the topic
    had lost would not be missed.
    """
    world = quiet(processes=2, duration=20.0, disaster="lose_a_result_and_restore")
    world.refusable = {0}
    commands(world, 0.5, 1, 1.5)

    def lose_a_result_and_the_database() -> None:
        (lost,) = [record for record in world.results[0].records if b'"offset":0}' in record.value]
        world.results[0].records.remove(lost)
        assert world.databases[0].tables[0].next_offset == 3
        world.databases[0].fail_over(3)  # and not what the owner recorded of itself
        assert world.databases[0].tables[0].next_offset == 0
        world.loop.call_later(1, world.fleet.disown, world.fleet.hosts[0], 0)

    world.loop.call_at(3, lose_a_result_and_the_database)
    world.loop.call_at(5, lambda: world.fleet.own(world.fleet.hosts[1], 0))
    world.run()
    assert "or there is none" in world.refusals[0]


def test_an_owner_whose_fence_was_removed_from_the_topic_writes_another() -> None:
    """A broker that starts again knows no epochs but those of what is in the log."""
    world = quiet(duration=15.0)
    results = world.results[0]
    commands(world, 1)
    found: list[bytes] = []
    world.loop.call_at(3, lambda: results.trim(results.end))
    world.loop.call_at(
        10, lambda: found.extend(dict(record.headers)["ce_type"] for record in results.records)
    )
    commands(world, 11)
    world.run()
    assert found == [EventType.ACQUIRED.wire]
    assert world.fleet.ends == {}
    assert judge(world).problems == []


def test_a_database_that_lost_everything_while_it_was_verified_does_not_differ() -> None:
    """Seed 2777: the log was folded up to where Postgres stood, and then there was no partition at all."""
    world = quiet(duration=10.0)
    commands(world, 1, 1.5)
    looks: list[Tables | None] = []
    said: list[str] = []

    def tables() -> Tables | None:
        looks.append(None if looks else world.databases[0].tables[0])
        return looks[-1]

    async def look() -> None:
        with pytest.raises(RefusedError) as refused:
            await verify(world, 0, 10**9, tables, None)
        said.append(str(refused.value))

    world.loop.call_at(5, lambda: world.loop.create_task(look(), context=OUTSIDE.copy()), context=OUTSIDE)
    world.run()
    assert len(looks) == 2
    (reason,) = said
    assert (
        "went back from offset 1 to 0 during verification; it may have been restored. Nothing was compared"
        in reason
    )
