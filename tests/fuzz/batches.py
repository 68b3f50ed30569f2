"""Record batches: headers, records and payloads of every codec, changed at a few places.

A broker refuses most of them. What it accepts, a reader has to answer offset by offset.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, Final

import cramjam
from tests.fuzz.commands import some_creates
from tests.support.batch_variants import packed, variants
from tests.support.hostile_batches import (
    CONTROL,
    DELETE_HORIZON,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    NONE,
    NOW,
    SNAPPY,
    TRANSACTIONAL,
    XERIAL,
    ZSTD,
    batch,
    gzip_member,
    header,
    header_crc,
    lz4_block,
    lz4_frame,
    record,
    sealed,
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

_HEADER_BYTES: Final = 61
_MB: Final = 1_000_000
_MOST_CLAIMED: Final = 50 * _MB
_INT32: Final = [-(2**31), -1000, -2, -1, 0, 1, 2, 3, 5, 100, 2**16, 2**31 - 1]
_INT64: Final = [-(2**63), -(2**62), -2, -1, 0, 1, 5, NOW, 10 * NOW, 2**53, 2**62, 2**63 - 1]
_SIZES: Final = [-(2**63), -(2**31), -2, -1, 0, 1, 5, 100, 2**31 - 1, 2**31, 2**32, 2**62]
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


def headers(chance: Random) -> tuple[str, bytes]:
    """Return good records under a header with wrong or unusual fields."""
    count = chance.choice([1, 1, 2, 5])
    codec = chance.randrange(5)
    payload = packed(codec, some_creates(chance, count))
    fields: dict[str, Callable[[], int]] = {
        "magic": lambda: chance.choice([0, 1, 3, 127, -128]),
        "flags": lambda: chance.choice([*_FLAGS, chance.randrange(0x8000) & ~7]),
        "base_offset": lambda: chance.choice(_INT64),
        "last_offset_delta": lambda: chance.choice([*_INT32, count, count - 2]),
        "length": lambda: chance.choice([*_INT32, 49, 60, 10_000]),
        "leader_epoch": lambda: chance.choice(_INT32),
        "base_timestamp": lambda: chance.choice(_INT64),
        "max_timestamp": lambda: chance.choice(_INT64),
        "producer_id": lambda: chance.choice(_INT64),
        "producer_epoch": lambda: chance.choice([-(2**15), -1, 0, 1, 2**15 - 1]),
        "base_sequence": lambda: chance.choice(_INT32),
        "crc": lambda: chance.randrange(2**32),
    }
    weights = [0.5 if name in ("magic", "crc", "length") else 1 for name in fields]
    chosen = dict.fromkeys(chance.choices(list(fields), weights, k=chance.choice([1, 1, 2, 3])))
    values = {name: fields[name]() for name in chosen}
    if chance.random() < 0.15:
        # As an idempotent producer: brokers take its first batch at any sequence.
        values |= {"producer_id": chance.randrange(2**40), "producer_epoch": 0, "base_sequence": 0}
    claimed = count if chance.random() < 0.8 else chance.choice([*_INT32, count + 1, count - 1])
    return ", ".join(values), batch(payload, claimed, codec, **_with_count(values, count))


_FLAGS: Final = [
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    CONTROL,
    TRANSACTIONAL | CONTROL,
    DELETE_HORIZON,
    0x7F80,
    5,
    6,
    7,
]


def _with_count(values: dict[str, int], count: int) -> dict[str, Any]:
    return {"last_offset_delta": count - 1} | values


def _odd_varint(chance: Random, right: int) -> int | bytes:
    match chance.randrange(4):
        case 0:
            return chance.choice(_SIZES)
        case 1:
            return varint(right, chance.choice([2, 5, 6, 9, 10, 11, 12]))  # padded
        case 2:
            return b"\x80" * chance.randrange(1, 12)  # truncated
        case _:
            return right + chance.choice([-2, -1, 1, 2, 50])


def _odd_record(chance: Random, number: int) -> tuple[bytes, str]:
    key, value = (
        chance.choice([None, b"", b"fuzz-0", b"k" * 50]),
        chance.choice([None, b"", b"{}", b"v" * 300]),
    )
    listed = [header(chance.choice([b"", b"h", b"\xff"]), chance.choice([None, b"", b"v"])) for _ in range(2)]
    listed = listed[: chance.randrange(3)]
    fields: dict[str, Callable[[], Any]] = {
        "attributes": lambda: bytes((chance.randrange(256),)),
        "timestamp_delta": lambda: _odd_varint(chance, 0),
        "offset_delta": lambda: _odd_varint(chance, number),
        "key_size": lambda: _odd_varint(chance, len(key or b"")),
        "value_size": lambda: _odd_varint(chance, len(value or b"")),
        "header_count": lambda: _odd_varint(chance, len(listed)),
        "size": lambda: _odd_varint(chance, 20),
        "trailing": lambda: chance.choice([b"x", bytes(5), b"\x80" * 20, record()]),
        "headers": lambda: [
            header(name_size=_odd_varint(chance, 1)),
            header(value_size=_odd_varint(chance, 1)),
        ],
    }
    chosen = chance.sample(list(fields), chance.choice([0, 1, 1, 2]))
    given: dict[str, Any] = {"offset_delta": number, "headers": listed} | {
        name: fields[name]() for name in chosen
    }
    delta = given.pop("offset_delta")
    return record(delta, key, value, **given), " and ".join(chosen)


def records(chance: Random) -> tuple[str, bytes]:
    """Return a batch, in any codec, in which some records are malformed."""
    count = chance.choice([1, 2, 3, 10])
    made = [_odd_record(chance, number) for number in range(count)]
    data = b"".join(raw for raw, _ in made)
    match chance.randrange(8):
        case 0:
            data = data[: chance.randrange(len(data) + 1)]
        case 1:
            data += chance.choice([b"x", record(count), b"\x80" * 11])
        case _:
            pass
    codec = chance.randrange(5)
    said = next((what for _, what in made if what), "well-formed")
    return said, batch(packed(codec, data), count, codec)


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
                given["size"], said = chance.choice(_INT64) & 0xFFFFFFFF, "wrong size"
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
    sizes = [chance.choice(_INT32)] if chance.random() < 0.1 else []
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
                given["content_size"], said = chance.choice([len(data), *_INT64]), "a content size"
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


def ends_a_broker(raw: bytes) -> bool:
    """Return whether a broker would allocate gigabytes for a Snappy block that claims them, and end for want of memory.

    That is a fault of Kafka's. It would take the run with it, and shows nothing of the worker.
    """
    if len(raw) < _HEADER_BYTES or raw[22] & 7 != SNAPPY:
        return False
    payload = raw[_HEADER_BYTES:]
    if not payload.startswith(XERIAL):
        return _claims_gigabytes(payload)
    at = 16
    while at + 4 <= len(payload):
        size = struct.unpack_from(">i", payload, at)[0]
        at += 4
        if size > _MOST_CLAIMED or _claims_gigabytes(payload[at : at + max(0, size)]):
            return True
        at += max(0, size)
    return False


def _claims_gigabytes(block: bytes) -> bool:
    try:
        return int(cramjam.snappy.decompress_raw_len(block)) > _MOST_CLAIMED
    except Exception:  # of many types
        return False


# What is not built by the rules of a format.


@cache
def _known() -> list[bytes]:
    most = 200_000
    return [
        one.raw
        for one in variants()
        if len(one.raw) < most and int.from_bytes(one.raw[57:61], "big", signed=True) < 10_000
    ]


def changed_bytes(chance: Random) -> tuple[str, bytes]:
    """Return a known batch with changed bytes, mostly under a right checksum."""
    raw = bytearray(chance.choice(_known()))
    if chance.random() < 0.3:
        count, codec = chance.choice([1, 3, 50]), chance.randrange(5)
        raw = bytearray(batch(packed(codec, some_creates(chance, count)), count, codec))
    first = _HEADER_BYTES if chance.random() < 0.8 else 12
    if len(raw) <= first:
        return "nothing to change", bytes(raw)
    said = "bits"
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(first, len(raw))
        match chance.randrange(6):
            case 0 | 1:
                raw[at] ^= 1 << chance.randrange(8)
            case 2:
                raw[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 3:
                del raw[at : at + chance.choice([1, 4, 20])]
                said = "removed bytes"
            case 4:
                raw[at:at] = chance.randbytes(chance.choice([1, 4, 20]))
                said = "added bytes"
            case _:
                raw[at:at] = raw[first : first + chance.choice([4, 60])]
                said = "copied bytes"
        if len(raw) <= first:
            break
    if len(raw) < _HEADER_BYTES or chance.random() < 0.1:
        return f"{said}, wrong checksum", bytes(raw)
    if chance.random() < 0.9:
        struct.pack_into(">i", raw, 8, len(raw) - 12)
    if chance.random() < 0.05:
        return f"{said}, twice in one request", sealed(raw) * 2
    return said, sealed(raw)


# What is small on the wire.


def tiny_records(chance: Random) -> tuple[str, bytes]:
    """Return a batch of thousands of the smallest records."""
    count = chance.choice([1000, 5000, 5001, 20_000])
    codec = chance.choice([NONE, GZIP, SNAPPY, LZ4, ZSTD])
    key, value = chance.choice([(None, None), (b"", b""), (b"fuzz-0", b"{}"), (None, b"{}")])
    listed = chance.choice([[], [header(b"ce_id", b"x")], [header(b"", None)] * 3])
    data = b"".join(record(number, key, value, listed) for number in range(count))
    if len(data) > 900_000 and codec == NONE:
        codec = ZSTD
    return f"{count} records", batch(packed(codec, data), count, codec)


def bomb(chance: Random) -> tuple[str, bytes]:
    """Return a batch that unpacks to many megabytes: in a key, a value or headers, below or above the limit."""
    size = chance.choice([1, 5, 15, 16, 17, 40, 200]) * _MB
    codec = chance.choice([GZIP, ZSTD, ZSTD, LZ4, SNAPPY])
    if codec == SNAPPY:
        size = min(size, 19 * _MB)  # it packs twenty to one
    where = chance.choice(["key", "value", "header", "headers"])
    part = size
    if where == "headers":
        # Two bytes each, all zeros: an empty name and an empty value.
        before, after = record(header_count=varint(size // 2), size=0)[1:], b""
        size = part = size // 2 * 2
    elif where == "header":
        before, after = record(header_count=1, size=0)[1:] + varint(1) + b"h" + varint(size), b""
    elif where == "key":
        before, after = b"\0\0\0" + varint(size), varint(2) + b"{}" + b"\0"
    else:
        before, after = record(value=b"", value_size=size, header_count=b"", size=0)[1:], b"\0"
    before = varint(len(before) + part + len(after)) + before
    return f"{size // _MB} MB of {where}", batch(blown_up(codec, before, part, after), 1, codec)


def blown_up(codec: int, before: bytes, zeros: int, after: bytes) -> bytes:
    """Return a payload of these bytes around so many zeros, without ever holding all of them."""
    if codec == GZIP:
        return _gzip_of_zeros(before, zeros, after)
    if codec == ZSTD:
        step = 128 * 1024
        runs = [zstd_rle_block(b"\0", min(step, zeros - at)) for at in range(0, zeros, step)]
        return zstd_frame(b"", blocks=[zstd_raw_block(before), *runs, zstd_raw_block(after, last=True)])
    if codec == LZ4:
        step = 4 * 1024 * 1024
        whole = lz4_block(bytes(step))
        blocks = [lz4_block(before), *[whole] * (zeros // step)]
        blocks += [lz4_block(bytes(zeros % step))] if zeros % step else []
        return lz4_frame(b"", block_size=7, blocks=[*blocks, *([lz4_block(after)] if after else [])])
    parts = [before, *[bytes(_MB)] * (zeros // _MB), bytes(zeros % _MB), after]
    return snappy_xerial([bytes(cramjam.snappy.compress_raw(part)) for part in parts if part])


def _gzip_of_zeros(before: bytes, zeros: int, after: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole, rest = divmod(zeros, _MB)
    deflated = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    deflated += (packer.compress(bytes(_MB)) + packer.flush(zlib.Z_FULL_FLUSH)) * whole
    deflated += packer.compress(bytes(rest) + after) + packer.flush()
    checksum = zlib.crc32(before)
    for _ in range(whole):
        checksum = zlib.crc32(bytes(_MB), checksum)
    checksum = zlib.crc32(bytes(rest) + after, checksum)
    return gzip_member(b"", deflated=deflated, crc=checksum, size=len(before) + zeros + len(after))
