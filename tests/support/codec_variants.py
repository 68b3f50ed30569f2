"""Batches of three records whose compressed form is unusual or damaged, by codec."""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import cramjam
from tests.support.hostile_batches import (
    GZIP,
    LZ4,
    LZ4_LEGACY,
    SKIPPABLE,
    SNAPPY,
    XERIAL,
    ZSTD,
    ZSTD_MAGIC,
    batch,
    gzip_member,
    header_crc,
    lz4_block,
    lz4_frame,
    records,
    skippable,
    snappy_raw,
    snappy_xerial,
    unsigned_varint,
    zstd_frame,
    zstd_legacy_frame,
    zstd_raw_block,
    zstd_rle_block,
)
from tests.support.variant import (
    RECORDS,
    THEN,
    THREE,
    UNDECODABLE,
    Variant,
    packed,
)

_ONE: Final = records(1)
_HALF: Final = len(THREE) // 2
_A, _B = THREE[:_HALF], THREE[_HALF:]


def _three(codec: int, payloads: dict[str, tuple[bytes, str | None]]) -> Iterator[Variant]:
    for name, (payload, answer) in payloads.items():
        yield Variant(codec, name, batch(payload, 3, codec), answer)


def gzip_variants() -> Iterator[Variant]:
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


def snappy_variants() -> Iterator[Variant]:
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


def lz4_variants() -> Iterator[Variant]:
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


def zstd_variants() -> Iterator[Variant]:
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
