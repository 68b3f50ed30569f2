"""The clocks of a worker's machine: a hypervisor stops them, or the wall clock is wrong.

Time spent in a hypervisor's pause is not in the boot time of the machine. Its wall clock is set right afterwards.
"""

import pytest
from tests.simulation.database import Tables
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.replies import answered_command
from tests.simulation.small_worlds import commands, quiet
from tests.simulation.world import PRODUCER_EXPIRY, World


def pause_before_the_append(world: World, seconds: float) -> list[float]:
    """Pause the first machine between its first commit and what it appends; another worker answers and goes away."""
    put = world.databases[0].put
    paused: list[float] = []

    def put_and_pause(partition: int, tables: Tables) -> None:
        put(partition, tables)
        owner, heir = world.fleet.hosts
        if tables.next_offset == 1 and not paused:
            paused.append(world.loop.time())
            owner.machine.stop()
            owner.process.paused = True
            world.loop.call_later(0.5, world.fleet.own, heir, partition, context=OUTSIDE)
            world.loop.call_later(20, world.fleet.crash, heir, context=OUTSIDE)
            world.loop.call_later(seconds, world.fleet.wake, owner, context=OUTSIDE)

    world.databases[0].put = put_and_pause  # type: ignore[method-assign]
    return paused


@pytest.mark.parametrize("epochs", [32_767, 1], ids=["one producer id", "a new producer id"])
def test_a_machine_that_was_paused_until_brokers_forgot_its_fence_doubles_nothing(epochs: int) -> None:
    world = quiet(processes=2, duration=PRODUCER_EXPIRY + 60, epochs=epochs)
    paused = pause_before_the_append(world, PRODUCER_EXPIRY + 30)
    commands(world, 1, 3)
    answered: list[int] = []

    def look() -> None:
        answered.extend(map(answered_command, world.results[0].records))

    world.loop.call_at(20, look, context=OUTSIDE)
    world.run()
    assert paused
    assert answered[-2:] == [0, 1], "the heir had answered"
    assert judge(world).problems == []
    assert world.fleet.ends["RenewalDueError"] == 1


def test_a_short_pause_of_a_machine_ends_no_term() -> None:
    world = quiet(duration=20.0)
    host = world.fleet.hosts

    def pause() -> None:
        host[0].machine.stop()
        host[0].process.paused = True

    world.loop.call_at(2, pause, context=OUTSIDE)
    world.loop.call_at(5, lambda: world.fleet.wake(host[0]), context=OUTSIDE)
    commands(world, 1, 3, 7)
    world.run()
    assert world.fleet.ends == {}
    assert judge(world).problems == []


def test_a_worker_whose_clock_is_far_behind_writes_no_fence_that_lives_by_it() -> None:
    """The results topic is one of version 0.1, which keeps the time that workers tell."""
    world = quiet(duration=10.0, disaster="slow clock")
    world.results[0].dated = False
    world.refusable = {0}
    commands(world, 1)

    def own_again_with_a_slow_clock() -> None:
        world.fleet.crash(world.fleet.hosts[0])
        world.fleet.boot(0).machine.clock_ahead = -25 * 3600
        world.fleet.own(world.fleet.hosts[0], 0)

    world.loop.call_at(2, own_again_with_a_slow_clock)
    commands(world, 5)
    world.run()
    assert "25.0 h behind the broker's" in world.refusals[0]
    assert world.databases[0].tables[0].next_offset == 1


def test_a_slow_clock_does_no_harm_if_the_broker_dates_results() -> None:
    world = quiet(duration=10.0)

    def own_again_with_a_slow_clock() -> None:
        world.fleet.crash(world.fleet.hosts[0])
        world.fleet.boot(0).machine.clock_ahead = -25 * 3600
        world.fleet.own(world.fleet.hosts[0], 0)

    world.loop.call_at(2, own_again_with_a_slow_clock)
    commands(world, 1, 5)
    world.run()
    assert world.fleet.ends == {}
    assert judge(world).problems == []
