"""Build record batches byte by byte, including those that no client would write.

Follows the specifications of Kafka's format 2 and its four codecs, and imports neither aiokafka nor the code under
test. Sizes, counts and checksums are right unless a parameter says otherwise.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import cramjam
import google_crc32c

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 0x08, 0x10, 0x20, 0x40

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_CRC_AT: Final = 17
_CHECKED_FROM: Final = 21
NOW: Final = 1_750_000_000_000


# Records.


def varint(number: int, width: int = 0) -> bytes:
    """Return a zigzag varint, padded to ``width`` bytes."""
    return unsigned_varint(((number << 1) ^ (number >> 63)) & 0xFFFFFFFFFFFFFFFF, width)


def unsigned_varint(number: int, width: int = 0) -> bytes:
    """Return a varint without zigzag, padded to ``width`` bytes."""
    out = bytearray()
    while number > 0x7F or len(out) + 1 < width:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(content: bytes | None, size: int | bytes | None = None) -> bytes:
    """Return content preceded by its size, -1 for None. ``size`` replaces the size, or its bytes."""
    if size is None:
        size = -1 if content is None else len(content)
    return (size if isinstance(size, bytes) else varint(size)) + (content or b"")


def header(name: bytes = b"h", value: bytes | None = b"v", **sizes: int | bytes) -> bytes:
    """Return a header; ``name_size`` and ``value_size`` replace the right ones."""
    return sized(name, sizes.get("name_size")) + sized(value, sizes.get("value_size"))


def record(
    offset_delta: int | bytes = 0,
    key: bytes | None = b"key",
    value: bytes | None = b"value",
    headers: Sequence[bytes] = (),
    *,
    attributes: bytes = b"\0",
    timestamp_delta: int | bytes = 0,
    key_size: int | bytes | None = None,
    value_size: int | bytes | None = None,
    header_count: int | bytes | None = None,
    size: int | bytes | None = None,
    trailing: bytes = b"",
) -> bytes:
    """Return a record. Sizes and counts replace the right ones; ``trailing`` bytes follow its headers."""
    count = len(headers) if header_count is None else header_count
    body = b"".join(
        (
            attributes,
            timestamp_delta if isinstance(timestamp_delta, bytes) else varint(timestamp_delta),
            offset_delta if isinstance(offset_delta, bytes) else varint(offset_delta),
            sized(key, key_size),
            sized(value, value_size),
            count if isinstance(count, bytes) else varint(count),
            *headers,
            trailing,
        )
    )
    return sized(body, size)


def records(count: int, value: bytes | None = b"value", headers: Sequence[bytes] = ()) -> bytes:
    """Return well-formed records with the keys k0, k1, …"""
    return b"".join(record(number, b"k%d" % number, value, headers) for number in range(count))


def empty_records(count: int) -> bytes:
    """Return records without key, value and headers: as `record` does, four times as fast."""
    start, end = b"\0\0", record(0, None, None)[-3:]
    deltas = map(varint, range(count))
    return b"".join(bytes((2 * (5 + len(delta)),)) + start + delta + end for delta in deltas)


# Batches.


def batch(
    payload: bytes,
    count: int,
    codec: int = NONE,
    *,
    base_offset: int = 0,
    last_offset_delta: int | None = None,
    flags: int = 0,
    length: int | None = None,
    leader_epoch: int = -1,
    magic: int = 2,
    crc: int | None = None,
    base_timestamp: int = NOW,
    max_timestamp: int = NOW,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytes:
    """Return a batch of format 2 around a payload that is already compressed."""
    last = count - 1 if last_offset_delta is None else last_offset_delta
    out = bytearray(
        _HEADER.pack(
            base_offset,
            _HEADER.size - 12 + len(payload) if length is None else length,
            leader_epoch,
            magic,
            0,
            codec | flags,
            last,
            base_timestamp,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            count,
        )
    )
    out += payload
    return sealed(out, crc)


def sealed(raw: bytes | bytearray, crc: int | None = None) -> bytes:
    """Return the batch with the right checksum, or with ``crc``."""
    out = bytearray(raw)
    right = google_crc32c.value(bytes(out[_CHECKED_FROM:]))
    struct.pack_into(">I", out, _CRC_AT, right if crc is None else crc)
    return bytes(out)


def moved(raw: bytes, base_offset: int) -> bytes:
    """Return the batch at another offset, which its checksum does not cover."""
    return struct.pack(">q", base_offset) + raw[8:]


def message(
    value: bytes | None = b"value",
    key: bytes | None = b"key",
    *,
    magic: int = 1,
    codec: int = NONE,
    offset: int = 0,
    crc: int | None = None,
    timestamp: int = NOW,
) -> bytes:
    """Return a message of format 0 or 1, from before Kafka 0.11. With a codec, its value holds other messages."""

    def long(content: bytes | None) -> bytes:
        return struct.pack(">i", -1) if content is None else struct.pack(">i", len(content)) + content

    body = struct.pack(">bb", magic, codec) + (struct.pack(">q", timestamp) if magic else b"")
    body += long(key) + long(value)
    right = zlib.crc32(body)
    return struct.pack(">qiI", offset, len(body) + 4, right if crc is None else crc) + body


# gzip.


def gzip_member(
    data: bytes,
    *,
    crc: int | None = None,
    size: int | None = None,
    flags: int = 0,
    extra: bytes = b"",
    level: int = 6,
    method: int = 8,
    deflated: bytes | None = None,
    trailer: bool = True,
) -> bytes:
    """Return a member. ``extra`` holds the fields that ``flags`` announce; ``deflated`` replaces the data."""
    if deflated is None:
        packer = zlib.compressobj(level, zlib.DEFLATED, -15)
        deflated = packer.compress(data) + packer.flush()
    head = bytes((0x1F, 0x8B, method, flags, 0, 0, 0, 0, 0, 0xFF)) + extra
    tail = struct.pack(
        "<II",
        zlib.crc32(data) if crc is None else crc,
        (len(data) if size is None else size) & 0xFFFFFFFF,
    )
    return head + deflated + (tail if trailer else b"")


def header_crc(head: bytes) -> bytes:
    """Return the checksum of a gzip header, for flag 2."""
    return struct.pack("<H", zlib.crc32(head) & 0xFFFF)


# Snappy.

XERIAL: Final = b"\x82SNAPPY\0"


def snappy_raw(data: bytes, *, size: int | None = None, trailing: bytes = b"") -> bytes:
    """Return a raw block; ``size`` replaces its uncompressed size."""
    packed = bytes(cramjam.snappy.compress_raw(data))
    if size is not None:
        at = next(place for place, byte in enumerate(packed) if byte < 0x80) + 1
        packed = unsigned_varint(size) + packed[at:]
    return packed + trailing


def snappy_xerial(
    blocks: Iterable[bytes],
    *,
    version: int = 1,
    compatible: int = 1,
    sizes: Sequence[int] = (),
    trailing: bytes = b"",
) -> bytes:
    """Return a stream as snappy-java frames it, of compressed blocks; ``sizes`` replace the first sizes."""
    out = bytearray(XERIAL + struct.pack(">ii", version, compatible))
    for number, block in enumerate(blocks):
        out += struct.pack(">i", sizes[number] if number < len(sizes) else len(block)) + block
    return bytes(out) + trailing


# LZ4.

LZ4_MAGIC: Final = 0x184D2204
LZ4_LEGACY: Final = 0x184C2102
SKIPPABLE: Final = 0x184D2A50


def lz4_block(
    data: bytes, *, stored: bool = False, checksum: int | bool = False, size: int | None = None
) -> bytes:
    """Return a block of a frame with its size; ``stored`` leaves it uncompressed."""
    packed = data if stored else bytes(cramjam.lz4.compress_block(data, store_size=False))
    word = (len(packed) if size is None else size) | (0x80000000 if stored else 0)
    tail = b"" if checksum is False else struct.pack("<I", xxh32(packed) if checksum is True else checksum)
    return struct.pack("<I", word) + packed + tail


def lz4_frame(
    data: bytes,
    *,
    blocks: Iterable[bytes] | None = None,
    block_size: int = 4,
    version: int = 1,
    independent: bool = True,
    block_checksums: bool = False,
    content_size: int | None = None,
    content_checksum: int | bool = False,
    dictionary: int | None = None,
    reserved: int = 0,
    header_checksum: int | None = None,
    end_mark: bytes = b"\0\0\0\0",
    magic: int = LZ4_MAGIC,
) -> bytes:
    """Return a frame of the data, or of ``blocks``."""
    flags = version << 6 | independent << 5 | block_checksums << 4 | (content_size is not None) << 3
    flags |= (content_checksum is not False) << 2 | reserved | (dictionary is not None)
    descriptor = bytes((flags, block_size << 4))
    if content_size is not None:
        descriptor += struct.pack("<Q", content_size & 0xFFFFFFFFFFFFFFFF)
    if dictionary is not None:
        descriptor += struct.pack("<I", dictionary)
    right = xxh32(descriptor) >> 8 & 0xFF
    out = (
        struct.pack("<I", magic)
        + descriptor
        + bytes((right if header_checksum is None else header_checksum,))
    )
    if blocks is None:
        step = 1 << 8 + 2 * block_size
        blocks = [
            lz4_block(data[at : at + step], checksum=block_checksums) for at in range(0, len(data), step)
        ]
    out += b"".join(blocks) + end_mark
    if content_checksum is not False:
        out += struct.pack("<I", xxh32(data) if content_checksum is True else content_checksum)
    return out


def skippable(content: bytes = b"skip", number: int = 0) -> bytes:
    """Return a frame that LZ4 and Zstandard skip."""
    return struct.pack("<II", SKIPPABLE + number, len(content)) + content


# Zstandard.

ZSTD_MAGIC: Final = 0xFD2FB528


def zstd_raw_block(data: bytes, *, last: bool = False, size: int | None = None) -> bytes:
    """Return an uncompressed block."""
    return _zstd_block(0, len(data) if size is None else size, last) + data


def zstd_rle_block(byte: bytes, times: int, *, last: bool = False) -> bytes:
    """Return a block of one repeated byte: up to 128 KB in four bytes."""
    return _zstd_block(1, times, last) + byte


def _zstd_block(kind: int, size: int, last: bool) -> bytes:
    return struct.pack("<I", last | kind << 1 | size << 3)[:3]


def zstd_frame(
    data: bytes,
    *,
    blocks: Sequence[bytes] | None = None,
    content_size: int | None = None,
    window: int | None = 0x50,
    dictionary: int | None = None,
    checksum: int | bool = False,
    reserved: int = 0,
    magic: int = ZSTD_MAGIC,
) -> bytes:
    """Return a frame of raw blocks, or of ``blocks``.

    ``window`` is the byte of the window descriptor: exponent << 3 | mantissa, in steps from 1 KB. None makes a single
    segment, which has a content size.
    """
    single = window is None
    descriptor = single << 5 | reserved | (checksum is not False) << 2
    out = b""
    if window is not None:
        out += bytes((window,))
    if dictionary is not None:
        descriptor |= 3
        out += struct.pack("<I", dictionary)
    if content_size is not None or single:
        descriptor |= 3 << 6
        size = len(data) if content_size is None else content_size
        out += struct.pack("<Q", size & 0xFFFFFFFFFFFFFFFF)
    if blocks is None:
        step = 64 * 1024
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        blocks = [
            zstd_raw_block(piece, last=number == len(pieces) - 1) for number, piece in enumerate(pieces)
        ]
    out = struct.pack("<IB", magic, descriptor) + out + b"".join(blocks)
    if checksum is not False:
        out += struct.pack("<I", xxh64(data) & 0xFFFFFFFF if checksum is True else checksum)
    return out


def zstd_legacy_frame(data: bytes, version: int) -> bytes:
    """Return a frame of format 0.5, 0.6 or 0.7 with one raw block."""
    magic = 0xFD2FB520 + version
    kind, end = 1, b"\xc0\0\0"  # of the block types: compressed, raw, repeated, end
    size = len(data)
    block = bytes((kind << 6 | size >> 16 & 0x3F, size >> 8 & 0xFF, size & 0xFF)) + data
    if version == 5:
        return struct.pack("<IB", magic, 7) + block + end  # window of 2 ** (7 + 11)
    if version == 6:
        return struct.pack("<IB", magic, 6) + block + end  # window of 2 ** (6 + 12)
    return struct.pack("<IBB", magic, 0, 0x40) + block + end


# Checksums of LZ4 and Zstandard. Slow, for small data.

_P32: Final = (2654435761, 2246822519, 3266489917, 668265263, 374761393)
_P64: Final = (
    11400714785074694791,
    14029467366897019727,
    1609587929392839161,
    9650029242287828579,
    2870177450012600261,
)
_M32: Final = 0xFFFFFFFF
_M64: Final = 0xFFFFFFFFFFFFFFFF


def xxh32(data: bytes, seed: int = 0) -> int:
    """Return the XXH32 of the data."""
    one, two, three, four, five = _P32

    def turn(number: int, bits: int) -> int:
        return (number << bits | number >> 32 - bits) & _M32

    at, size = 0, len(data)
    if size >= 16:
        lanes = [seed + one + two, seed + two, seed, seed - one]
        while at + 16 <= size:
            for lane in range(4):
                word = int.from_bytes(data[at : at + 4], "little")
                lanes[lane] = turn(lanes[lane] + word * two & _M32, 13) * one & _M32
                at += 4
        total = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        total = seed + five
    total = total + size & _M32
    while at + 4 <= size:
        word = int.from_bytes(data[at : at + 4], "little")
        total = turn(total + word * three & _M32, 17) * four & _M32
        at += 4
    for byte in data[at:]:
        total = turn(total + byte * five & _M32, 11) * one & _M32
    total = (total ^ total >> 15) * two & _M32
    total = (total ^ total >> 13) * three & _M32
    return total ^ total >> 16


def xxh64(data: bytes, seed: int = 0) -> int:
    """Return the XXH64 of the data."""
    one, two, three, four, five = _P64

    def turn(number: int, bits: int) -> int:
        return (number << bits | number >> 64 - bits) & _M64

    def fold(lane: int, word: int) -> int:
        return turn(lane + word * two & _M64, 31) * one & _M64

    at, size = 0, len(data)
    if size >= 32:
        lanes = [seed + one + two & _M64, seed + two & _M64, seed, seed - one & _M64]
        while at + 32 <= size:
            for lane in range(4):
                lanes[lane] = fold(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        total = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _M64
        for lane in lanes:
            total = ((total ^ fold(0, lane)) * one + four) & _M64
    else:
        total = seed + five & _M64
    total = total + size & _M64
    while at + 8 <= size:
        total ^= fold(0, int.from_bytes(data[at : at + 8], "little"))
        total = (turn(total, 27) * one + four) & _M64
        at += 8
    if at + 4 <= size:
        total ^= int.from_bytes(data[at : at + 4], "little") * one & _M64
        total = (turn(total, 23) * two + three) & _M64
        at += 4
    for byte in data[at:]:
        total = turn((total ^ byte * five & _M64), 11) * one & _M64
    total = (total ^ total >> 33) * two & _M64
    total = (total ^ total >> 29) * three & _M64
    return total ^ total >> 32
