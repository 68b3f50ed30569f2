"""The search for the command at which an owner fails, and what is said of unexpected errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.shards import shard_of
from waypost_worker.partition.failure import (
    BatchSizer,
    FailingCommandError,
    SlowBatchError,
    SlowCommandError,
    Suspects,
    UnexpectedError,
    place_of,
)
from waypost_worker.partition.ports import TimedOutError


def searched(offsets: list[int], bad: set[int], size: int) -> tuple[int | None, int, int]:
    """An owner's terms over records at these offsets until it is refused: the offset that is named, the position, and
    how many terms failed.
    """
    search = BatchSizer(2000)
    position, failed = 0, 0
    while True:
        left = [offset for offset in offsets if offset >= position]
        if not left:
            return None, position, failed
        batch = left[: search.most_records(position) or size]
        if not bad & set(batch):
            position = batch[-1] + 1
            continue
        failed += 1
        assert failed < 100
        named = search.failed(Suspects(position, batch[0], batch[-1], len(batch)))
        if named is not None:
            return named, position, failed


@given(st.data())
def test_the_first_failing_command_is_found_in_a_few_terms_and_all_before_it_are_applied(
    data: st.DataObject,
) -> None:
    offsets = data.draw(st.lists(st.integers(0, 5000), min_size=1, max_size=300, unique=True).map(sorted))
    bad = data.draw(st.sets(st.sampled_from(offsets)))
    size = data.draw(st.sampled_from((1, 2, 7, 64, 2000)))
    named, position, failed = searched(offsets, bad, size)
    if not bad:
        assert (named, failed) == (None, 0)
        return
    assert named == min(bad)
    assert [offset for offset in offsets if position <= offset < named] == []
    assert failed <= 3 + size.bit_length()


def test_a_batch_that_fails_twice_and_then_does_not_is_no_reason_to_search() -> None:
    search = BatchSizer(2000)
    batch = Suspects(5, 5, 104, 100)
    assert search.failed(batch) is search.failed(batch) is None
    assert not search.is_searching
    assert search.most_records(5) is None
    assert search.failed(Suspects(105, 105, 200, 96)) is None
    assert not search.is_searching, "elsewhere it begins anew"


def test_the_limit_is_for_the_suspects_only() -> None:
    search = BatchSizer(2000)
    for _ in range(3):
        search.failed(Suspects(100, 101, 199, 99))
    assert search.is_searching
    assert [search.most_records(position) for position in (99, 100, 150, 199, 200)] == [
        None,
        49,
        49,
        49,
        None,
    ]


def test_the_same_command_is_named_again_each_time_it_fails() -> None:
    search = BatchSizer(2000)
    alone = Suspects(7, 8, 8, 1)
    assert [search.failed(alone) for _ in range(5)] == [None, None, 8, 8, 8]
    assert search.terms == 5


def raised(text: str = "secret text") -> Exception:
    try:
        raise KeyError(text)
    except KeyError as error:
        return error


def test_the_place_is_the_innermost_one_in_waypost() -> None:
    assert place_of(raised()).startswith(f"{__name__}:")
    with pytest.raises(ZeroDivisionError) as caught:
        shard_of(1, 0)
    assert place_of(caught.value).startswith("waypost.shards:")
    assert place_of(KeyError()) == "an unknown place"


def test_messages_name_type_place_and_offsets_and_quote_nothing() -> None:
    error = UnexpectedError(raised(), Suspects(6, 7, 9, 3))
    assert str(error).startswith("KeyError at ")
    assert str(error).endswith(", with the commands from offset 7 to 9 in progress")
    refusal = str(FailingCommandError(2, 7, 9, error))
    assert "The command at offset 7 of partition 2 makes its owner fail: KeyError at " in refusal
    assert "9 times in a row" in refusal
    assert "All commands before it are applied and answered" in refusal
    assert "owner_failed" in refusal
    assert "secret text" not in str(error) + refusal


# Batches that are too slow.


def slow(first: int, count: int) -> Suspects:
    return Suspects(first, first, first + count - 1, count)


def worked_off(sizer: BatchSizer, backlog: int, fitting: int, largest: int) -> list[int]:
    """Apply a backlog with a store that finishes no more than ``fitting`` at once; the size of each batch tried."""
    position, tried = 0, []
    while position < backlog:
        count = min(sizer.most_records(position) or largest, backlog - position)
        tried.append(count)
        if count > fitting:
            assert sizer.timed_out(slow(position, count)) is None
            continue
        sizer.applied(count)
        position += count
    return tried


def test_a_batch_that_was_too_slow_is_halved_immediately() -> None:
    sizer = BatchSizer(2000)
    assert sizer.most_records(0) is None
    assert sizer.timed_out(slow(0, 2000)) is None
    assert sizer.most_records(0) == 1000
    assert sizer.most_records(500_000) == 1000, "what comes later may be too much as well"
    assert sizer.timed_out(slow(0, 37)) is None
    assert sizer.most_records(0) == 18


def test_the_limit_grows_after_full_batches_and_is_gone_at_the_end() -> None:
    sizer = BatchSizer(100)
    sizer.timed_out(slow(0, 100))
    for _ in range(1000):
        sizer.applied(49)
    assert sizer.most_records(0) == 50, "batches that nothing held small say nothing"
    for _ in range(7):
        sizer.applied(50)
    assert sizer.most_records(0) == 50
    sizer.applied(50)
    assert sizer.most_records(0) is None


def batches_until_it_grows(sizer: BatchSizer) -> int:
    """Halve the limit of 100 records once, and apply full batches until it is gone."""
    sizer.timed_out(slow(0, 100))
    count = 0
    while sizer.most_records(0) is not None:
        sizer.applied(50)
        count += 1
    return count


def test_what_was_too_slow_long_ago_no_longer_delays_growth() -> None:
    sizer = BatchSizer(100)
    assert [batches_until_it_grows(sizer) for _ in range(3)] == [8, 16, 32]
    for _ in range(1024):
        sizer.applied(100)
    assert batches_until_it_grows(sizer) == 8


@given(fitting=st.integers(1, 2000), largest=st.integers(1, 2000))
def test_a_backlog_is_processed_with_few_batches_that_are_too_slow(fitting: int, largest: int) -> None:
    tried = worked_off(BatchSizer(largest), 300 * fitting, fitting, largest)
    too_slow = sum(count > fitting for count in tried)
    # To find the size once, and then each try that failed makes the next one twice as rare.
    assert too_slow <= largest.bit_length() + 10
    assert sum(tried) - sum(count for count in tried if count > fitting) == 300 * fitting


def test_a_command_that_is_too_slow_alone_is_named_at_the_third_time_in_a_row() -> None:
    sizer = BatchSizer(2000)
    assert [sizer.timed_out(slow(7, 1)) for _ in range(4)] == [None, None, 7, 7]
    assert sizer.slow_terms == 4
    assert sizer.timed_out(slow(8, 1)) is None, "another command"
    assert [sizer.timed_out(slow(8, count)) for count in (1, 2, 1, 1)] == [None] * 4, "not in a row"


def test_both_limits_hold_together() -> None:
    sizer = BatchSizer(2000)
    sizer.timed_out(slow(0, 100))
    for _ in range(3):
        sizer.failed(slow(0, 50))
    assert sizer.most_records(0) == 25
    assert sizer.most_records(50) == 50, "the bug is passed, and the store as slow as before"


def test_messages_about_slow_batches_name_the_limit_to_raise() -> None:
    cause = TimedOutError("Postgres: canceled", "statement_timeout for the workers' role")
    error = SlowBatchError(cause, slow(7, 3))
    assert str(error) == (
        "Postgres: canceled. The batch had 3 commands, from offset 7 to 9; the limit is statement_timeout for the "
        "workers' role"
    )
    refusal = SlowCommandError(2, 7, 3, error)
    assert refusal.offset == 7
    assert "The command at offset 7 of partition 2 can't be applied in time, 3 times in a row" in str(refusal)
    assert "Raise statement_timeout for the workers' role" in str(refusal)
