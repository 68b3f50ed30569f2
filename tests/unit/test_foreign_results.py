"""Which records of the results topic an operator may have workers pass over, by the producers that wrote them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import orjson
import pytest

from waypost.wire.event_types import EventType
from waypost_worker.partition.foreign import accepted_record, without_foreign
from waypost_worker.partition.ports import FetchedResult, ForeignRecord, RefusedError
from waypost_worker.partition.tail import EmittedTail
from waypost_worker.recovery.foreign_results import StoredPosition, find_foreign, first_to_read


class Record(NamedTuple):
    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, Any]] = ()
    key: bytes | None = b"k"
    timestamp: int = 0


def fence(offset: int, producer_id: int) -> Record:
    value = orjson.dumps({"producer_id": producer_id})
    return Record(offset, value, [("ce_type", EventType.ACQUIRED.wire)], None)


def result(offset: int, command: int) -> Record:
    return Record(offset, orjson.dumps({"command": {"offset": command}}), [("ce_type", b"t")])


async def found(
    written: list[tuple[Record, int]], position: StoredPosition, start: int = 0
) -> tuple[dict[int, str], list[int]]:
    async def pieces() -> AsyncIterator[Sequence[tuple[Any, int]]]:
        for one in written:
            yield [one]

    seen = await find_foreign(pieces(), position, start)
    return {one.record.offset: one.says for one in seen.foreign}, seen.unsure


LOG = [
    (result(10, 1), 7),  # of the owner that stored the position
    (fence(11, 8), 8),
    (result(12, 2), 8),
    (fence(13, 9), 99),  # a copy of a fence record makes nobody an owner
    (result(14, 3), 99),
    (result(15, 3), 9),
    (Record(16, b"junk"), -1),
    (fence(17, 7), -1),
]


async def test_records_of_all_but_owners_are_foreign() -> None:
    assert await found(LOG, StoredPosition(10, frozenset({7}))) == (
        {
            13: "a fence record",
            14: "a result of command 3",
            15: "a result of command 3",
            16: "not a result",
            17: "a fence record",
        },
        [],
    )


async def test_a_database_without_ids_knows_owners_by_fence_records_of_a_whole_log_only() -> None:
    assert first_to_read(StoredPosition(10, None), 3) == 3
    assert first_to_read(StoredPosition(100, frozenset({7})), 3) == 92
    whole, unsure = await found([(fence(9, 7), 7), *LOG], StoredPosition())
    assert (sorted(whole), unsure) == ([13, 14, 15, 16, 17], [])
    trimmed, unsure = await found(LOG, StoredPosition(), start=10)
    assert (sorted(trimmed), unsure) == ([16, 17], [10, 13, 14, 15])


async def test_what_was_accepted_is_shown_so() -> None:
    junk = Record(16, b"junk")

    async def pieces() -> AsyncIterator[Sequence[tuple[Any, int]]]:
        yield [(junk, -1), (junk._replace(offset=17), -1)]

    position = StoredPosition(0, frozenset({7}), [accepted_record(junk)])
    seen = await find_foreign(pieces(), position, 0)
    assert [one.accepted for one in seen.foreign] == [True, False]


@pytest.mark.parametrize(
    "other",
    [
        Record(16, b"Junk"),
        Record(17, b"junk"),
        Record(16, b"junk", key=None),
        Record(16, b"junk", [("a", b"")]),
        Record(16, None),
    ],
)
def test_a_record_is_distinguished_from_all_others(other: Record) -> None:
    assert accepted_record(other) != accepted_record(Record(16, b"junk"))
    assert accepted_record(Record(16, b"junk", [("a", None)])) != accepted_record(
        Record(16, b"junk", [("a", b"")])
    )


class Log:
    """A results log that gives one piece."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        yield [record for record in self._records if first <= record.offset < end]  # type: ignore[misc]


async def test_only_accepted_records_are_passed_over() -> None:
    records = [Record(offset, b"junk") for offset in range(4)]
    accepted = [accepted_record(records[1]), ForeignRecord(2, bytes(16))]
    log = without_foreign(Log(records), accepted)  # type: ignore[arg-type]
    assert [one.offset async for piece in log.read(0, 4) for one in piece] == [0, 2, 3]
    plain: Any = Log(records)
    assert without_foreign(plain, []) is plain


@pytest.mark.parametrize(
    "value",
    [
        b"",
        None,
        b"[]",
        b'{"command":{"offset":1e400}}',
        b'{"command":{"offset":1.5}}',
        b'{"command":{"offset":"7"}}',
        b'{"command":{"offset":-1}}',
        b'{"command":{"offset":9223372036854775807}}',
        b'{"command":{"offset":18446744073709551615}}',
        b"[" * 10_000,
    ],
)
def test_no_body_breaks_the_look_at_the_tail(value: bytes | None) -> None:
    with pytest.raises(RefusedError, match="waypost results foreign"):
        EmittedTail(-1).take([Record(3, value)], 0, [1])


def test_headers_without_a_value_do_not_break_the_look_at_the_tail() -> None:
    body = b'{"command":{"offset":1}}'
    with pytest.raises(RefusedError, match="waypost results foreign"):
        EmittedTail(-1).take([Record(3, body, [("ce_id", None), ("ce_type", None)])], 0, [1])
