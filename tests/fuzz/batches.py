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
from tests.fuzz.payloads import INT32, INT64
from tests.support.batch_variants import variants
from tests.support.hostile_batches import (
    CONTROL,
    DELETE_HORIZON,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    NONE,
    SNAPPY,
    TRANSACTIONAL,
    XERIAL,
    ZSTD,
    batch,
    gzip_member,
    header,
    lz4_block,
    lz4_frame,
    record,
    sealed,
    snappy_xerial,
    varint,
    zstd_frame,
    zstd_raw_block,
    zstd_rle_block,
)
from tests.support.variant import packed

_HEADER_BYTES: Final = 61
_MB: Final = 1_000_000
_MOST_CLAIMED: Final = 50 * _MB
_SIZES: Final = [-(2**63), -(2**31), -2, -1, 0, 1, 5, 100, 2**31 - 1, 2**31, 2**32, 2**62]


def headers(chance: Random) -> tuple[str, bytes]:
    """Return good records under a header with wrong or unusual fields."""
    count = chance.choice([1, 1, 2, 5])
    codec = chance.randrange(5)
    payload = packed(codec, some_creates(chance, count))
    fields: dict[str, Callable[[], int]] = {
        "magic": lambda: chance.choice([0, 1, 3, 127, -128]),
        "flags": lambda: chance.choice([*_FLAGS, chance.randrange(0x8000) & ~7]),
        "base_offset": lambda: chance.choice(INT64),
        "last_offset_delta": lambda: chance.choice([*INT32, count, count - 2]),
        "length": lambda: chance.choice([*INT32, 49, 60, 10_000]),
        "leader_epoch": lambda: chance.choice(INT32),
        "base_timestamp": lambda: chance.choice(INT64),
        "max_timestamp": lambda: chance.choice(INT64),
        "producer_id": lambda: chance.choice(INT64),
        "producer_epoch": lambda: chance.choice([-(2**15), -1, 0, 1, 2**15 - 1]),
        "base_sequence": lambda: chance.choice(INT32),
        "crc": lambda: chance.randrange(2**32),
    }
    weights = [0.5 if name in ("magic", "crc", "length") else 1 for name in fields]
    chosen = dict.fromkeys(chance.choices(list(fields), weights, k=chance.choice([1, 1, 2, 3])))
    values = {name: fields[name]() for name in chosen}
    if chance.random() < 0.15:
        # As an idempotent producer: brokers take its first batch at any sequence.
        values |= {"producer_id": chance.randrange(2**40), "producer_epoch": 0, "base_sequence": 0}
    claimed = count if chance.random() < 0.8 else chance.choice([*INT32, count + 1, count - 1])
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
