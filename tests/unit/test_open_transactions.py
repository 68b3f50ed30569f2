"""How long a partition has stood before an open transaction, as its reader tells."""

import pytest

from waypost_worker.partition.ports import ReadProgress
from waypost_worker.telemetry.open_transactions import OpenTransactions


def test_an_open_transaction_is_timed_from_when_it_was_first_in_the_way() -> None:
    transactions = OpenTransactions()

    def look(now: float, position: int, stable: int | None, end: int | None) -> float:
        return transactions.look(1, ReadProgress(position, stable, end), now)

    assert look(0, 10, None, None) == 0, "nothing was fetched yet"
    assert look(5, 8, 10, 12) == 0, "there is something to read before it"
    assert look(10, 10, 10, 12) == 0
    assert look(15, 10, 10, 15) == 5
    assert look(40, 10, 10, 15) == 30
    assert look(45, 13, 13, 15) == 0, "another one"
    assert look(50, 13, 13, 15) == 5
    assert look(55, 15, 15, 15) == 0
    assert look(60, 13, 13, 15) == 0
    transactions.keep(frozenset({2}))
    assert look(65, 13, 13, 15) == 0


@pytest.mark.parametrize(
    ("progress", "held_back"),
    [
        (ReadProgress(5), 0),
        (ReadProgress(5, 5, 5), 0),
        (ReadProgress(4, 5, 9), 0),
        (ReadProgress(5, 5, 9), 4),
    ],
)
def test_what_is_held_back(progress: ReadProgress, held_back: int) -> None:
    assert progress.held_back == held_back
