"""Logs whose start moves ahead of what is still needed, as when tiered storage deletes too early: nothing is lost
without a word, and what an operator accepts with accept_trimmed_results is exactly what the documentation says.
"""

from collections import Counter
from collections.abc import Callable

import pytest
from tests.simulation.database import Tables
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.removed_early import COMMANDS, RESULTS
from tests.simulation.replies import answered_command
from tests.simulation.small_worlds import commands, quiet
from tests.simulation.world import World


def answers(world: World) -> list[int]:
    """The commands that results of partition 0 answer, in the order of the topic, removed ones included."""
    topic = world.results[0]
    return [one for record in topic.trimmed + topic.records if (one := answered_command(record)) >= 0]


def remove_results(world: World, end: int | None = None) -> None:
    """Remove the results up to ``end``, or all, before they were compared with what is applied."""
    topic = world.results[0]
    before = topic.start
    topic.trim(topic.end if end is None else end)
    world.removed_early[0] = range(before, topic.start)


def restart(world: World, accepting: bool) -> None:
    """Kill the worker, and start another one."""
    world.fleet.crash(world.fleet.hosts[0])
    world.fleet.accepting = accepting
    world.fleet.own(world.fleet.boot(0), 0)


def at(world: World, second: float, *actions: object) -> None:
    def act() -> None:
        for action in actions:
            action(world)  # type: ignore[operator]

    world.loop.call_at(second, act, context=OUTSIDE)


@pytest.mark.parametrize("when", ["under a running owner", "while no worker runs"])
def test_commands_that_were_removed_before_they_were_applied_are_counted_and_stop_the_partition(
    when: str,
) -> None:
    world = quiet(duration=20.0, disaster=COMMANDS)
    world.refusable = {0}
    commands(world, 1, 1.5, *[5] * 4)

    def stop(world: World) -> None:
        world.fleet.crash(world.fleet.hosts[0])

    def remove(world: World) -> None:
        world.commands[0].trim(5)  # 2 to 4 were never read

    if when == "while no worker runs":
        at(world, 4, stop)
    at(world, 5, remove)
    if when == "while no worker runs":
        at(world, 6, lambda world: restart(world, False))
    commands(world, 8)
    world.run()
    assert (
        "the command topic starts at offset 5, but Postgres has applied only up to 1: retention removed 3 offsets "
        "before they were applied. Nothing was changed" in world.refusals[0]
    )
    assert world.databases[0].tables[0].next_offset == 2
    assert answers(world) == [0, 1]
    assert judge(world).problems == []


def test_commands_that_are_removed_up_to_the_position_are_missed_by_nobody() -> None:
    world = quiet(duration=10.0)
    commands(world, 1, 1.5)
    at(world, 3, lambda world: world.commands[0].trim(2), lambda world: restart(world, False))
    commands(world, 5)
    world.run()
    assert world.fleet.ends == {}
    assert answers(world) == [0, 1, 2]


def test_a_command_that_was_removed_before_its_result_was_emitted_is_named() -> None:
    """Seed 1092: the result of a create is made from the command."""
    world = quiet(duration=20.0, disaster=COMMANDS, batch_records=1)
    world.refusable = {0}
    commands(world, 1, 1.5, 2, 8)
    put = world.databases[0].put
    killed: list[float] = []

    def put_and_kill(partition: int, tables: Tables) -> None:
        put(partition, tables)
        if tables.next_offset == 2 and not killed:
            killed.append(world.loop.time())
            world.fleet.crash(world.fleet.hosts[0])
            world.commands[0].trim(2)
            world.loop.call_later(1, restart, world, False, context=OUTSIDE)

    world.databases[0].put = put_and_kill  # type: ignore[method-assign]
    world.run()
    assert killed
    assert "no longer holds the record at offset 1 that they are made from" in world.refusals[0]
    assert answers(world) == [0]
    assert judge(world).problems == []


def stored_position(world: World) -> int:
    return world.databases[0].tables[0].results_offset


def test_results_that_were_removed_before_they_were_compared_need_the_operators_word() -> None:
    world = quiet(duration=30.0, disaster=RESULTS)
    commands(world, 1, 1.5, 2)
    said: list[str] = []

    def remove_and_restart(world: World) -> None:
        assert stored_position(world) == 3, "the fence and two results, of which the next batch told"
        remove_results(world)
        restart(world, False)

    def listen(world: World) -> None:
        said.append(world.fleet.refused(0) or "")

    at(world, 3, remove_and_restart)
    at(world, 10, listen, lambda world: restart(world, True))
    at(world, 15, lambda world: restart(world, False))  # the word is needed once
    commands(world, 12, 18)
    world.run()
    assert "retention removed results 3 to 3 before this worker could check" in said[0]
    assert "WAYPOST_ACCEPT_TRIMMED_RESULTS=true once" in said[0]
    # Nothing in the topic says that the last one was emitted, so it comes again. The others were known to be.
    assert answers(world) == [0, 1, 2, 2, 3, 4]
    assert judge(world).problems == []


def test_nothing_comes_twice_if_a_later_result_is_left() -> None:
    world = quiet(duration=30.0, disaster=RESULTS)
    commands(world, 1, *[1.5] * 3)

    def remove_and_restart(world: World) -> None:
        assert stored_position(world) == 2
        remove_results(world, 4)  # the last of the three is left, at offset 4
        restart(world, True)

    at(world, 3, remove_and_restart)
    commands(world, 5)
    world.run()
    assert answers(world) == [0, 1, 2, 3, 4]
    assert world.fleet.ends == {}
    assert judge(world).problems == []


@pytest.mark.parametrize(("left_from", "twice"), [(3, []), (None, [0, 1, 2])], ids=["some left", "none left"])
def test_a_restored_database_catches_up_although_results_were_removed(
    left_from: int | None, twice: list[int]
) -> None:
    """Postgres knows nothing any more. What is left is compared, and what was removed can't be."""
    world = quiet(duration=40.0, disaster=RESULTS)
    commands(world, 1, 1.5, 2)
    said: list[str] = []

    def restore(world: World) -> None:
        world.fleet.crash(world.fleet.hosts[0])
        world.databases[0].fail_over(1000)
        remove_results(world, left_from)

    at(world, 3, restore, lambda world: restart(world, False))
    at(world, 10, lambda world: said.append(world.fleet.refused(0) or ""), lambda world: restart(world, True))
    at(world, 20, lambda world: restart(world, False))
    commands(world, 15, 25)
    world.run()
    assert "WAYPOST_ACCEPT_TRIMMED_RESULTS=true once" in said[0]
    assert sorted((Counter(answers(world)) - Counter(range(5))).elements()) == twice
    assert judge(world).problems == []


def restore_and_kill(world: World, then: Callable[[World], None]) -> list[str]:
    """Four commands are answered, and Postgres is restored. Kill the worker when it has compared two of the results.

    What it has committed of that owes nothing, for the topic had the answers.
    """
    commands(world, 1, 1.5, 2, 2.5)
    put = world.databases[0].put
    killed: list[str] = []

    def put_and_kill(partition: int, tables: Tables) -> None:
        put(partition, tables)
        if tables.next_offset == 2 and world.loop.time() > 4 and not killed:
            killed.append("while it caught up")
            world.fleet.crash(world.fleet.hosts[0])
            then(world)
            world.loop.call_later(1, restart, world, False, context=OUTSIDE)

    world.databases[0].put = put_and_kill  # type: ignore[method-assign]
    at(world, 4, lambda world: world.databases[0].fail_over(1000), lambda world: restart(world, False))
    return killed


def test_results_that_were_only_compared_and_then_cut_are_missed() -> None:
    """Seed 300103: an unclean election, of a topic of which nobody else has the answers."""
    world = quiet(duration=15.0, disaster="cut_results", batch_records=1)
    world.refusable = {0}
    killed = restore_and_kill(world, lambda world: world.results[0].cut(1))
    world.run()
    assert killed
    assert (
        "commands 0 to 1 were applied, but their results are neither in the results topic"
        in world.refusals[0]
    )


def test_results_that_were_only_compared_and_then_removed_come_once() -> None:
    world = quiet(duration=30.0, disaster=RESULTS, batch_records=1)
    killed = restore_and_kill(world, remove_results)
    said: list[str] = []
    at(world, 10, lambda world: said.append(world.fleet.refused(0) or ""), lambda world: restart(world, True))
    at(world, 15, lambda world: restart(world, False))
    commands(world, 18)
    world.run()
    assert killed
    assert "WAYPOST_ACCEPT_TRIMMED_RESULTS=true once" in said[0]
    assert answers(world) == [0, 1, 2, 3, 2, 3, 4]
    assert judge(world).problems == []


def test_a_result_that_is_missing_behind_removed_ones_is_refused_all_the_same() -> None:
    """The word is for what lies before the first result that is left, and for nothing behind it."""
    world = quiet(duration=30.0, disaster="lose_a_result_and_restore")
    world.refusable = {0}
    commands(world, 1, 1.5, 2, 2.5)

    def restore(world: World) -> None:
        world.databases[0].fail_over(1000)
        remove_results(world, 2)  # the fence and the result of command 0
        (lost,) = [record for record in world.results[0].records if answered_command(record) == 2]
        world.results[0].records.remove(lost)
        restart(world, True)

    at(world, 4, restore)
    world.run()
    assert "the result of the command at offset 2 in the results topic differs" in world.refusals[0]
    assert "or there is none" in world.refusals[0]
