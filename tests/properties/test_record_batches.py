"""Whatever bytes a record batch has: no exception, and each of its offsets answered once."""

from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.batch_variants import variants
from tests.support.hostile_batches import GZIP, LZ4, NONE, SNAPPY, ZSTD, batch, header, moved, record, sealed
from tests.support.record_pieces import assert_tiled
from tests.support.variant import packed

from waypost.kafka import records as record_parser
from waypost.kafka.record_batches import Damaged, Hole, Piece, Records, Unreadable, decode_batches
from waypost.kafka.records import PlainRecord

BASES = [variant.raw for variant in variants() if len(variant.raw) < 2000 and variant.raw[16] == 2]
HEADER_BYTES, CHECKED_FROM = 61, 21
INT64 = st.integers(-(2**63), 2**63 - 1)


class Change(NamedTuple):
    """One edit of a batch: at a fraction of its length, some bytes are replaced by others."""

    place: float
    remove: int
    insert: bytes


CHANGES = st.builds(
    Change,
    st.floats(0, 1),
    st.sampled_from([0, 1, 1, 1, 2, 4, 9]),
    st.one_of(
        st.binary(min_size=1, max_size=1),
        st.sampled_from(
            [b"\0", b"\x7f", b"\x80", b"\xff", b"\x80\x80\x80\x80\x10", b"\xff" * 9 + b"\1", b""]
        ),
        st.binary(max_size=9),
    ),
)


def changed(raw: bytes, changes: list[Change], whole: bool) -> bytes:
    """Edit the batch after its header, or the whole of what its checksum covers, and make the checksum right."""
    out = bytearray(raw)
    begin = CHECKED_FROM if whole else HEADER_BYTES
    for change in changes:
        at = begin + int(change.place * max(0, len(out) - begin))
        out[at : at + change.remove] = change.insert
    if len(out) < HEADER_BYTES:
        out += bytes(HEADER_BYTES - len(out))
    out[8:12] = (len(out) - 12).to_bytes(4, "big")
    return sealed(out)


def pieces_of(raw: bytes, position: int, **options: Any) -> list[Piece]:
    return list(decode_batches(raw, position, **options))


def plain(pieces: list[Piece]) -> list[tuple[Any, ...]]:
    return [
        (one.offset, one.timestamp, one.timestamp_type, one.key, one.value, list(one.headers))
        for piece in pieces
        if isinstance(piece, Records)
        for one in piece.records
    ]


@given(st.sampled_from(BASES), st.lists(CHANGES, min_size=1, max_size=4), st.booleans(), st.integers(0, 20))
@settings(max_examples=500, deadline=None)
def test_a_changed_batch_is_answered_offset_by_offset(
    base: bytes, changes: list[Change], whole: bool, position: int
) -> None:
    raw = moved(changed(base, changes, whole), 10)
    pieces = pieces_of(raw, position, limit=100_000)
    assert_tiled(pieces, raw, position)
    assert not any(isinstance(piece, Damaged) for piece in pieces)
    # From any position, the same answers for what is left.
    assert plain(pieces) == [row for row in plain(pieces_of(raw, 0, limit=100_000)) if row[0] >= position]


@given(st.sampled_from(BASES), st.lists(CHANGES, min_size=1, max_size=4), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_changed_batch_is_read_the_same_with_and_without_aiokafkas_extension(
    base: bytes, changes: list[Change], whole: bool
) -> None:
    raw = changed(base, changes, whole)
    fast = pieces_of(raw, 0, limit=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_parser, "DefaultRecordBatch", None)
        slow = pieces_of(raw, 0, limit=100_000)
    assert plain(fast) == plain(slow)
    assert [(type(piece), piece.first) for piece in fast] == [(type(piece), piece.first) for piece in slow]


@given(st.sampled_from(BASES), st.sampled_from(BASES), st.integers(0, 60))
@settings(deadline=None)
def test_batches_are_answered_one_by_one(one: bytes, other: bytes, cut: int) -> None:
    first = moved(one, 0)
    alone = pieces_of(first, 0)
    if not alone or isinstance(alone[-1], Damaged):
        return
    end = alone[-1].last + 1
    second = moved(other, end)
    both = pieces_of(first + second + second[:cut], 0)
    assert plain(both) == plain(alone) + plain(pieces_of(second, end))


@given(
    st.binary(max_size=300), st.integers(0, 2**62), st.none() | st.lists(st.tuples(INT64, INT64), max_size=3)
)
@example(b"\0" * 17, 0, None)
@example(b"\xff" * 100, 5, [(1, 1)])
def test_any_bytes_are_answered_without_an_exception(
    raw: bytes, position: int, aborted: list[tuple[int, int]] | None
) -> None:
    pieces = pieces_of(raw, position, aborted=aborted)
    assert_tiled(pieces, raw, position)


contents = st.none() | st.binary(max_size=40)
names = st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace"))
rows = st.tuples(contents, contents, st.lists(st.tuples(names, contents), max_size=3), st.integers(-9, 9))


@given(
    st.lists(rows, min_size=1, max_size=12),
    st.sampled_from([NONE, GZIP, SNAPPY, LZ4, ZSTD]),
    st.integers(0, 2**40),
    st.integers(0, 12),
)
def test_well_formed_records_are_read_as_they_were_written(
    written: list[tuple[Any, ...]], codec: int, base: int, skipped: int
) -> None:
    data = b"".join(
        record(number, key, value, [header(*pair) for pair in headers], timestamp_delta=delta)
        for number, (key, value, headers, delta) in enumerate(written)
    )
    raw = batch(packed(codec, data), len(written), codec, base_offset=base, base_timestamp=1000)
    expected = [
        (base + number, 1000 + delta, 0, key, value, [(name.decode(), one) for name, one in headers])
        for number, (key, value, headers, delta) in enumerate(written)
    ]
    assert plain(pieces_of(raw, base + skipped)) == expected[skipped:]


@given(
    st.lists(rows, min_size=1, max_size=6),
    st.lists(CHANGES, max_size=2),
    INT64,
    INT64,
    st.booleans(),
)
@settings(max_examples=300)
def test_the_slow_way_reads_what_aiokafka_reads(
    written: list[tuple[Any, ...]], changes: list[Change], base: int, timestamp: int, appended: bool
) -> None:
    data = b"".join(
        record(number, key, value, [header(*pair) for pair in headers], timestamp_delta=delta)
        for number, (key, value, headers, delta) in enumerate(written)
    )
    flags = 8 if appended else 0
    whole = batch(data, len(written), base_offset=base, base_timestamp=timestamp, flags=flags)
    raw = changed(whole, changes, False)
    fast = record_parser.read_at_once(raw)
    slow = [one for piece in record_parser.read_in_pieces(raw) for one in piece]
    if fast is not None:
        assert all(isinstance(one, PlainRecord) for one in slow)
        assert [(o.offset, o.timestamp, o.timestamp_type, o.key, o.value, o.headers) for o in fast] == [
            (o.offset, o.timestamp, o.timestamp_type, o.key, o.value, o.headers) for o in slow
        ]


@given(
    st.lists(st.integers(-3, 12), min_size=1, max_size=8),
    st.integers(-2, 12),
    st.integers(0, 14),
)
@example([6, 7], 6, 0)
def test_offsets_that_records_claim_are_taken_in_order_only(
    claimed: list[int], last: int, position: int
) -> None:
    data = b"".join(record(offset) for offset in claimed)
    raw = batch(data, len(claimed), last_offset_delta=last)
    pieces = pieces_of(raw, position)
    assert_tiled(pieces, raw, position)
    whole = len(claimed) == last + 1
    valid, expected = [], 0
    for offset in claimed:
        if offset < expected or offset > max(last, 0) or (whole and offset != expected):
            break
        valid.append(offset)
        expected = offset + 1
    assert [row[0] for row in plain(pieces)] == [offset for offset in valid if offset >= position]
    intact = len(valid) == len(claimed)
    rest = [piece for piece in pieces if not isinstance(piece, Records)]
    assert all(isinstance(piece, Hole) for piece in (rest if intact else rest[:-1]))
    if not intact and max(last, 0) >= position and valid[-1:] != [max(last, 0)]:
        assert isinstance(rest[-1], Unreadable)
