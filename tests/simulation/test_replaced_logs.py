"""Topics that were cut, recreated or replaced, each as the smallest world that shows what an owner makes of it."""

from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.small_worlds import commands, quiet
from tests.simulation.world import World


def test_a_results_topic_that_was_cut_is_refused_however_often_it_is_looked_at() -> None:
    world = quiet(duration=40.0, disaster="cut_results")
    commands(world, 0.5, 1, 1.5, 2, 2.5, 3, 4)
    world.refusable = {0}
    world.loop.call_at(3.5, world.results[0].cut, 2)
    world.run()
    assert "recreated or truncated" in world.refusals[0]
    assert world.fleet.ends["RefusedError"] > 10
    assert judge(world).problems == []
    assert len(world.results[0].records) < 6, "every attempt added a fence record"


def test_a_recreated_results_topic_is_refused_although_it_is_longer_than_the_former_one() -> None:
    world = quiet(duration=10.0)
    commands(world, 0.5, 1, 1.5)
    world.refusable = {0}
    world.loop.call_at(3, world.results[0].cut, 0)
    commands(world, *[3.5] * 10)
    world.run()
    assert "recreated or truncated" in world.refusals[0]
    assert len(world.results[0].records) > 4


def test_a_refusal_to_replay_another_log_stands_when_the_partition_is_acquired_again() -> None:
    world = quiet(duration=20.0, disaster="cut_commands")
    world.refusable = {0}
    commands(world, 1, 1.5, 2)

    def replace_the_log_and_lose_the_database() -> None:
        world.commands[0].cut(0)
        world.databases[0].fail_over(1000)

    world.loop.call_at(3, replace_the_log_and_lose_the_database)
    commands(world, 3.1, 3.2, 3.3, 3.4, 3.5)
    world.run()
    assert world.fleet.ends["RefusedError"] > 3
    assert "differs from what the command log gives now" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 0


def test_a_frozen_owner_notices_that_the_command_topic_was_replaced_meanwhile() -> None:
    world = quiet(duration=15.0, disaster="cut_commands")
    world.refusable = {0}
    commands(world, 1, 1.5)

    def freeze_and_replace_the_log() -> None:
        world.fleet.hosts[0].process.paused = True
        world.commands[0].cut(0)
        world.loop.call_later(6, world.fleet.wake, world.fleet.hosts[0], context=OUTSIDE)

    world.loop.call_at(2, freeze_and_replace_the_log)
    commands(world, *[4] * 5)
    world.run()
    assert "is not the one that Postgres applied" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 2


def test_results_of_commands_that_the_command_topic_does_not_have_are_refused() -> None:
    world = quiet(duration=15.0, disaster="recreate_commands")
    world.refusable = {0}
    commands(world, 1, 1.5)
    world.loop.call_at(2, world.commands[0].cut, 0)
    world.loop.call_at(2, world.databases[0].fail_over, 1000)
    world.run()
    assert "answers commands up to offset 1, but the command topic, which ends at 0" in world.refusals[0]


def test_records_that_took_the_place_of_passed_over_ones_while_an_owner_was_frozen_are_not_skipped() -> None:
    """Seed 2815: the consumer had passed over markers, and then a truncated log got records in their place.

    Brokers without ids of topics do not tell that it was cut.
    """
    world = quiet(duration=15.0, disaster="cut_commands", topic_ids=False)
    world.refusable = {0}
    commands(world, 1, 1.5)
    world.loop.call_at(2, world.commands[0].gap, 2)

    def freeze_and_cut_the_markers() -> None:
        world.fleet.hosts[0].process.paused = True
        world.commands[0].cut(2)
        world.loop.call_later(6, world.fleet.wake, world.fleet.hosts[0], context=OUTSIDE)

    world.loop.call_at(5, freeze_and_cut_the_markers)
    commands(world, *[7] * 4)
    world.run()
    assert judge(world).problems == []
    assert len(world.results[0].records) > 6


def disturb(world: World) -> None:
    """Let the owner's fetch meet something that passes and may announce another log."""
    world.fleet.logs[-1].disturbances += 1


def test_a_log_that_was_replaced_in_one_step_is_noticed_by_a_disturbed_fetch() -> None:
    """Brokers without topic ids: what comes next looks like what was to come."""
    world = quiet(duration=15.0, disaster="recreate_commands", topic_ids=False)
    world.refusable = {0}
    commands(world, 1, 1.5)

    def replace_the_log() -> None:
        world.commands[0].recreate()
        disturb(world)

    world.loop.call_at(2, replace_the_log)
    commands(world, *[2] * 5)
    world.run()
    assert "is not the one that Postgres applied" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 2


def test_a_log_that_was_replaced_while_its_owner_was_frozen_is_noticed_when_it_wakes_up() -> None:
    """Brokers without topic ids, and a fetch that nothing disturbs."""
    world = quiet(duration=20.0, disaster="recreate_commands", topic_ids=False)
    world.refusable = {0}
    commands(world, 1, 1.5)

    def freeze() -> None:
        world.fleet.hosts[0].process.paused = True

    world.loop.call_at(2, freeze, context=OUTSIDE)
    world.loop.call_at(3, world.commands[0].recreate)
    commands(world, *[4] * 5)
    world.loop.call_at(6, lambda: world.fleet.wake(world.fleet.hosts[0]), context=OUTSIDE)
    world.run()
    assert "is not the one that Postgres applied" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 2


def test_a_log_that_was_replaced_in_one_step_is_noticed_by_its_id() -> None:
    world = quiet(duration=15.0, disaster="recreate_commands")
    world.refusable = {0}
    commands(world, 1, 1.5)
    world.loop.call_at(2, world.commands[0].recreate)
    commands(world, *[2] * 5)
    world.run()
    assert world.databases[0].tables[0].next_offset == 2


def test_a_log_that_was_cut_and_refilled_in_one_step_is_noticed_by_its_leaders() -> None:
    world = quiet(duration=15.0, disaster="cut_commands")
    world.refusable = {0}
    commands(world, 1, 1.5)
    world.loop.call_at(2, world.commands[0].cut, 1)
    commands(world, *[2] * 5)
    world.run()
    assert "is not the one that Postgres applied" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 2


def test_partitions_that_were_added_are_noticed_by_what_disturbed_the_fetch() -> None:
    world = quiet(duration=15.0, disaster="add_partitions")
    world.refusable = {0}
    commands(world, 1)

    def add_a_partition() -> None:
        world.topic.count += 1
        disturb(world)

    world.loop.call_at(2, add_a_partition)
    commands(world, 3)
    world.run()
    assert "2 partitions" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 1
