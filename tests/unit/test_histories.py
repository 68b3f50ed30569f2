"""The checker of histories tells those that can have happened from those that can't."""

import pytest
from tests.support.histories import Operation, is_linearizable

NEVER = float("inf")


def read(value: int | None, start: float, end: float) -> Operation:
    return Operation("read", value, start, end)


def write(value: int, start: float, end: float) -> Operation:
    return Operation("write", value, start, end)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [read(None, 0, 1)],
        [write(1, 0, 1), read(1, 2, 3)],
        [write(1, 0, 3), read(None, 1, 2)],
        [write(1, 0, 3), read(1, 1, 2)],
        [write(1, 0, 4), write(2, 1, 5), read(2, 2, 3), read(1, 3.5, 6)],
        [write(1, 0, NEVER), read(None, 1, 2), read(1, 3, 4)],
        [write(1, 0, NEVER), read(None, 1, 2)],
    ],
)
def test_histories_that_can_have_happened(history: list[Operation]) -> None:
    assert is_linearizable(history)


@pytest.mark.parametrize(
    "history",
    [
        [read(1, 0, 1)],
        [write(1, 0, 1), read(None, 2, 3)],
        [write(1, 0, 9), read(1, 1, 2), read(None, 3, 4)],
        [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
        [write(1, 0, 4), write(2, 1, 5), read(2, 6, 7), read(1, 8, 9)],
        [write(1, 0, NEVER), read(1, 1, 2), read(None, 3, 4)],
    ],
)
def test_histories_that_cannot_occur(history: list[Operation]) -> None:
    assert not is_linearizable(history)
