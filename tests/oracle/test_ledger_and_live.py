"""The oracle's own promises: what it holds against the topics, it finds."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from tests.oracle.ledger import Ledger, fingerprint
from tests.oracle.live import Seen, differences_seen


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


LOG = [Record(offset, b"k", b"%d" % offset, [("ce_id", b"c%d" % offset)]) for offset in range(3)]
RESULTS = [
    Record(0, None, b"{}", [("ce_type", b"waypost.partition.acquired")]),
    *(Record(offset, b"k", b"{}", [("ce_id", b"r%d" % offset)]) for offset in (1, 2, 3)),
]
SEEN = [Seen(offset, f"r{offset}", 0.0) for offset in (1, 2, 3)]


def ledger_of(records: Sequence[Record]) -> Ledger:
    made = Ledger()
    for record in records:
        made.note(0, record.offset, fingerprint(record.key, record.value, record.headers))
    return made


def test_acknowledged_commands_that_are_in_the_log_are_not_a_problem() -> None:
    ledger = ledger_of(LOG)
    assert ledger.count == 3
    assert ledger.missing({0: LOG}) == []


def test_an_acknowledged_command_that_is_gone_is_found() -> None:
    assert ledger_of(LOG).missing({0: LOG[:2]}) == [
        "partition 0: the acknowledged command 2 is not in the log"
    ]
    assert ledger_of(LOG).missing({}) != []


@pytest.mark.parametrize(
    "other",
    [
        LOG[1]._replace(value=b"x"),
        LOG[1]._replace(key=None),
        LOG[1]._replace(headers=[("ce_id", b"other")]),
        LOG[1]._replace(headers=[]),
    ],
)
def test_another_record_in_its_place_is_found(other: Record) -> None:
    log = [LOG[0], other, LOG[2]]
    assert ledger_of(LOG).missing({0: log}) == [
        "partition 0: the acknowledged command 1 is another one in the log"
    ]


def test_a_subscriber_that_saw_every_result_once_in_order_has_no_problem() -> None:
    assert differences_seen({0: SEEN}, {0: RESULTS}) == []


@pytest.mark.parametrize(
    "seen",
    [
        SEEN[:2],
        [*SEEN, SEEN[2]],
        [SEEN[1], SEEN[0], SEEN[2]],
        [SEEN[0], Seen(2, "another", 0.0), SEEN[2]],
        [],
    ],
    ids=["missed", "repeated", "out of order", "another", "nothing"],
)
def test_a_subscriber_that_saw_something_else_is_found(seen: list[Seen]) -> None:
    (problem,) = differences_seen({0: seen}, {0: RESULTS})
    assert problem.startswith("partition 0: 3 results in the topic")
