"""The publisher's buffer: bounded, in order per session, and never between two places."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.pending import pending

from waypost.errors import BufferFullError, PublisherClosedError
from waypost.publisher.buffer import Buffer
from waypost.publisher.options import OnFull
from waypost.publisher.pending import Pending
from waypost.wire.topics import partition_of

ALL = 1_000_000


def buffer(
    count: int = 100,
    size: int = ALL,
    on_full: OnFull = "raise",
    wake: Callable[[], None] = lambda: None,
    dropped: list[Pending] | None = None,
) -> Buffer:
    return Buffer(count, size, on_full, wake, [].append if dropped is None else dropped.append)


def take_all(one: Buffer, partition: int = 0) -> list[str]:
    return [found.command_id for found in one.take(partition, ALL, ALL, {})]


def test_what_goes_in_comes_out_in_order() -> None:
    one = buffer()
    for number in range(5):
        one.put(pending(f"{number}"))
    one.set_partition_count(1)
    assert one.route(3) == 3
    assert one.route(9) == 2
    assert take_all(one) == ["0", "1", "2", "3", "4"]


def test_a_command_counts_until_it_is_acknowledged() -> None:
    one = buffer()
    one.put(pending("a", value=b"x" * 100))
    size = one.bytes
    assert size >= 100
    one.set_partition_count(1)
    one.route(1)
    one.take(0, 1, ALL, {})
    assert (len(one), one.bytes) == (1, size)
    assert [gone.command_id for gone in one.acknowledge(0, 1)] == ["a"]
    assert (len(one), one.bytes) == (0, 0)


def test_a_batch_stops_before_the_command_that_does_not_fit() -> None:
    one = buffer()
    for name, value in (("a", b"x" * 1000), ("b", b"x" * 1000), ("c", b"")):
        one.put(pending(name, value=value))
    one.set_partition_count(1)
    one.route(ALL)
    assert [found.command_id for found in one.take(0, ALL, 2000, {})] == ["a"]
    assert one.take(0, ALL, 1000, {"other": 1}) == []
    assert [found.command_id for found in one.take(0, ALL, 1000, {})] == ["b"]
    assert one.waits(0)


def test_what_was_given_back_comes_again_before_the_rest() -> None:
    one = buffer()
    for name in "abcd":
        one.put(pending(name))
    one.set_partition_count(1)
    one.route(ALL)
    one.take(0, 3, ALL, {})
    one.give_back(0, 1)
    assert take_all(one) == ["c", "d"]
    one.give_all_back()
    assert take_all(one) == ["a", "b", "c", "d"]


def test_another_number_of_partitions_keeps_the_order_of_each_session() -> None:
    one = buffer()
    sent = [(f"session-{number % 7}", f"{number}") for number in range(50)]
    one.set_partition_count(3)
    for session, name in sent:
        one.put(pending(name, session))
    one.route(40)
    one.take(1, 5, ALL, {})
    one.set_partition_count(4)
    one.route(ALL)
    found = {partition: take_all(one, partition) for partition in range(4)}
    for partition, names in found.items():
        assert names == [name for session, name in sent if partition_of(session, 4) == partition]


def test_a_full_buffer_raises_and_is_untouched() -> None:
    one = buffer(count=2)
    one.put(pending("a"))
    one.put(pending("b"))
    with pytest.raises(BufferFullError, match="2 commands"):
        one.put(pending("c"))
    assert (one.accepted, len(one)) == (2, 2)


def test_the_bound_in_bytes_holds_too() -> None:
    one = buffer(size=2000)
    one.put(pending("a", value=b"x" * 1000))
    with pytest.raises(BufferFullError):
        one.put(pending("b", value=b"x" * 1000))
    assert [left.command_id for left in one.left()] == ["a"]


def test_several_commands_are_accepted_together_or_not_at_all() -> None:
    one = buffer(count=3)
    one.put(pending("a"))
    with pytest.raises(BufferFullError):
        one.put(pending("b"), pending("c"), pending("d"))
    assert len(one) == 1
    one.put(pending("b"), pending("c"))
    assert [left.command_id for left in one.left()] == ["a", "b", "c"]


def test_drop_oldest_gives_up_the_oldest_that_still_waits() -> None:
    dropped: list[Pending] = []
    one = buffer(count=3, on_full="drop_oldest", dropped=dropped)
    one.set_partition_count(2)
    for name in "abc":
        one.put(pending(name, "session"))
    one.route(2)
    one.take(partition_of("session", 2), 1, ALL, {})
    one.put(pending("d", "session"))
    assert [gone.command_id for gone in dropped] == ["b"]  # a is on its way
    assert [left.command_id for left in one.left()] == ["a", "c", "d"]


def test_drop_oldest_raises_where_everything_is_on_its_way() -> None:
    one = buffer(count=1, on_full="drop_oldest")
    one.put(pending("a"))
    one.set_partition_count(1)
    one.route(1)
    one.take(0, 1, ALL, {})
    with pytest.raises(BufferFullError):
        one.put(pending("b"))


@pytest.mark.parametrize("on_full", ["raise", "block", "drop_oldest"])
def test_commands_that_can_never_fit_are_refused_immediately(on_full: OnFull) -> None:
    one = buffer(size=2000, on_full=on_full)
    one.put(pending("a"))
    with pytest.raises(BufferFullError):
        one.put(pending("b", value=b"x" * 3000))
    assert [left.command_id for left in one.left()] == ["a"]


def test_block_waits_until_there_is_room() -> None:
    one = buffer(count=1, on_full="block")
    one.put(pending("a"))
    one.set_partition_count(1)
    one.route(1)
    take_all(one)
    putting = threading.Thread(target=one.put, args=[pending("b")])
    putting.start()
    one.acknowledge(0, 1)
    putting.join(10)
    assert [left.command_id for left in one.left()] == ["b"]


def test_block_gives_up_after_its_time_and_when_the_buffer_closes() -> None:
    one = buffer(count=1, on_full="block")
    one.put(pending("a"))
    with pytest.raises(BufferFullError):
        one.put(pending("b"), timeout=0.01)
    errors: list[BaseException] = []

    def put() -> None:
        try:
            one.put(pending("c"))
        except PublisherClosedError as error:
            errors.append(error)

    putting = threading.Thread(target=put)
    putting.start()
    one.close()
    putting.join(10)
    assert len(errors) == 1


def test_the_sender_is_woken_only_when_it_rests() -> None:
    calls: list[None] = []
    one = buffer(wake=lambda: calls.append(None))
    one.put(pending("a"))
    assert calls == []
    assert not one.rest()  # something has arrived, so there is no rest
    one.set_partition_count(1)
    one.route(1)
    assert one.rest()
    one.put(pending("b"))
    one.put(pending("c"))
    assert len(calls) == 1


def test_it_knows_whether_anything_up_to_a_number_is_left() -> None:
    one = buffer()
    one.set_partition_count(2)
    sessions = [next(s for s in ("s1", "s2", "s3", "s4") if partition_of(s, 2) == p) for p in (0, 1)]
    one.put(pending("a", sessions[0]))
    one.put(pending("b", sessions[1]))
    target = one.accepted
    one.put(pending("c", sessions[1]))
    one.route(ALL)
    one.take(1, ALL, ALL, {})
    one.acknowledge(1, 2)
    # Two are gone, but not the first: counting would have said that all up to the second are.
    assert one.holds(target)
    assert one.count_left(target) == 1
    assert [left.command_id for left in one.left()] == ["a"]


def test_a_batch_holds_few_enough_of_a_session_that_the_worker_remembers_their_ids() -> None:
    one = buffer(count=ALL)
    one.set_partition_count(1)
    for number in range(500):
        one.put(pending(f"{number}", value=b"{}"))
        one.put(pending(f"other-{number}", "other", value=b"{}"))
    one.route(ALL)
    batch: dict[str | None, int] = {}
    taken = one.take(0, ALL, ALL, batch)
    assert batch == {"session": 192, "other": 192}
    assert one.take(0, ALL, ALL, batch) == []
    one.acknowledge(0, len(taken))
    assert [each.command_id for each in one.take(0, 1, ALL, {})] == ["192"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5)),
        st.tuples(st.just("route"), st.integers(0, 4)),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("give_back"), st.integers(0, 3)),
        st.tuples(st.just("give_all_back"), st.just(0)),
        st.tuples(st.just("acknowledge"), st.integers(1, 3)),
        st.tuples(st.just("set_partition_count"), st.integers(1, 3)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_no_matter_what_the_sender_does_nothing_is_lost_or_doubled_and_sessions_stay_in_order(
    operations: list[tuple[str, int]],
) -> None:
    one = buffer(count=ALL)
    one.set_partition_count(2)
    partitions = 2
    flying: dict[int, int] = {}
    accepted: list[tuple[str, str]] = []
    gone: list[tuple[str, str]] = []

    def apply(what: str, much: int) -> None:
        nonlocal partitions
        if what == "put":
            session, name = f"session-{much}", f"{len(accepted)}"
            one.put(pending(name, session))
            accepted.append((session, name))
        elif what == "route":
            one.route(much)
        elif what == "set_partition_count":
            if much != partitions:
                flying.clear()
            one.set_partition_count(much)
            partitions = much
        elif what == "give_all_back":
            one.give_all_back()
            flying.clear()
        else:
            for partition in range(partitions):
                flies = flying.get(partition, 0)
                if what == "take":
                    flying[partition] = flies + len(one.take(partition, much, ALL, {}))
                elif what == "give_back":
                    one.give_back(partition, min(much, flies))
                    flying[partition] = flies - min(much, flies)
                else:
                    finished = one.acknowledge(partition, min(much, flies))
                    gone.extend((str(each.session_id), each.command_id) for each in finished)
                    flying[partition] = flies - len(finished)

    for what, much in operations:
        apply(what, much)
    left = [(str(each.session_id), each.command_id) for each in one.left()]
    assert sorted(gone + left) == sorted(accepted)
    assert len(one) == len(left)
    for session in {session for session, _ in accepted}:
        mine: list[Any] = [entry for entry in gone + left if entry[0] == session]
        assert mine == [entry for entry in accepted if entry[0] == session]
