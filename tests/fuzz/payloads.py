"""Payloads of compressed batches, valid and invalid ones for each codec."""

import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final

import cramjam
from tests.fuzz.commands import some_creates
from tests.support.hostile_batches import (
    GZIP,
    LZ4,
    NOW,
    SNAPPY,
    ZSTD,
    batch,
    gzip_member,
    header_crc,
    lz4_block,
    lz4_frame,
    skippable,
    snappy_raw,
    snappy_xerial,
    unsigned_varint,
    zstd_frame,
    zstd_legacy_frame,
    zstd_raw_block,
    zstd_rle_block,
)

INT32: Final = [-(2**31), -1000, -2, -1, 0, 1, 2, 3, 5, 100, 2**16, 2**31 - 1]
INT64: Final = [-(2**63), -(2**62), -2, -1, 0, 1, 5, NOW, 10 * NOW, 2**53, 2**62, 2**63 - 1]
_ENDS: Final = [
    b"",
    b"x",
    bytes(30),
    b"\x1f\x8b",
    b"\xff" * 30,
    b"q" * 20_000,
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
]


# Payloads of one codec. They hold good records, so what is read of them counts.


def _payload(
    chance: Random, codec: int, make: Callable[[Random, bytes], tuple[str, bytes]]
) -> tuple[str, bytes]:
    count = chance.choice([1, 3, 10])
    data = some_creates(chance, count)
    said, payload = make(chance, data)
    if chance.random() < 0.3:
        payload, said = payload + chance.choice(_ENDS), f"{said}, bytes after it"
    if chance.random() < 0.1:
        payload, said = payload[: chance.randrange(len(payload) + 1)], f"{said}, cut off"
    return said, batch(payload, count, codec)


def _split(chance: Random, data: bytes, most: int = 4) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(most)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def gzip_payload(chance: Random) -> tuple[str, bytes]:
    """Return a batch in gzip with unusual members."""
    return _payload(chance, GZIP, _gzip)


def _gzip(chance: Random, data: bytes) -> tuple[str, bytes]:
    out, said = b"", "members"
    for part in _split(chance, data):
        given: dict[str, Any] = {"level": chance.choice([0, 1, 6, 9])}
        match chance.randrange(15):
            case 0:
                given["crc"], said = chance.randrange(2**32), "wrong checksum"
            case 1:
                given["size"], said = chance.choice(INT64) & 0xFFFFFFFF, "wrong size"
            case 2:
                flags = chance.randrange(256)
                given |= {"flags": flags, "extra": _gzip_fields(chance, flags)}
                said = f"flags {flags:#x}"
            case 3:
                given["trailer"], said = False, "no trailer"
            case 4:
                given["method"], said = chance.choice([0, 7, 8, 9, 255]), "a method"
            case _:
                pass
        out += gzip_member(part, **given)
        if chance.random() < 0.2:
            out, said = out + gzip_member(b"") * chance.choice([1, 5, 4096, 4200]), "empty members"
    return said, out


def _gzip_fields(chance: Random, flags: int) -> bytes:
    size = chance.choice([0, 1, 5, 60_000])
    fields = b""
    if flags & 4:
        fields += struct.pack("<H", size if chance.random() < 0.8 else 65_535) + b"e" * size
    if flags & 8:
        fields += b"n" * size + b"\0"
    if flags & 16:
        fields += b"c" * size + (b"\0" if chance.random() < 0.8 else b"")
    if flags & 2:
        head = bytes((0x1F, 0x8B, 8, flags, 0, 0, 0, 0, 0, 0xFF)) + fields
        fields += header_crc(head) if chance.random() < 0.8 else b"zz"
    return fields


def snappy_payload(chance: Random) -> tuple[str, bytes]:
    """Return a batch in Snappy with unusual blocks."""
    return _payload(chance, SNAPPY, _snappy)


def _snappy(chance: Random, data: bytes) -> tuple[str, bytes]:
    if chance.random() < 0.3:
        size = len(data) + chance.choice([0, 0, -1, 1, 100])
        return "a raw block", snappy_raw(data, size=max(0, size), trailing=chance.choice([b"", b"", b"x"]))
    blocks = [bytes(cramjam.snappy.compress_raw(part)) for part in _split(chance, data)]
    said = "blocks"
    if chance.random() < 0.3:
        empty = bytes(cramjam.snappy.compress_raw(b""))
        blocks[0:0], said = [empty] * chance.choice([1, 4000, 4096, 5000]), "empty blocks"
    if chance.random() < 0.3:
        # Small: a block that claims gigabytes ends a broker with its memory.
        blocks.append(unsigned_varint(chance.choice([0, 1, 100_000])) + b"\0x")
        said = "a block with a wrong size"
    sizes = [chance.choice(INT32)] if chance.random() < 0.1 else []
    version, compatible = chance.choice([(1, 1), (1, 1), (0, 0), (2, 1), (2**31 - 1, -1)])
    stream = snappy_xerial(blocks, version=version, compatible=compatible, sizes=sizes)
    if chance.random() < 0.1:
        stream, said = stream + snappy_xerial([]), "two streams"
    return said, stream


def lz4_payload(chance: Random) -> tuple[str, bytes]:
    """Return a batch in LZ4 with an unusual frame."""
    return _payload(chance, LZ4, _lz4)


def _lz4(chance: Random, data: bytes) -> tuple[str, bytes]:
    given: dict[str, Any] = {}
    said = "a frame"
    for _ in range(chance.choice([0, 1, 1, 2])):
        match chance.randrange(11):
            case 0:
                given["block_size"], said = chance.randrange(8), "a block size"
            case 1:
                given["version"], said = chance.randrange(4), "a version"
            case 2:
                given["independent"], said = False, "dependent blocks"
            case 3:
                given["block_checksums"], said = True, "block checksums"
            case 4:
                given["content_size"], said = chance.choice([len(data), *INT64]), "a content size"
            case 5:
                given["content_checksum"], said = chance.choice([True, 1]), "a content checksum"
            case 6:
                given["dictionary"], said = chance.choice([0, 7]), "a dictionary"
            case 7:
                given["header_checksum"], said = chance.randrange(256), "a header checksum"
            case 8:
                given["end_mark"], said = chance.choice([b"", b"\0\0", bytes(8)]), "an end mark"
            case 9:
                given["reserved"], said = 2, "a reserved bit"
            case _:
                given["blocks"], said = _lz4_blocks(chance, data), "odd blocks"
    return said, lz4_frame(data, **given)


def _lz4_blocks(chance: Random, data: bytes) -> list[bytes]:
    blocks = [lz4_block(part, stored=chance.random() < 0.5) for part in _split(chance, data) if part]
    match chance.randrange(4):
        case 0:
            blocks.insert(chance.randrange(len(blocks) + 1), lz4_block(b""))
        case 1:
            blocks.append(lz4_block(b"x", size=chance.choice([0, 2, 65_536, 2**31 - 1])))
        case 2:
            blocks += [lz4_block(b"x", stored=True)] * chance.choice([4000, 5000])
        case _:
            blocks.append(struct.pack("<I", 5) + chance.randbytes(5))
    return blocks


def zstd_payload(chance: Random) -> tuple[str, bytes]:
    """Return a batch in Zstandard with unusual frames."""
    return _payload(chance, ZSTD, _zstd)


def _zstd(chance: Random, data: bytes) -> tuple[str, bytes]:
    out, said = b"", "frames"
    for part in _split(chance, data):
        given: dict[str, Any] = {}
        match chance.randrange(16):
            case 0:
                given["content_size"], said = (
                    chance.choice([len(part), len(part) + 1, 2**62, 0]),
                    "a content size",
                )
            case 1:
                given["window"], said = (
                    chance.choice([None, 0, 0x50, 17 << 3, 17 << 3 | 1, 21 << 3, 255]),
                    "a window",
                )
            case 2:
                given["dictionary"], said = chance.choice([0, 7, 2**32 - 1]), "a dictionary"
            case 3:
                given["checksum"], said = chance.choice([True, 1]), "a checksum"
            case 4:
                given["reserved"], said = chance.choice([8, 16]), "a reserved bit"
            case 5:
                said = "odd blocks"
                given["blocks"] = [zstd_raw_block(part), _zstd_block(chance), zstd_raw_block(b"", last=True)]
            case 6:
                frame = zstd_legacy_frame(part[:60_000], chance.choice([5, 6, 7]))
                out, said = out + frame, "an old format"
                continue
            case _:
                pass
        out += bytes(cramjam.zstd.compress(part)) if chance.random() < 0.3 else zstd_frame(part, **given)
        if chance.random() < 0.2:
            out, said = out + skippable(chance.randbytes(9)) * chance.choice([1, 2000]), "skippable frames"
        if chance.random() < 0.1:
            out, said = out + zstd_frame(b"") * chance.choice([1, 1000, 1100]), "empty frames"
    return said, out


def _zstd_block(chance: Random) -> bytes:
    return chance.choice(
        [
            zstd_raw_block(b""),
            zstd_rle_block(b"x", 0),
            zstd_rle_block(b"\0", 128 * 1024),
            zstd_rle_block(b"\0", 128 * 1024 + 1),
            zstd_raw_block(b"abc", size=2**21 - 1),
            b"\7\0\0",
            struct.pack("<I", 2 << 1 | 5 << 3)[:3] + chance.randbytes(5),
        ]
    )
