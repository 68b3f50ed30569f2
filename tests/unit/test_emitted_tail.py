"""The results behind the stored position answer later and later commands, or the topic is refused."""

import orjson
import pytest
from tests.simulation.broker import StoredResult

from waypost_worker.partition.ports import RefusedError, ResultRecord
from waypost_worker.partition.tail import EmittedTail


def result(offset: int, command: int) -> StoredResult:
    return StoredResult(offset, b"key", orjson.dumps({"command": {"offset": command}}), [])


@pytest.mark.parametrize("next_offset", [0, 100], ids=["applied later", "applied before"])
def test_a_command_that_is_answered_twice_is_refused(next_offset: int) -> None:
    tail = EmittedTail(-1)
    with pytest.raises(RefusedError, match="at offset 2 is of command 7, after one of command 7"):
        tail.take([result(0, 3), result(1, 7), result(2, 7)], next_offset, [1, 1, 1])


@pytest.mark.parametrize("next_offset", [0, 100], ids=["applied later", "applied before"])
def test_a_result_behind_the_stored_position_of_a_command_before_it_is_refused(next_offset: int) -> None:
    tail = EmittedTail(3, 10)
    tail.take([result(9, 3)], next_offset, [1])
    with pytest.raises(RefusedError, match="at offset 10 is of command 3, after one of command 3"):
        tail.take([result(10, 3)], next_offset, [1])


def test_gaps_are_no_reason_to_refuse() -> None:
    tail = EmittedTail(3, 10)
    tail.take([result(9, 3), result(11, 5)], 100, [1, 1])
    tail.take([result(12, 9)], 100, [1])
    assert tail.highest == 9


def compare(tail: EmittedTail, *commands: int) -> None:
    for command in commands:
        tail.compare(command, ResultRecord(*result(0, command)[1:4]))


def test_what_was_removed_before_the_first_result_that_is_left_is_not_compared() -> None:
    tail = EmittedTail(-1, 0, start=5)
    tail.take([result(5, 3), result(6, 4)], 0, [1, 1])
    compare(tail, 0, 1, 2, 3, 4)


def test_a_result_that_is_missing_behind_the_first_one_left_is_refused() -> None:
    tail = EmittedTail(-1, 0, start=5)
    tail.take([result(5, 3), result(6, 5)], 0, [1, 1])
    compare(tail, 0, 1, 2, 3)
    with pytest.raises(RefusedError, match="at offset 4 in the results topic differs"):
        compare(tail, 4)


def test_no_result_may_be_missing_if_none_was_removed() -> None:
    tail = EmittedTail(-1, 0, start=0)
    tail.take([result(5, 3), result(6, 4)], 0, [1, 1])
    with pytest.raises(RefusedError, match="at offset 0 in the results topic differs"):
        compare(tail, 0)
