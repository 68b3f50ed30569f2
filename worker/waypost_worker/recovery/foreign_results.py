"""Find the records of the results topic that no owner wrote, which an operator may have workers pass over.

The producer that wrote a record counts, not the record's content, because anybody can write what looks like a result.
Every producer id of an owner that can be after the stored results position is known, so an owner's result is never
treated as foreign. Ignoring it would answer its command a second time.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from waypost_worker.partition.acquire import LOOK_BACK
from waypost_worker.partition.foreign import accepted_record
from waypost_worker.partition.ports import FetchedResult, ForeignRecord, RefusedError
from waypost_worker.partition.tail import command_offset, fenced_producer
from waypost_worker.recovery.log_scan import is_fence


class StoredPosition(NamedTuple):
    """The database's knowledge of a partition's results. ``owners`` is as in an AcquiredState."""

    results_offset: int = 0
    owners: frozenset[int] | None = None
    accepted: Sequence[ForeignRecord] = ()


@dataclass(frozen=True, slots=True)
class ForeignResult:
    """A record that no owner wrote. ``producer_id`` is -1 if its producer has none. ``says`` is what it looks like."""

    record: ForeignRecord
    key: bytes | None
    value_bytes: int
    timestamp: int
    producer_id: int
    says: str
    accepted: bool


class FoundResults(NamedTuple):
    """The foreign records, and the offsets of those that may be an owner's though its fence record is gone."""

    foreign: list[ForeignResult]
    unsure: list[int]


def first_to_read(position: StoredPosition, start: int) -> int:
    """Return where to begin in a results log that starts at ``start``: nothing before it is in a worker's way."""
    if position.owners is None:
        return start
    return max(start, position.results_offset - LOOK_BACK)


async def find_foreign(
    pieces: AsyncIterator[Sequence[tuple[Any, int]]], position: StoredPosition, start: int
) -> FoundResults:
    """Look at records with their producer ids, from :func:`first_to_read` to the end of the log."""
    owners = set(position.owners or ())
    # Owners that the database does not name left their fence records. Without the ids in the database, only a log from
    # its beginning has all of them.
    all_known = position.owners is not None or start == 0
    accepted = frozenset(position.accepted)
    found = FoundResults([], [])
    async for piece in pieces:
        for record, producer_id in piece:
            if producer_id >= 0 and is_fence(record) and fenced_producer(record) == producer_id:
                owners.add(producer_id)
            if producer_id in owners:
                continue
            if producer_id >= 0 and not all_known:
                found.unsure.append(record.offset)
                continue
            known = accepted_record(record)
            found.foreign.append(
                ForeignResult(
                    known,
                    record.key,
                    len(record.value or b""),
                    record.timestamp,
                    producer_id,
                    _says(record),
                    known in accepted,
                )
            )
    return found


def _says(record: FetchedResult) -> str:
    if is_fence(record):
        return "a fence record"
    try:
        return f"a result of command {command_offset(record)}"
    except RefusedError:
        return "not a result"
