"""The largest result of every type, made from the limits by the worker's own encoder, fits into the results topic."""

from functools import cache
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from tests.unit.test_traceparent import GOOD

from waypost.model.commands import ImportItem
from waypost.model.decisions import (
    Accepted,
    AuthorityConfigured,
    Cleared,
    Configured,
    DefaultsConfigured,
    Deleted,
    Duplicate,
    Erased,
    Expired,
    Imported,
    Pinned,
    Placed,
    Rejected,
    RolledBack,
    SessionKept,
    Skipped,
    Unpinned,
)
from waypost.model.index import Entry
from waypost.model.limits import (
    MAX_CHECKPOINT_ID,
    MAX_CLAIMED_NUMBER,
    MAX_COMMAND_ID,
    MAX_DATA_BYTES,
    MAX_IMPORT_ITEMS,
    MAX_METADATA_BYTES,
    MAX_NAME,
    MAX_SESSION_ID,
)
from waypost.model.retention import MAX_CHECKPOINTS_BOUNDS, RetentionPolicy
from waypost.wire.envelope import Envelope
from waypost.wire.event_types import RESULT_TYPES, EventType
from waypost.wire.id_lists import MAX_LIST_BYTES, fits_in_full
from waypost_worker.kafka.produce import MAX_BATCH_BYTES
from waypost_worker.partition.emitter import EMIT_BYTES, pieces
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import Fence, ResultRecord

MIB = 1024 * 1024
OFFSET = 2**63 - 1
PARTITION = 2**31 - 1
LATEST = 253_402_300_799_999_999
# Four bytes each in UTF-8, as many in JSON; a quote takes two in JSON and one in a header.
WIDE = "\U0001f642"
SESSION = WIDE * MAX_SESSION_ID
ENCODER = ResultEncoder("t" * 249, PARTITION)  # the longest name that Kafka takes
ENVELOPE = Envelope(WIDE * MAX_COMMAND_ID, "t", SESSION, LATEST, LATEST, GOOD, b"")
# Numbers of 18 digits are beyond what imports may claim, and no two of them follow each other.
ENTRY = Entry(
    10**18 - 1, WIDE * MAX_NAME, LATEST, LATEST, OFFSET, ENVELOPE.id, WIDE * MAX_CHECKPOINT_ID, pinned=True
)
CONTENT = (
    b'{"a":"' + b"x" * (MAX_DATA_BYTES - 8) + b'"}',
    b'{"a":"' + b"x" * (MAX_METADATA_BYTES - 8) + b'"}',
)


def numbers(count: int) -> tuple[int, ...]:
    """The most digits, and no runs."""
    return tuple(10**18 - 3 - 2 * index for index in range(count))[::-1]


MOST = numbers(MAX_CHECKPOINTS_BOUNDS[1] + MAX_IMPORT_ITEMS)
# The longest list that is still written in full, and the most ranges: one of the two is the largest.
LISTS = {
    "in full": numbers(MAX_LIST_BYTES // 823),
    "in ranges": MOST,
}


def imported(removed: tuple[int, ...]) -> Imported:
    placed = tuple(
        Placed(number, "imported", None, ImportItem("x", "n", 0, b"{}"))
        for number in removed[:MAX_IMPORT_ITEMS]
    )
    return Imported(placed, removed)


def accepted(decision: Accepted, about: Any = None) -> ResultRecord:
    return ENCODER.accepted(ENVELOPE, OFFSET, decision, about)


@cache
def largest(removed: tuple[int, ...]) -> dict[EventType, ResultRecord]:
    """The largest result of each type, with these checkpoints removed."""
    number = ENTRY.number
    policy = RetentionPolicy(10_000, 10_000, 10_000, 3_155_760_000 * 1_000_000 - 1)
    return {
        EventType.CREATED: ENCODER.created(ENVELOPE, OFFSET, ENTRY, CONTENT, removed),
        EventType.PINNED: accepted(Pinned(number, removed)),
        EventType.UNPINNED: accepted(Unpinned(number, removed)),
        EventType.DELETED: accepted(Deleted(number, removed)),
        EventType.CLEARED: accepted(Cleared(removed)),
        EventType.ROLLED_BACK: accepted(RolledBack(number, removed), (ENTRY, CONTENT)),
        EventType.IMPORTED: accepted(imported(removed)),
        EventType.CONFIGURED: accepted(Configured(policy, removed)),
        EventType.EXPIRED: accepted(Expired(LATEST, LATEST, removed)),
        EventType.ERASED: accepted(Erased(LATEST, removed)),
        EventType.KEPT: ENCODER.kept(ENVELOPE, OFFSET, SessionKept(LATEST, LATEST)),
        EventType.DEFAULTS_CONFIGURED: ENCODER.for_partition(ENVELOPE, OFFSET, DefaultsConfigured(policy)),
        EventType.SKIPPED: ENCODER.for_partition(ENVELOPE, OFFSET, Skipped(OFFSET, WIDE * 1000)),
        EventType.AUTHORITY_CONFIGURED: ENCODER.for_partition(
            ENVELOPE, OFFSET, AuthorityConfigured(bytes(32))
        ),
        EventType.DUPLICATE: ENCODER.duplicate(ENVELOPE, OFFSET, Duplicate(number)),
        EventType.REJECTED: ENCODER.rejected(
            Rejected("invalid-envelope", WIDE * 1_000_000),
            OFFSET,
            LATEST,
            key=SESSION.encode(),
            session_id=SESSION,
            command_id=ENVELOPE.id,
            traceparent=GOOD,
        ),
        EventType.ACQUIRED: ENCODER.acquired(2**63 - 1, OFFSET, Fence(2**63 - 1, 2**15 - 1)),
    }


def size_in_kafka(record: ResultRecord) -> int:
    """Bytes of a record batch that holds this result alone, as the worker's producer makes it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=1,
        producer_epoch=1,
        base_sequence=0,
        batch_size=MAX_BATCH_BYTES,
    )
    assert builder.append(0, LATEST // 1000, record.key, record.value, list(record.headers)) is not None
    return len(builder.build())


def test_the_two_kinds_of_lists_are_what_they_are_meant_to_be() -> None:
    session_id = f'"{SESSION}"'.encode()
    longer = numbers(len(LISTS["in full"]) + 10)
    assert fits_in_full(session_id, LISTS["in full"])
    assert not fits_in_full(session_id, longer)
    assert not fits_in_full(session_id, MOST)
    assert len(MOST) == 20_000
    assert MOST[0] > MAX_CLAIMED_NUMBER


@pytest.mark.parametrize("kind", RESULT_TYPES)
@pytest.mark.parametrize("lists", LISTS)
def test_the_largest_result_fits(kind: EventType, lists: str) -> None:
    made = largest(LISTS[lists])
    assert made.keys() == set(RESULT_TYPES)
    record = made[kind]
    assert dict(record.headers)["ce_type"] == kind.wire
    assert size_in_kafka(record) < MAX_BATCH_BYTES // 4


@pytest.mark.parametrize("kind", RESULT_TYPES)
@pytest.mark.parametrize("lists", LISTS)
def test_as_many_of_the_largest_results_as_are_appended_together_fit(kind: EventType, lists: str) -> None:
    record = largest(LISTS[lists])[kind]
    (piece, *_) = pieces([(offset, record) for offset in range(EMIT_BYTES // len(record.value) + 2)])
    assert len(piece) * size_in_kafka(record) < MAX_BATCH_BYTES


def test_what_a_result_can_hold_is_what_makes_it_large() -> None:
    sizes = {
        kind: max(size_in_kafka(largest(removed)[kind]) for removed in LISTS.values())
        for kind in RESULT_TYPES
    }
    data = MAX_DATA_BYTES + MAX_METADATA_BYTES
    assert data + MAX_LIST_BYTES - 1_000 < sizes[EventType.CREATED] < data + MAX_LIST_BYTES + 12_000
    assert data + MAX_LIST_BYTES - 1_000 < sizes[EventType.ROLLED_BACK] < data + MAX_LIST_BYTES + 12_000
    assert 2 * MAX_LIST_BYTES - 2_000 < sizes[EventType.IMPORTED] < 2 * MAX_LIST_BYTES + 12_000
    for kind in (
        EventType.CLEARED,
        EventType.CONFIGURED,
        EventType.PINNED,
        EventType.UNPINNED,
        EventType.DELETED,
    ):
        assert MAX_LIST_BYTES - 1_000 < sizes[kind] < MAX_LIST_BYTES + 12_000
    for kind in EventType.REJECTED, EventType.DUPLICATE, EventType.DEFAULTS_CONFIGURED, EventType.ACQUIRED:
        assert sizes[kind] < 24_000
    assert max(sizes.values()) < 2.1 * MIB
