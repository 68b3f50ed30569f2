"""The buffer with a spool behind it: one order through memory and disk, and books that balance."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.pending import pending
from tests.unit.spooled import ALL, World

from waypost.errors import BufferFullError, SpoolError
from waypost.publisher.options import OnFull
from waypost.publisher.pending import Pending


@pytest.mark.parametrize("through", [False, True])
def test_the_order_holds_through_memory_and_disk(through: bool) -> None:
    world = World(through=through)
    for number in range(50):
        world.put(number)
        world.spill()
    assert world.buffer.stored > 30
    assert len(world.buffer) == 50
    world.buffer.set_partition_count(1)
    assert world.send_all() == [str(number) for number in range(50)]
    world.remove()
    assert (len(world.buffer), world.buffer.disk_count, world.buffer.disk_bytes) == (0, 0, 0)
    assert world.disk.rows == {}


def test_nothing_is_written_while_memory_is_not_half_full() -> None:
    world = World()
    world.put(1, 2, 3, 4)
    world.spill()
    assert (world.disk.rows, world.hints) == ({}, 0)
    world.put(5)
    assert world.hints == 1


def test_with_write_through_a_command_is_on_the_disk_when_the_call_returns() -> None:
    world = World(through=True)
    world.put(*range(30))
    assert [each.command_id for each in world.disk.rows.values()] == [str(number) for number in range(30)]
    assert world.buffer.stored == 22  # eight are in memory as well


def test_a_command_that_can_not_be_written_is_not_accepted() -> None:
    world = World(through=True)
    world.put(1)
    world.disk.broken = True
    with pytest.raises(SpoolError, match="broken"):
        world.put(2)
    world.disk.broken = False
    world.put(3)
    assert (world.buffer.accepted, world.buffer.disk_count) == (2, 2)
    world.buffer.set_partition_count(1)
    assert world.send_all() == ["1", "3"]
    assert world.buffer.disk_bytes == 0


def test_what_was_interrupted_right_after_its_commit_was_not_accepted_and_never_comes_back() -> None:
    world = World(through=True)
    world.put(1)
    add = world.disk.add

    def interrupted(commands: list[Pending]) -> None:
        add(commands)
        raise KeyboardInterrupt

    world.disk.add = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.put(2)
    assert world.hints == 1
    world.disk.add = add  # type: ignore[method-assign]
    world.remove()
    assert [each.command_id for each in world.disk.rows.values()] == ["1"]
    world.put(3)
    world.buffer.set_partition_count(1)
    assert world.send_all() == ["1", "3"]
    assert (world.buffer.accepted, world.buffer.disk_bytes) == (2, 0)


def test_what_can_not_be_spilled_stays_in_memory() -> None:
    world = World()
    world.put(*range(8))
    world.disk.broken = True
    _, new = world.buffer.spill(100)
    with pytest.raises(SpoolError):
        world.disk.add(new)
    world.buffer.spilled(new)
    assert (len(world.buffer), world.buffer.disk_count, world.buffer.stored) == (8, 0, 0)
    with pytest.raises(BufferFullError):
        world.put(8)
    world.disk.broken = False
    world.buffer.set_partition_count(1)
    assert world.send_all() == [str(number) for number in range(8)]


@pytest.mark.parametrize("through", [False, True])
def test_a_full_disk_and_a_full_memory_are_full(through: bool) -> None:
    size = pending("x").size
    world = World(through=through, max_disk_bytes=20 * size)
    expected = 20 if through else 28
    for number in range(expected):
        world.put(number)
        world.spill()
    with pytest.raises(BufferFullError, match="full"):
        world.put(100)
    assert (world.buffer.accepted, len(world.buffer)) == (expected, expected)
    world.buffer.set_partition_count(1)
    assert world.send_all() == [str(number) for number in range(expected)]


def test_drop_oldest_frees_the_disk_too_and_tells() -> None:
    size = pending("x").size
    world = World(through=True, max_disk_bytes=10 * size, on_full="drop_oldest")
    world.put(*range(13))
    assert [each.command_id for each in world.dropped] == ["0", "1", "2"]
    world.buffer.set_partition_count(1)
    assert world.send_all() == [str(number) for number in range(3, 13)]
    assert world.buffer.disk_bytes == 0


def test_what_is_saved_meanwhile_stays_in_memory_and_leaves_the_disk_with_its_acknowledgement() -> None:
    world = World()
    world.put(1, 2)
    world.buffer.set_partition_count(1)
    world.buffer.route(ALL)
    world.buffer.take(0, 1, ALL, {})
    world.put(3)
    world.save()
    assert sorted(each.command_id for each in world.disk.rows.values()) == ["1", "2", "3"]
    assert (world.buffer.stored, world.buffer.unsaved()) == (0, [])
    world.put(4)
    assert [each.command_id for each in world.buffer.unsaved()] == ["4"]
    gone = world.buffer.acknowledge(0, 1)
    settled: list[int] = []
    assert world.buffer.settle(gone, lambda: settled.append(1))
    world.remove()
    assert settled == [1]
    assert sorted(each.command_id for each in world.disk.rows.values()) == ["2", "3"]


def test_what_was_acknowledged_while_it_was_written_is_removed_again() -> None:
    world = World()
    world.put(1)
    world.buffer.set_partition_count(1)
    world.buffer.route(ALL)
    world.buffer.take(0, 1, ALL, {})
    chosen = world.buffer.save(world.buffer.unsaved())
    assert world.buffer.settle(world.buffer.acknowledge(0, 1), lambda: None)
    world.disk.add(chosen)
    world.buffer.saved(chosen, well=True)
    world.remove()
    assert (world.disk.rows, world.buffer.disk_bytes) == ({}, 0)


def test_what_was_acknowledged_before_it_is_written_is_not_written() -> None:
    world = World()
    world.put(1, 2)
    world.buffer.set_partition_count(1)
    world.buffer.route(ALL)
    world.buffer.take(0, 1, ALL, {})
    candidates = world.buffer.unsaved()
    world.buffer.settle(world.buffer.acknowledge(0, 1), lambda: None)
    chosen = world.buffer.save(candidates)
    assert [each.command_id for each in chosen] == ["2"]
    assert world.buffer.disk_count == 1


def test_a_batch_with_a_spool_holds_half_as_many_of_a_session() -> None:
    # One batch may be acknowledged and not yet removed from the disk while the next is in flight.
    world = World(max_count=1000)
    world.put(*range(200))
    world.buffer.set_partition_count(1)
    world.buffer.route(ALL)
    assert len(world.buffer.take(0, ALL, ALL, {})) == 96


@pytest.mark.parametrize("through", [False, True])
def test_what_another_left_goes_between_what_was_here_and_what_comes(through: bool) -> None:
    world = World(through=through)
    world.put(1, 2)
    assert world.adopt(*(f"left-{number}" for number in range(20)))
    world.put(*range(3, 6))
    assert (len(world.buffer), world.buffer.recovered, world.buffer.accepted) == (25, 20, 5)
    assert world.buffer.holds(world.buffer.newest)
    world.buffer.set_partition_count(1)
    left = [f"left-{number}" for number in range(20)]
    assert world.send_all() == ["1", "2", *left, "3", "4", "5"]
    world.remove()
    assert (len(world.buffer), world.buffer.disk_count, world.buffer.disk_bytes) == (0, 0, 0)
    assert (world.disk.rows, world.other.rows) == ({}, {})


def test_nothing_is_taken_over_in_a_crowd_or_where_it_does_not_fit() -> None:
    crowded = World()
    crowded.put(*range(5))
    assert not crowded.adopt("left")
    crowded.spill()
    assert crowded.buffer.stored
    assert not crowded.adopt("left")
    full = World(through=True, max_disk_bytes=3 * pending("x").size)
    assert full.adopt("left", "left", "left", "left")  # as at the start, where we have nothing there
    beside = World(through=True, max_disk_bytes=3 * pending("x").size)
    beside.put(1, 2)
    assert not beside.adopt("left", "left")
    beside.put(3)
    assert (len(beside.buffer), beside.buffer.recovered) == (3, 0)


def test_what_is_taken_over_waits_for_a_write_through_that_is_under_way() -> None:
    world = World(through=True)
    writing, go_on = threading.Event(), threading.Event()
    add = world.disk.add

    def slow(commands: list[Pending]) -> None:
        writing.set()
        assert go_on.wait(20)
        add(commands)

    world.disk.add = slow  # type: ignore[method-assign]
    putting = threading.Thread(target=world.put, args=(1,))
    putting.start()
    assert writing.wait(20)
    adopting = threading.Thread(target=world.adopt, args=("left",))
    adopting.start()
    go_on.set()
    putting.join()
    adopting.join()
    world.buffer.set_partition_count(1)
    assert world.send_all() == ["1", "left"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["route", "take", "acknowledge", "spill", "load"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["save", "give_all_back", "remove"]), st.just(0)),
        st.tuples(st.just("adopt"), st.integers(1, 5)),
        st.tuples(st.just("set_partition_count"), st.integers(1, 3)),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(OPERATIONS, st.booleans(), st.sampled_from(["raise", "drop_oldest"]))
def test_whatever_happens_nothing_is_lost_or_doubled_and_sessions_stay_in_order(
    operations: list[tuple[str, int]], through: bool, on_full: OnFull
) -> None:
    world = World(through=through, max_count=6, max_disk_bytes=12 * pending("x").size, on_full=on_full)
    one = world.buffer
    one.set_partition_count(2)
    flying = [0, 0, 0]
    accepted: list[tuple[str, str]] = []
    gone: list[tuple[str, str]] = []

    def acknowledge(partition: int, count: int) -> None:
        finished = one.acknowledge(partition, count)
        flying[partition] -= len(finished)
        gone.extend((str(each.session_id), each.command_id) for each in finished)
        one.settle(finished, lambda: None)

    def set_partition_count(much: int) -> None:
        one.give_all_back()
        flying[:] = [0, 0, 0]
        one.set_partition_count(much)

    def put(much: int) -> None:
        session, name = f"session-{much}", f"{len(accepted)}"
        try:
            one.put(pending(name, session))
        except BufferFullError:
            return
        accepted.append((session, name))

    def adopt(much: int) -> None:
        names = [f"{len(accepted) + number}" for number in range(much)]
        if world.adopt(*names):
            accepted.extend(("other", name) for name in names)

    steps: dict[str, Callable[[int], Any]] = {
        "put": put,
        "adopt": adopt,
        "route": one.route,
        "spill": world.spill,
        "load": world.load,
        "save": lambda _: world.save(),
        "remove": lambda _: world.remove(),
        "set_partition_count": set_partition_count,
        "give_all_back": lambda _: (one.give_all_back(), flying.__setitem__(slice(None), [0, 0, 0])),
    }
    for what, much in operations:
        if what == "take":
            for partition in range(len(one._queues)):
                flying[partition] += len(one.take(partition, much, ALL, {}))
        elif what == "acknowledge":
            for partition in range(len(one._queues)):
                acknowledge(partition, min(much, flying[partition]))
        else:
            steps[what](much)
        assert one.count_left(one.newest) == len(one)
        assert len(world.disk.rows) + len(world.other.rows) >= one.stored
    set_partition_count(1)
    while True:
        world.spill()
        world.load()
        one.route(ALL)
        taken = len(one.take(0, ALL, ALL, {}))
        if not taken:
            break
        flying[0] += taken
        acknowledge(0, taken)
    world.remove()
    lost = [(str(each.session_id), each.command_id) for each in world.dropped]
    assert sorted(gone + lost) == sorted(accepted)
    for session in {session for session, _ in accepted}:
        mine = [entry for entry in gone if entry[0] == session]
        assert mine == [entry for entry in accepted if entry[0] == session and entry not in lost]
    assert (len(one), one.bytes, one.disk_count, one.disk_bytes) == (0, 0, 0, 0)
    assert (world.disk.rows, world.other.rows) == ({}, {})
