"""A reader answers for every offset of a fetched log once, whatever was written to it, and within bounds."""

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.support.batch_variants import variants
from tests.support.hostile_batches import (
    CONTROL,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    NONE,
    NOW,
    SNAPPY,
    TRANSACTIONAL,
    ZSTD,
    batch,
    gzip_member,
    header,
    message,
    moved,
    record,
    records,
    snappy_raw,
    zstd_frame,
    zstd_raw_block,
    zstd_rle_block,
)
from tests.support.record_pieces import answer, assert_tiled
from tests.support.variant import THREE, Variant, packed

from waypost.kafka import decompression
from waypost.kafka import records as record_parser
from waypost.kafka.decompression import MissingCodecError
from waypost.kafka.record_batches import (
    UNPACKED_BYTES,
    Damaged,
    Piece,
    Records,
    Unreadable,
    decode_batches,
)

VARIANTS = list(variants())
BASE = 1000


def decoded(raw: bytes, position: int = 0, **options: Any) -> list[Piece]:
    return list(decode_batches(raw, position, **options))


def shape(pieces: Sequence[Piece]) -> list[tuple[str, int, int]]:
    return [
        (type(piece).__name__, piece.first, piece.last) for piece in pieces if not isinstance(piece, Damaged)
    ]


# Every variant.


def test_no_two_variants_have_the_same_name() -> None:
    titles = [variant.title for variant in VARIANTS]
    assert len(titles) == len(set(titles)) > 400


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.title)
def test_every_offset_of_a_hostile_batch_is_answered_once(variant: Variant) -> None:
    before, after = batch(THREE, 3, base_offset=BASE - 3), batch(THREE, 3, base_offset=0)
    raw = moved(variant.raw, BASE)
    pieces = decoded(raw, BASE)
    assert_tiled(pieces, raw, BASE)
    if not variant.accepted:
        return
    assert answer(pieces) == variant.answer
    # Its neighbors are read as if it were not there.
    end = pieces[-1].last + 1  # type: ignore[union-attr]
    among = decoded(before + raw + moved(after, end), BASE - 3)
    assert shape(among) == [("Records", BASE - 3, BASE - 1), *shape(pieces), ("Records", end, end + 2)]


# The variant left out is one record with too many headers for a command: aiokafka reads it, Python says too-large.
@pytest.mark.parametrize(
    "variant",
    [variant for variant in VARIANTS if variant.name != "450,000 empty headers"],
    ids=lambda variant: variant.title,
)
def test_the_answer_does_not_depend_on_aiokafkas_extension(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = decoded(variant.raw)
    monkeypatch.setattr(record_parser, "DefaultRecordBatch", None)
    slow = decoded(variant.raw)
    assert answer(fast) == answer(slow)
    assert plain(fast) == plain(slow)


def plain(pieces: Sequence[Piece]) -> list[tuple[Any, ...]]:
    return [
        (one.offset, one.timestamp, one.timestamp_type, one.key, one.value, list(one.headers))
        for piece in pieces
        if isinstance(piece, Records)
        for one in piece.records
    ]


# Bounds.


def test_no_piece_of_any_variant_takes_long() -> None:
    slowest = 0.0, ""
    for variant in VARIANTS:
        pieces = decode_batches(variant.raw, 0)
        while True:
            begin = time.process_time()
            piece = next(pieces, None)
            slowest = max(slowest, (time.process_time() - begin, variant.title))
            if piece is None:
                break
    assert slowest[0] < 1.0, slowest  # 0.05 s on a quiet machine


def test_no_variant_takes_memory_without_a_bound() -> None:
    # In its own process, because building the batches takes memory, too. getrusage() would show the parent's peak.
    program = """
import pickle, re, sys
from waypost.kafka.record_batches import decode_batches
def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])
raws = pickle.load(sys.stdin.buffer)
before = peak()
for raw in raws:
    for _ in decode_batches(raw, 0):
        pass
print(peak() - before)
"""
    raws = [variant.raw for variant in VARIANTS]
    assert sum(variant.bomb for variant in VARIANTS) > 6  # which hold more than 1.3 GB
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(raws), capture_output=True, check=True
    )
    assert int(done.stdout) < 96 * 1024  # KB


def test_a_lack_of_memory_does_not_condemn_a_batch() -> None:
    program = """
import resource
from tests.support.variant import THREE
from tests.support.hostile_batches import ZSTD, batch, zstd_frame
from waypost.kafka.record_batches import decode_batches
raw = batch(zstd_frame(THREE, window=17 << 3), 3, ZSTD)
assert next(decode_batches(raw, 0)).last == 2
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, 2 * (used + 40_000_000,))
try:
    print(next(decode_batches(raw, 0)))
except MemoryError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("A record batch can't be unpacked: "), done.stdout


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_the_limit_is_what_a_batch_unpacks_to(codec: int) -> None:
    data = records(500, bytes(200))
    raw = batch(packed(codec, data), 500, codec)
    assert answer(decoded(raw, limit=len(data))) == "records"
    (piece,) = decoded(raw, limit=len(data) - 1)
    assert isinstance(piece, Unreadable)
    assert (piece.first, piece.last, piece.reason) == (0, 499, "too-large")
    assert piece.message == f"The batch can't be unpacked: it holds more than {len(data) - 1:,} bytes."
    assert bytes(piece.batch) == raw


def test_an_uncompressed_batch_is_bounded_by_its_topic_alone() -> None:
    data = records(20, bytes(1_000_000))
    assert len(data) > UNPACKED_BYTES
    assert answer(decoded(batch(data, 10))) == "records"


def test_a_window_of_128_mb_does_not_take_128_mb() -> None:
    blocks = [zstd_raw_block(THREE), zstd_rle_block(b"\0", 1000, last=True)]
    raw = batch(zstd_frame(b"", blocks=blocks, window=17 << 3), 3, ZSTD)
    assert answer(decoded(raw)) == "records"


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        (SNAPPY, snappy_raw(THREE, size=2**31 - 1)),
        (ZSTD, zstd_frame(THREE, content_size=2**62)),
        (ZSTD, zstd_frame(THREE, window=None, content_size=2**31)),
    ],
    ids=["snappy", "zstd", "zstd, single segment"],
)
def test_a_claimed_size_is_never_allocated(codec: int, payload: bytes) -> None:
    (piece,) = decoded(batch(payload, 3, codec))
    assert isinstance(piece, Unreadable)
    assert piece.last == 2


# Records.


def test_a_large_batch_is_read_in_pieces_of_consecutive_offsets() -> None:
    data = records(12_000, bytes(200))
    pieces = decoded(batch(packed(ZSTD, data), 12_000, ZSTD))
    assert len(pieces) > 5
    assert [one.offset for piece in pieces if isinstance(piece, Records) for one in piece.records] == list(
        range(12_000)
    )


def test_a_large_batch_is_read_up_to_its_first_malformed_record() -> None:
    data = records(9000, bytes(200)) + record(9000, value=bytes(200), size=1) + record(9001)
    pieces = decoded(batch(packed(GZIP, data), 9002, GZIP))
    assert answer(pieces) == "records, then undecodable"
    last = pieces[-1]
    assert isinstance(last, Unreadable)
    assert (last.first, last.last) == (9000, 9001)
    assert last.message == (
        "The batch can't be read from offset 9000 on: a record is malformed or claims the offset of another."
    )


def test_a_record_with_too_many_headers_is_answered_alone() -> None:
    many = 600_000
    bad = record(1, headers=[bytes(2 * many)], header_count=many)
    data = record(0, value=bytes(100)) + bad + record(2, value=bytes(100))
    pieces = decoded(batch(packed(ZSTD, data), 3, ZSTD))
    assert shape(pieces) == [("Records", 0, 0), ("Unreadable", 1, 1), ("Records", 2, 2)]
    middle = pieces[1]
    assert isinstance(middle, Unreadable)
    assert (middle.reason, middle.message) == ("too-large", "The record has more than 32,768 headers.")


def test_header_names_that_are_not_utf8_are_shown_as_escapes() -> None:
    data = record(0, headers=[header(b"\xff\xfedd", b"1"), header(b"other", b"2")])
    (piece,) = decoded(batch(data, 1))
    assert isinstance(piece, Records)
    assert list(piece.records[0].headers) == [("\\xff\\xfedd", b"1"), ("other", b"2")]


@pytest.mark.parametrize("read", [True, False], ids=["aiokafka", "slowly"])
def test_timestamps_are_the_brokers_if_the_topic_is_set_to_that(
    read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not read:
        monkeypatch.setattr(record_parser, "DefaultRecordBatch", None)
    data = record(0, timestamp_delta=5) + record(1, timestamp_delta=-7)
    taken = decoded(batch(data, 2, max_timestamp=NOW + 100))
    appended = decoded(batch(data, 2, max_timestamp=NOW + 100, flags=LOG_APPEND_TIME))
    assert [row[1:3] for row in plain(taken)] == [(NOW + 5, 0), (NOW - 7, 0)]
    assert [row[1:3] for row in plain(appended)] == [(NOW + 100, 1)] * 2


# Offsets.


def test_reading_begins_in_the_middle_of_a_batch() -> None:
    raw = batch(records(5), 5, base_offset=10) + batch(records(5), 5, base_offset=15)
    assert shape(decoded(raw, 13)) == [("Records", 13, 14), ("Records", 15, 19)]
    assert [row[0] for row in plain(decoded(raw, 13))] == list(range(13, 20))
    assert shape(decoded(raw, 17)) == [("Records", 17, 19)]
    assert decoded(raw, 20) == []


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    whole = batch(records(5), 5)
    for size in range(len(whole)):
        assert shape(decoded(whole + moved(whole, 5)[:size])) == [("Records", 0, 4)]


def test_missing_offsets_are_holes() -> None:
    raw = batch(THREE, 3, base_offset=10) + batch(THREE, 3, base_offset=20)
    assert shape(decoded(raw, 5)) == [
        ("Hole", 5, 9),
        ("Records", 10, 12),
        ("Hole", 13, 19),
        ("Records", 20, 22),
    ]


def test_a_compacted_batch_has_its_holes_inside() -> None:
    data = record(2) + record(3) + record(6)
    raw = batch(data, 3, last_offset_delta=9, base_offset=100)
    assert shape(decoded(raw, 100)) == [
        ("Hole", 100, 101),
        ("Records", 102, 103),
        ("Hole", 104, 105),
        ("Records", 106, 106),
        ("Hole", 107, 109),
    ]
    assert shape(decoded(raw, 103)) == [
        ("Records", 103, 103),
        ("Hole", 104, 105),
        ("Records", 106, 106),
        ("Hole", 107, 109),
    ]
    assert shape(decoded(batch(b"", 0, last_offset_delta=4), 0)) == [("Hole", 0, 4)]


def test_transactions_that_were_aborted_are_hidden_from_readers_of_committed_records() -> None:
    def written(producer: int, offset: int, flags: int = TRANSACTIONAL) -> bytes:
        return batch(
            records(2),
            2,
            base_offset=offset,
            producer_id=producer,
            producer_epoch=0,
            base_sequence=0,
            flags=flags,
        )

    def marker(producer: int, offset: int, kind: int) -> bytes:
        data = record(0, key=bytes((0, 0, 0, kind)), value=bytes(6))
        return batch(
            data,
            1,
            base_offset=offset,
            producer_id=producer,
            producer_epoch=0,
            flags=TRANSACTIONAL | CONTROL,
        )

    abort, commit = 0, 1
    raw = b"".join(
        (
            written(7, 0),
            written(8, 2),
            written(9, 4, flags=0),
            marker(7, 6, abort),
            marker(8, 7, commit),
            written(7, 8),
            marker(7, 10, commit),
        )
    )
    seen = [("Records", 0, 1), ("Records", 2, 3), ("Records", 4, 5)]
    ends = [
        ("Hidden", 6, 6),
        ("Hidden", 7, 7),
        ("Records", 8, 9),
        ("Hidden", 10, 10),
    ]
    assert shape(decoded(raw)) == [*seen, *ends]
    assert shape(decoded(raw, aborted=[(7, 0)])) == [("Hidden", 0, 1), *seen[1:], *ends]
    # From the middle of a transaction, with another one of the same producer aborted later.
    assert shape(decoded(raw, 1, aborted=[(7, 8), (7, 0)])) == [
        ("Hidden", 1, 1),
        *seen[1:],
        *ends[:2],
        ("Hidden", 8, 9),
        ends[3],
    ]


def test_an_aborted_batch_is_hidden_and_never_unpacked() -> None:
    raw = batch(b"no gzip", 3, GZIP, producer_id=7, producer_epoch=0, base_sequence=0, flags=TRANSACTIONAL)
    assert shape(decoded(raw, aborted=[(7, 0)])) == [("Hidden", 0, 2)]
    assert answer(decoded(raw, aborted=[])) == "undecodable"


# Formats and damage.


@pytest.mark.parametrize("form", [0, 1])
def test_messages_of_old_formats_are_undecodable(form: int) -> None:
    inner = b"".join(message(magic=form, offset=number) for number in range(3))
    raw = (
        message(magic=form, offset=10)
        + message(magic=form, offset=11)
        + message(gzip_member(inner), None, magic=form, codec=GZIP, offset=14)
        + batch(THREE, 3, base_offset=15)
    )
    pieces = decoded(raw, 10)
    assert shape(pieces) == [
        ("Unreadable", 10, 10),
        ("Unreadable", 11, 11),
        ("Unreadable", 12, 14),
        ("Records", 15, 17),
    ]
    first = pieces[0]
    assert isinstance(first, Unreadable)
    assert first.reason == "undecodable"
    assert first.message == f"The record has format {form}, of Kafka 0.10 or older."
    assert shape(decoded(raw, 13))[0] == ("Unreadable", 13, 14)
    assert shape(decoded(raw, 8))[0] == ("Hole", 8, 9)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (batch(THREE, 3, crc=1), "a batch has a wrong checksum"),
        (message(crc=1), "a message has a wrong checksum"),
        (batch(THREE, 3, magic=3), "record format 3 is not known here"),
        (batch(THREE, 3, length=0), "a batch is too short for its header"),
        (batch(THREE, 3, length=-1), "a batch is too short for its header"),
        (batch(THREE, 3, length=-(2**31)), "a batch is too short for its header"),
        (batch(THREE, 3, length=48), "a batch is too short for its header"),
    ],
    ids=["checksum", "old checksum", "format", "length 0", "length -1", "least length", "length 48"],
)
def test_reading_ends_at_damage(raw: bytes, why: str) -> None:
    good = batch(THREE, 3)
    pieces = decoded(good + moved(raw, 3) + moved(good, 6))
    assert shape(pieces) == [("Records", 0, 2)]
    assert pieces[-1] == Damaged(3, f"The log can't be read at offset 3: {why}.")


def test_a_negative_range_of_offsets_still_takes_one() -> None:
    raw = batch(THREE, 3, last_offset_delta=-5, base_offset=10)
    assert shape(decoded(raw, 10)) == [("Records", 10, 10)]
    assert shape(decoded(batch(b"", 3, last_offset_delta=-5, base_offset=10), 10)) == [("Unreadable", 10, 10)]


# Installation and laziness.


@pytest.mark.parametrize(("codec", "name"), [(SNAPPY, "Snappy"), (LZ4, "LZ4"), (ZSTD, "Zstandard")])
def test_a_missing_codec_is_an_error_and_not_bad_input(
    codec: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "cramjam", None)
    with pytest.raises(MissingCodecError) as caught:
        decoded(batch(packed(codec, THREE), 3, codec))
    assert str(caught.value) == (
        f"A batch is compressed with {name}, so it can't be read here. Nothing was skipped. "
        "Install the codec: pip install cramjam"
    )
    for other in (NONE, GZIP):
        assert answer(decoded(batch(packed(other, THREE), 3, other))) == "records"


def test_batches_are_unpacked_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[int] = []
    real: Callable[..., Any] = decompression.unpack

    def counted(codec: int, payload: memoryview, limit: int) -> Any:
        unpacked.append(codec)
        return real(codec, payload, limit)

    monkeypatch.setattr("waypost.kafka.record_batches.unpack", counted)
    raw = batch(packed(LZ4, THREE), 3, LZ4) + moved(batch(packed(ZSTD, THREE), 3, ZSTD), 3)
    pieces = decode_batches(raw, 0)
    assert unpacked == []
    next(pieces)
    assert unpacked == [LZ4]
    next(pieces)
    assert unpacked == [LZ4, ZSTD]
    assert next(pieces, None) is None
