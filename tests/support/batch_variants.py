"""List record batches that no client would write, and the answer to each.

Whether a broker accepts them was measured with Kafka 4.3.1 on Java 25, on a topic with the settings of the command
topic. tests/integration/test_batch_variants.py repeats that; docs/measured/batch-variants.md shows the list.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import cramjam
from tests.support.hostile_batches import (
    CONTROL,
    DELETE_HORIZON,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    LZ4_LEGACY,
    NONE,
    SKIPPABLE,
    SNAPPY,
    TRANSACTIONAL,
    XERIAL,
    ZSTD,
    ZSTD_MAGIC,
    batch,
    empty_records,
    gzip_member,
    header,
    header_crc,
    lz4_block,
    lz4_frame,
    record,
    records,
    sized,
    skippable,
    snappy_raw,
    snappy_xerial,
    unsigned_varint,
    varint,
    zstd_frame,
    zstd_legacy_frame,
    zstd_raw_block,
    zstd_rle_block,
)

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS, UNDECODABLE, TOO_LARGE = "records", "undecodable", "too-large"
THEN: Final = "records, then undecodable"


@dataclass(frozen=True)
class Variant:
    """A record batch and the answer of our reader; None if no broker accepts it.

    A ``bomb`` must not be unpacked without a limit.
    """

    codec: int
    name: str
    raw: bytes
    answer: str | None
    bomb: bool = False

    @property
    def accepted(self) -> bool:
        """Whether a broker accepts it."""
        return self.answer is not None

    @property
    def title(self) -> str:
        """Name that no other variant has."""
        return f"{CODECS[self.codec] if self.codec < len(CODECS) else self.codec}: {self.name}"


def packed(codec: int, data: bytes) -> bytes:
    """Return the data compressed as clients do it."""
    if codec == GZIP:
        return gzip_member(data)
    if codec == SNAPPY:
        return snappy_xerial(
            bytes(cramjam.snappy.compress_raw(data[at : at + 32_768])) for at in range(0, len(data), 32_768)
        )
    if codec == LZ4:
        return lz4_frame(data)
    if codec == ZSTD:
        return bytes(cramjam.zstd.compress(data))
    return data


THREE: Final = records(3)
_ONE: Final = records(1)
_HALF: Final = len(THREE) // 2
_A, _B = THREE[:_HALF], THREE[_HALF:]


@cache
def variants() -> tuple[Variant, ...]:
    """Return all variants."""
    return tuple(_variants())


def _variants() -> Iterator[Variant]:
    yield from _gzip()
    yield from _snappy()
    yield from _lz4()
    yield from _zstd()
    for codec in (5, 6, 7):
        yield Variant(codec, "unknown codec", batch(THREE, 3, codec), None)
    for codec in range(len(CODECS)):
        yield from _structures(codec)
    yield from _bombs()


def _three(codec: int, payloads: dict[str, tuple[bytes, str | None]]) -> Iterator[Variant]:
    for name, (payload, answer) in payloads.items():
        yield Variant(codec, name, batch(payload, 3, codec), answer)


def _gzip() -> Iterator[Variant]:
    good, empty = gzip_member(THREE), gzip_member(b"")
    yield from _three(
        GZIP,
        {
            "one member": (good, RECORDS),
            "1 byte after the stream": (good + b"x", RECORDS),
            "20,000 bytes after the stream": (good + b"q" * 20_000, RECORDS),
            "zeros after the stream": (good + bytes(30), RECORDS),
            "half a magic number after the stream": (good + b"\x1f\x8b", RECORDS),
            "9 bytes of a header after the stream": (good + empty[:9], RECORDS),
            # A broker on Java 17 accepts the next two.
            "a header and nothing else after the stream": (good + empty[:10], None),
            "a header and garbage after the stream": (good + empty[:10] + b"\xff" * 30, None),
            "records over two members": (gzip_member(_A) + gzip_member(_B), RECORDS),
            "an empty member before": (empty + good, RECORDS),
            "5 empty members after": (good + empty * 5, RECORDS),
            "5,000 empty members before": (empty * 5000 + good, UNDECODABLE),
            "5,000 empty members after": (good + empty * 5000, RECORDS),
            "an extra member with a record": (good + gzip_member(_ONE), None),
            "wrong checksum": (gzip_member(THREE, crc=1), None),
            "wrong size": (gzip_member(THREE, size=1), None),
            "no trailer": (gzip_member(THREE, trailer=False), None),
            "half a trailer": (good[:-4], None),
            "header with a right checksum": (
                gzip_member(THREE, flags=2, extra=header_crc(gzip_member(b"", flags=2)[:10])),
                RECORDS,
            ),
            "header with a wrong checksum": (gzip_member(THREE, flags=2, extra=b"\1\2"), None),
            "header with extra field, name and comment": (
                gzip_member(THREE, flags=0x1D, extra=b"\3\0abcname\0comment\0"),
                RECORDS,
            ),
            "reserved header flags": (gzip_member(THREE, flags=0xE0), RECORDS),
            "another method than deflate": (gzip_member(THREE, method=7), None),
            "zlib instead of gzip": (zlib.compress(THREE), None),
            "nothing": (b"", None),
            "a member that holds nothing": (empty, None),
        },
    )


def _snappy() -> Iterator[Variant]:
    def block(data: bytes) -> bytes:
        return bytes(cramjam.snappy.compress_raw(data))

    whole, two, empty = [block(THREE)], [block(_A), block(_B)], block(b"")
    raw = snappy_raw(THREE)
    yield from _three(
        SNAPPY,
        {
            "raw": (raw, RECORDS),
            "raw, a byte after it": (raw + b"x", None),
            "raw, claims one byte more": (snappy_raw(THREE, size=len(THREE) + 1), None),
            "raw, size in 5 bytes": (unsigned_varint(len(THREE), 5) + raw[1:], RECORDS),
            "raw, size in 6 bytes": (unsigned_varint(len(THREE), 6) + raw[1:], None),
            "xerial": (snappy_xerial(whole), RECORDS),
            "xerial, two blocks": (snappy_xerial(two), RECORDS),
            "xerial, version 2": (snappy_xerial(whole, version=2), RECORDS),
            "xerial, version -1": (snappy_xerial(whole, version=-1), RECORDS),
            "xerial, compatible with 2": (snappy_xerial(whole, compatible=2), RECORDS),
            "xerial, 1 byte after it": (snappy_xerial(whole, trailing=b"x"), RECORDS),
            "xerial, 3 bytes after it": (snappy_xerial(whole, trailing=b"xxx"), RECORDS),
            "xerial, block of size 0 after it": (snappy_xerial([*whole, b""]), None),
            "xerial, block of a negative size after it": (snappy_xerial(whole, trailing=b"\xff" * 4), None),
            "xerial, block that holds nothing after it": (snappy_xerial([*whole, empty]), RECORDS),
            "xerial, block that holds nothing between": (snappy_xerial([two[0], empty, two[1]]), RECORDS),
            "xerial, garbage after an empty block": (snappy_xerial([*whole, empty, b"garbage"]), None),
            "xerial, two streams": (snappy_xerial(two[:1]) + snappy_xerial(two[1:]), RECORDS),
            "xerial, two streams of other versions": (
                snappy_xerial(two[:1]) + snappy_xerial(two[1:], version=2),
                RECORDS,
            ),
            "xerial, header of a stream after it": (snappy_xerial(whole) + snappy_xerial([]), RECORDS),
            "xerial, half a header after it": (snappy_xerial(whole) + XERIAL[:4], None),
            "xerial, block cut off": (snappy_xerial(whole)[:-1], None),
            "xerial, 5,000 empty blocks before": (snappy_xerial([empty] * 5000 + whole), UNDECODABLE),
            "xerial, header only": (snappy_xerial([]), None),
            "Snappy's own framing": (bytes(cramjam.snappy.compress(THREE)), None),
            "nothing": (b"", None),
        },
    )


def _lz4() -> Iterator[Variant]:
    good, whole = lz4_frame(THREE), lz4_block(THREE)
    empty, stored_empty = lz4_block(b""), b"\0\0\0\x80"
    checked = {"content_checksum": True, "block_checksums": True, "content_size": len(THREE)}
    yield from _three(
        LZ4,
        {
            "one frame": (good, RECORDS),
            "all checksums and the size": (lz4_frame(THREE, **checked), RECORDS),  # type: ignore[arg-type]
            "wrong content checksum": (lz4_frame(THREE, content_checksum=1), RECORDS),
            "no room for the content checksum": (lz4_frame(THREE, content_checksum=1)[:-2], None),
            "wrong block checksum": (
                lz4_frame(THREE, block_checksums=True, blocks=[lz4_block(THREE, checksum=5)]),
                None,
            ),
            "wrong header checksum": (lz4_frame(THREE, header_checksum=0), None),
            "content size one too small": (lz4_frame(THREE, content_size=len(THREE) - 1), RECORDS),
            "content size one too large": (lz4_frame(THREE, content_size=len(THREE) + 1), RECORDS),
            "content size 0": (lz4_frame(THREE, content_size=0), RECORDS),
            "content size 2^62": (lz4_frame(THREE, content_size=2**62), RECORDS),
            "linked blocks": (lz4_frame(THREE, independent=False), None),
            "dictionary id": (lz4_frame(THREE, dictionary=7), None),
            "reserved flag": (lz4_frame(THREE, reserved=2), None),
            "version 0": (lz4_frame(THREE, version=0), None),
            "blocks of 4 MB": (lz4_frame(THREE, block_size=7), RECORDS),
            "block size 3": (lz4_frame(THREE, block_size=3, blocks=[whole]), None),
            "stored block": (lz4_frame(THREE, blocks=[lz4_block(THREE, stored=True)]), RECORDS),
            "no end mark": (lz4_frame(THREE, end_mark=b""), None),
            "half an end mark": (lz4_frame(THREE, end_mark=b"\0\0"), None),
            "stored block of size 0 as end mark": (lz4_frame(THREE, end_mark=stored_empty), RECORDS),
            "stored block of size 0 between": (
                lz4_frame(THREE, blocks=[lz4_block(_A), stored_empty, lz4_block(_B)]),
                None,
            ),
            "1 byte after the frame": (good + b"x", RECORDS),
            "100 bytes after the frame": (good + b"x" * 100, RECORDS),
            "records over two frames": (lz4_frame(_A) + lz4_frame(_B), None),
            "a frame with a record after it": (good + lz4_frame(_ONE), RECORDS),
            "an empty frame after": (good + lz4_frame(b""), RECORDS),
            "an empty frame before": (lz4_frame(b"") + good, None),
            "skippable frame after": (good + skippable(), RECORDS),
            "skippable frame cut off after": (good + skippable()[:-1], RECORDS),
            "skippable frame before": (skippable() + good, None),
            "empty block at the end": (lz4_frame(THREE, blocks=[whole, empty]), RECORDS),
            "empty block instead of the end mark": (
                lz4_frame(THREE, blocks=[whole, empty], end_mark=b""),
                RECORDS,
            ),
            "empty block, a record after it": (
                lz4_frame(THREE, blocks=[whole, empty, lz4_block(_ONE)]),
                RECORDS,
            ),
            "empty block, garbage after it": (
                lz4_frame(THREE, blocks=[whole, empty, b"gar"], end_mark=b""),
                RECORDS,
            ),
            "empty block before": (lz4_frame(THREE, blocks=[empty, whole]), RECORDS),
            "empty block between": (lz4_frame(THREE, blocks=[lz4_block(_A), empty, lz4_block(_B)]), None),
            "5,000 empty blocks after": (lz4_frame(THREE, blocks=[whole, *[empty] * 5000]), RECORDS),
            "frame of the legacy format": (struct.pack("<I", LZ4_LEGACY) + whole, None),
            "nothing": (b"", None),
        },
    )


def _zstd() -> Iterator[Variant]:
    good, empty = zstd_frame(THREE), zstd_frame(b"")
    yield from _three(
        ZSTD,
        {
            "one frame": (good, RECORDS),
            "as libzstd writes it": (packed(ZSTD, THREE), RECORDS),
            "single segment": (zstd_frame(THREE, window=None), RECORDS),
            "right checksum": (zstd_frame(THREE, checksum=True), RECORDS),
            "wrong checksum": (zstd_frame(THREE, checksum=1), None),
            "no room for the checksum": (zstd_frame(THREE, checksum=1)[:-4], None),
            "right content size": (zstd_frame(THREE, content_size=len(THREE)), RECORDS),
            "content size one too large": (zstd_frame(THREE, content_size=len(THREE) + 1), None),
            "content size one too small": (zstd_frame(THREE, content_size=len(THREE) - 1), None),
            "content size 2^62": (zstd_frame(THREE, content_size=2**62), None),
            "dictionary 7": (zstd_frame(THREE, dictionary=7), None),
            "dictionary 0": (zstd_frame(THREE, dictionary=0), RECORDS),
            "reserved bit": (zstd_frame(THREE, reserved=8), None),
            "unused bit": (zstd_frame(THREE, reserved=16), RECORDS),
            "window of 128 MB": (zstd_frame(THREE, window=17 << 3), RECORDS),
            "window of 144 MB": (zstd_frame(THREE, window=17 << 3 | 1), None),
            "window of 2 GB": (zstd_frame(THREE, window=21 << 3), None),
            "records over two frames": (zstd_frame(_A) + zstd_frame(_B), RECORDS),
            "empty frames before and after": (empty * 3 + good + empty * 3, RECORDS),
            "5,000 empty frames before": (empty * 5000 + good, UNDECODABLE),
            "an extra frame with a record": (good + zstd_frame(_ONE), None),
            "skippable frames before, between, after": (
                skippable() + zstd_frame(_A) + skippable(b"") + zstd_frame(_B) + skippable(b"x" * 20_000),
                RECORDS,
            ),
            "skippable frame cut off after": (good + skippable()[:-1], RECORDS),
            "skippable frame after it claims 2 GB": (
                good + struct.pack("<II", SKIPPABLE, 2**31 - 1) + b"abc",
                RECORDS,
            ),
            "magic number of a skippable frame after": (good + struct.pack("<I", SKIPPABLE), RECORDS),
            "1 byte after the frame": (good + b"x", None),
            "100 bytes after the frame": (good + b"x" * 100, None),
            "3 bytes of the magic number after": (good + struct.pack("<I", ZSTD_MAGIC)[:3], RECORDS),
            "magic number after": (good + struct.pack("<I", ZSTD_MAGIC), RECORDS),
            "frame header after": (good + zstd_frame(_ONE)[:6], RECORDS),
            "frame cut off after": (good + zstd_frame(_ONE)[:-1], None),
            "no last block": (zstd_frame(THREE, blocks=[zstd_raw_block(THREE)]), None),
            "block of the second frame claims to be longer": (
                zstd_frame(_A) + zstd_frame(_B, blocks=[zstd_raw_block(_B, last=True, size=len(_B) + 3)]),
                THEN,
            ),
            "empty blocks": (
                zstd_frame(
                    THREE,
                    blocks=[
                        zstd_raw_block(b""),
                        zstd_raw_block(THREE),
                        zstd_rle_block(b"x", 0),
                        zstd_raw_block(b"", last=True),
                    ],
                ),
                RECORDS,
            ),
            "block of the reserved type": (
                zstd_frame(THREE, blocks=[zstd_raw_block(THREE), b"\7\0\0"]),
                None,
            ),
            "format 0.5": (zstd_legacy_frame(THREE, 5), UNDECODABLE),
            "format 0.6": (zstd_legacy_frame(THREE, 6), UNDECODABLE),
            "format 0.7": (zstd_legacy_frame(THREE, 7), UNDECODABLE),
            "no magic number": (good[4:], None),
            "nothing": (b"", None),
        },
    )


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
