"""The counts by which commits are compared are counts, not times."""

import pytest
from tests.tools.bench.cost import PYTHON, RECORD, Partition, instructions, lines, measure

from waypost.model.retention import RetentionPolicy


def test_the_same_work_counts_the_same() -> None:
    measure()  # what is looked up once is in the caches then
    one, other = measure(), measure()
    for name, count in one.items():
        # Where tables of the interpreter happen to grow is a few bytes more or less.
        assert other[name] == (pytest.approx(count, rel=0.01) if name.endswith("bytes") else count)


def test_more_work_counts_for_more() -> None:
    partition = Partition(RetentionPolicy())
    partition.fold(partition.creates(20))
    one, two = partition.creates(40), partition.creates(80)
    assert instructions(lambda: partition.fold(two)) > 1.9 * instructions(lambda: partition.fold(one))


def test_counts_are_shown_next_to_those_of_the_last_record() -> None:
    told = lines({"create, instructions": 10**9})
    assert "1,000,000,000" in told[0]
    assert ("recorded" in told[0]) == (f'"{PYTHON}"' in RECORD.read_text())
