"""List record batches that no client would write, and the answer to each.

Whether a broker accepts them was measured with Kafka 4.3.1 on Java 25, on a topic with the settings of the command
topic. tests/integration/test_batch_variants.py repeats that; docs/measured/batch-variants.md shows the list.
"""

import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

import cramjam
from tests.support.codec_variants import gzip_variants, lz4_variants, snappy_variants, zstd_variants
from tests.support.hostile_batches import (
    CONTROL,
    DELETE_HORIZON,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    NONE,
    SNAPPY,
    TRANSACTIONAL,
    ZSTD,
    batch,
    empty_records,
    gzip_member,
    header,
    lz4_block,
    lz4_frame,
    record,
    sized,
    snappy_raw,
    snappy_xerial,
    varint,
    zstd_frame,
    zstd_raw_block,
    zstd_rle_block,
)
from tests.support.variant import CODECS, RECORDS, THEN, THREE, TOO_LARGE, UNDECODABLE, Variant, packed


@cache
def variants() -> tuple[Variant, ...]:
    """Return all variants."""
    return tuple(_variants())


def _variants() -> Iterator[Variant]:
    yield from gzip_variants()
    yield from snappy_variants()
    yield from lz4_variants()
    yield from zstd_variants()
    for codec in (5, 6, 7):
        yield Variant(codec, "unknown codec", batch(THREE, 3, codec), None)
    for codec in range(len(CODECS)):
        yield from _structures(codec)
    yield from _bombs()


def _structures(codec: int) -> Iterator[Variant]:
    """Yield batches with wrong records and headers, in one codec.

    A broker ignores the sizes of compressed records and the offsets of uncompressed ones.
    """
    compressed = codec != NONE
    odd_size = UNDECODABLE if compressed else None
    wide = b"\x80\x80\x80\x80\x10"  # 2^32 before zigzag, of which Java keeps the lower 32 bits

    def make(name: str, data: bytes, count: int, answer: str | None, **header: int) -> Variant:
        return Variant(codec, name, batch(packed(codec, data), count, codec, **header), answer)

    one = {
        "record claims to be longer": (record(size=100), odd_size),
        "record claims to be shorter": (record(size=5), odd_size),
        "record size 0": (record(size=0), odd_size),
        "record size -1": (record(size=-1), odd_size),
        "record size 2^31 - 1": (record(size=2**31 - 1), odd_size),
        "record size in 5 bytes": (sized(record()[1:], varint(len(record()) - 1, 5)), RECORDS),
        "bytes after the headers": (record(trailing=b"abc"), None),
        "key null": (record(key=None), RECORDS),
        "value null": (record(value=None), RECORDS),
        "key size -2": (record(key=None, key_size=-2), RECORDS),
        "key size -2^31": (record(key=None, key_size=-(2**31)), RECORDS),
        "value size -100": (record(value=None, value_size=-100), RECORDS),
        "key size beyond the end": (record(key_size=1000), None),
        "value size 2^31 - 1": (record(value_size=2**31 - 1), None),
        "key size 2^31, which wraps to 0": (record(key=b"", key_size=wide), UNDECODABLE),
        "value size 2^31 + 1, which wraps to 1": (
            record(value=b"v", value_size=b"\x82\x80\x80\x80\x10"),
            UNDECODABLE,
        ),
        "header count 2^31, which wraps to 0": (record(header_count=wide), UNDECODABLE),
        "value size in 5 bytes": (record(value=b"v", value_size=varint(1, 5)), RECORDS),
        "value size in 6 bytes": (record(value=b"v", value_size=varint(1, 6)), None),
        "timestamp in 10 bytes": (record(timestamp_delta=varint(0, 10)), RECORDS),
        "timestamp in 11 bytes": (record(timestamp_delta=varint(0, 11)), None),
        "timestamp with bits above 64": (record(timestamp_delta=b"\x80" * 9 + b"\x7e"), RECORDS),
        "attributes 0x7f": (record(attributes=b"\x7f"), RECORDS),
        "attributes 0x80": (record(attributes=b"\x80"), UNDECODABLE),
        "two headers of one name": (record(headers=[header(), header()]), RECORDS),
        "header without name": (record(headers=[header(b"")]), RECORDS),
        "header value null": (record(headers=[header(value=None)]), RECORDS),
        "header value size -5": (record(headers=[header(value=None, value_size=-5)]), RECORDS),
        "header name size -1": (record(headers=[header(b"", name_size=-1)]), None),
        "header name not UTF-8": (record(headers=[header(b"\xff\xfe")]), RECORDS),
        "one header fewer than claimed": (record(headers=[header()], header_count=2), None),
        "one header more than claimed": (record(headers=[header()] * 2, header_count=1), None),
        "header count -1": (record(header_count=-1), None),
        "header count 2^31 - 1": (record(header_count=2**31 - 1), None),
        "last header without a value": (record(headers=[sized(b"h")]), None),
    }
    for name, (data, answer) in one.items():
        yield make(name, data, 1, answer)
    broken_second = record(0) + record(1, size=3) + record(2)
    longer = record(0, size=len(record(0)) + 5) + record(1) + record(2)
    yield make("the first record claims part of the second", longer, 3, odd_size)
    yield make("the second record is malformed", broken_second, 3, THEN if compressed else None)
    for name, data, answer in (
        ("offsets 0, 0, 0", record(0) * 3, THEN),
        ("offsets 2, 1, 0", record(2) + record(1) + record(0), UNDECODABLE),
        ("offsets 5, 6, 7", record(5) + record(6) + record(7), UNDECODABLE),
        ("offsets -1, 1, 2", record(-1) + record(1) + record(2), UNDECODABLE),
        ("offsets 0, 1, 2^31 - 1", record(0) + record(1) + record(2**31 - 1), THEN),
        ("offsets 0, 1, -2^31", record(0) + record(1) + record(-(2**31)), THEN),
    ):
        yield make(name, data, 3, None if compressed else answer)
    yield make("offset 2^31, which wraps to 0", record(wide) + record(1) + record(2), 3, UNDECODABLE)
    for name, data, count, fields in (
        ("a byte after the records", THREE + b"x", 3, {}),
        ("count 2 of 3", THREE, 2, {}),
        ("count 4 of 3", THREE, 4, {}),
        ("count 0", THREE, 0, {}),
        ("count -1", THREE, -1, {}),
        ("no records, count 0", b"", 0, {}),
        ("no records, count 3", b"", 3, {}),
        ("count 3, last offset 5", THREE, 3, {"last_offset_delta": 5}),
        ("count 3, last offset 0", THREE, 3, {"last_offset_delta": 0}),
        ("count 3, last offset 2^31 - 1", THREE, 3, {"last_offset_delta": 2**31 - 1}),
        ("count 2^31 - 1", THREE, 2**31 - 1, {}),
        ("control batch", THREE, 3, {"flags": CONTROL}),
        ("transactional, no producer id", THREE, 3, {"flags": TRANSACTIONAL}),
        ("producer id without sequence", THREE, 3, {"producer_id": 7, "producer_epoch": 0}),
        ("base offset 5", THREE, 3, {"base_offset": 5}),
        ("format 0 in the header", THREE, 3, {"magic": 0}),
        ("format 1 in the header", THREE, 3, {"magic": 1}),
        ("format 3 in the header", THREE, 3, {"magic": 3}),
        ("wrong checksum of the batch", THREE, 3, {"crc": 1}),
        ("length 0", THREE, 3, {"length": 0}),
        ("length -1", THREE, 3, {"length": -1}),
    ):
        yield make(name, data, count, None, **fields)
    for name, fields in (
        ("timestamps -1", {"base_timestamp": -1, "max_timestamp": -1}),
        ("wrong last timestamp", {"max_timestamp": 5}),
        ("first timestamp 2^63 - 1", {"base_timestamp": 2**63 - 1}),
        ("delete horizon flag", {"flags": DELETE_HORIZON}),
        ("unused flags", {"flags": 0x7F80}),
        ("producer id -5", {"producer_id": -5, "producer_epoch": 0, "base_sequence": 0}),
        ("leader epoch 99", {"leader_epoch": 99}),
    ):
        yield make(name, THREE, 3, RECORDS, **fields)
    yield make("log append time flag", THREE, 3, None, flags=LOG_APPEND_TIME)


_BOMB: Final = 300_000_000
_MB: Final = 1_000_000


def _bombs() -> Iterator[Variant]:
    # One record with a value of zeros.
    head = record(value_size=_BOMB, value=b"", header_count=b"", size=0)
    size = len(head) - 1 + _BOMB + 1
    head = varint(size) + head[1:]
    step = 128 * 1024
    rle = [zstd_rle_block(b"\0", min(step, _BOMB - at)) for at in range(0, _BOMB, step)]
    blocks = [zstd_raw_block(head), *rle, zstd_raw_block(b"\0", last=True)]
    yield Variant(
        ZSTD, "a record of 300 MB", batch(zstd_frame(b"", blocks=blocks), 1, ZSTD), TOO_LARGE, bomb=True
    )
    sizes = zstd_frame(b"", blocks=blocks, content_size=len(head) + _BOMB + 1)
    yield Variant(ZSTD, "a record of 300 MB, size declared", batch(sizes, 1, ZSTD), TOO_LARGE, bomb=True)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(_MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    deflated += zeros * (_BOMB // _MB) + packer.compress(b"\0") + packer.flush()
    checksum = zlib.crc32(head)
    for _ in range(_BOMB // _MB):
        checksum = zlib.crc32(bytes(_MB), checksum)
    checksum = zlib.crc32(b"\0", checksum)
    stream = gzip_member(b"", deflated=deflated, crc=checksum, size=len(head) + _BOMB + 1)
    yield Variant(GZIP, "a record of 300 MB", batch(stream, 1, GZIP), TOO_LARGE, bomb=True)

    count = 50
    big = record(value_size=count * 4 * 1024 * 1024, value=b"", header_count=b"", size=0)
    big = varint(len(big) - 1 + count * 4 * 1024 * 1024 + 1) + big[1:]
    zeros = lz4_block(bytes(4 * 1024 * 1024))
    frame = lz4_frame(b"", block_size=7, blocks=[lz4_block(big), *[zeros] * count, lz4_block(b"\0")])
    yield Variant(LZ4, "a record of 200 MB", batch(frame, 1, LZ4), TOO_LARGE, bomb=True)
    hidden = lz4_frame(b"", block_size=7, blocks=[lz4_block(THREE), lz4_block(b""), *[zeros] * count])
    yield Variant(LZ4, "200 MB after an empty block", batch(hidden, 3, LZ4), TOO_LARGE, bomb=True)
    count = 19
    big = record(value_size=count * _MB, value=b"", header_count=b"", size=0)
    big = varint(len(big) - 1 + count * _MB + 1) + big[1:]
    zeros = bytes(cramjam.snappy.compress_raw(bytes(_MB)))
    stream = snappy_xerial([bytes(cramjam.snappy.compress_raw(big)), *[zeros] * count, snappy_raw(b"\0")])
    yield Variant(SNAPPY, "a record of 19 MB", batch(stream, 1, SNAPPY), TOO_LARGE, bomb=True)

    yield Variant(
        ZSTD,
        "300,000 empty records",
        batch(packed(ZSTD, empty_records(300_000)), 300_000, ZSTD),
        RECORDS,
    )
    many = 2_000_000
    heads = record(headers=[bytes(2 * many)], header_count=many)
    yield Variant(ZSTD, "2,000,000 empty headers", batch(packed(ZSTD, heads), 1, ZSTD), TOO_LARGE, bomb=True)
    many = 450_000
    heads = record(headers=[bytes(2 * many)], header_count=many)
    yield Variant(NONE, "450,000 empty headers", batch(heads, 1), RECORDS)
