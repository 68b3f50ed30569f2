"""Read the records of a batch, whatever its bytes are.

Owns the layout of a record in Kafka's format 2. Knows nothing about compression, transactions or Waypost.

aiokafka's C parser reads well-formed batches. It raises at a malformed record without naming it, so this module then
reads the same bytes again in Python, record by record. aiokafka's own Python parser is not used: a size that is too
large makes it read memory outside the batch, which can crash the process.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, Final, NamedTuple

from aiokafka.record import default_records

# None if aiokafka was installed without its extension, or must not use it: then its class is in Python.
DefaultRecordBatch: Any = (
    None if isfunction(default_records.DefaultRecordBatch.__init__) else default_records.DefaultRecordBatch
)

HEADER_BYTES: Final = 61
"""Size of a batch header."""
HEADERS: Final = 32_768
"""Most headers of one record that are read in Python. 64 KB of headers, the limit of a command, can't be more."""
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_ATTRIBUTES: Final = struct.Struct(">h")
_COUNT: Final = struct.Struct(">i")
_ATTRIBUTES_AT, _FIRST_TIMESTAMP_AT, _MAX_TIMESTAMP_AT, _COUNT_AT = 21, 27, 35, 57
_LONG: Final = struct.Struct(">q")

# A batch up to these sizes is read in one go, in 45 ms at worst: half a million empty headers.
_AT_ONCE_BYTES: Final = 1024 * 1024 + 4096
_AT_ONCE: Final = 5000
# A larger batch is read in stretches. By default, brokers accept such a batch only if it is compressed.
_STRETCH_BYTES: Final = 256 * 1024
# Reading in Python pauses after this many bytes, 30 ms at worst.
_SLOW_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """A record that was read in Python, with the attributes of aiokafka's records."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class Oversized(NamedTuple):
    """Takes the place of a record with more than :data:`HEADERS` headers."""

    offset: int


class MalformedRecordError(ValueError):
    """The bytes are not a record."""


def without_codec(header: bytes | memoryview, count: int | None = None) -> bytearray:
    """Return the header that the batch has once unpacked; ``count`` replaces its number of records."""
    out = bytearray(header)
    attributes = _ATTRIBUTES.unpack_from(out, _ATTRIBUTES_AT)[0]
    _ATTRIBUTES.pack_into(out, _ATTRIBUTES_AT, attributes & ~_CODEC_MASK)
    if count is not None:
        _COUNT.pack_into(out, _COUNT_AT, count)
    return out


def read_at_once(batch: bytes | memoryview) -> list[Any] | None:
    """Return all records of an unpacked batch, with the offsets that they claim.

    None if the batch is large or malformed: use :func:`read_in_pieces`.
    """
    if len(batch) > _AT_ONCE_BYTES or _COUNT.unpack_from(batch, _COUNT_AT)[0] > _AT_ONCE:
        return None
    return _read_fast(batch)


def read_in_pieces(batch: bytes | memoryview) -> Iterator[list[Any]]:
    """Yield lists of the records that :func:`read_at_once` does not read, up to the first malformed one.

    An :class:`Oversized` is alone in its list. Bytes after the last record are ignored.
    """
    count = _COUNT.unpack_from(batch, _COUNT_AT)[0]
    if len(batch) <= _AT_ONCE_BYTES and count <= _AT_ONCE:
        yield from _read_in_python(batch, HEADER_BYTES, count)
        return
    at = HEADER_BYTES
    while count > 0:
        end, found = _stretch(batch, at, count)
        records = None
        if found and end - at <= _STRETCH_BYTES:
            header = without_codec(batch[:HEADER_BYTES], found)
            records = _read_fast(b"".join((header, batch[at:end])))
        if records is not None:
            yield records
        else:
            read = 0
            for records in _read_in_python(batch, at, found):
                read += len(records)
                yield records
            if read < max(found, 1):
                return
        at, count = end, count - found


def _stretch(batch: bytes | memoryview, at: int, count: int) -> tuple[int, int]:
    """Return the end of a stretch of whole records, by the sizes that they claim, and the number of records.

    The first record may have any size. The number is 0 if it does not end within the batch.
    """
    found, limit = 0, len(batch)
    most = at + _STRETCH_BYTES
    while found < count and found < _AT_ONCE:
        try:
            size, start = _varint(batch, at)
        except MalformedRecordError:
            break
        end = start + size
        if size < 0 or end > limit or (found and end > most):
            break
        at, found = end, found + 1
    return at, found


def _read_fast(batch: bytes | memoryview) -> list[Any] | None:
    """Return all records of a batch, or None if one is malformed or something follows the last one."""
    if DefaultRecordBatch is None:
        return None
    try:
        return list(DefaultRecordBatch(batch))
    except Exception:  # of many types; MemoryError too, if a size of 2^62 is claimed
        return None


def _read_in_python(batch: bytes | memoryview, at: int, count: int) -> Iterator[list[Any]]:
    """Yield lists of up to ``count`` records from ``at`` on, up to the first malformed one."""
    base = _LONG.unpack_from(batch)[0]
    attributes = _ATTRIBUTES.unpack_from(batch, _ATTRIBUTES_AT)[0]
    appended = attributes & _LOG_APPEND_TIME
    first = _LONG.unpack_from(batch, _MAX_TIMESTAMP_AT if appended else _FIRST_TIMESTAMP_AT)[0]
    found: list[Any] = []
    pause = at + _SLOW_BYTES
    for _ in range(count):
        try:
            record, at = _read_record(batch, at, base, first, bool(appended))
        except MalformedRecordError:
            break
        if isinstance(record, Oversized):
            if found:
                yield found
            yield [record]
            found = []
            continue
        found.append(record)
        if at >= pause:
            yield found
            found, pause = [], at + _SLOW_BYTES
    if found:
        yield found


def _read_record(
    batch: bytes | memoryview, at: int, base: int, timestamp: int, appended: bool
) -> tuple[PlainRecord | Oversized, int]:
    """Read a record exactly as aiokafka's C parser does, and accept header names that are not UTF-8."""
    size, start = _varint(batch, at)
    _, at = _varint(batch, start)  # the attributes are a byte, but aiokafka reads a varint
    delta, at = _varint(batch, at)
    if not appended:
        timestamp = _signed(timestamp + delta)
    delta, at = _varint(batch, at)
    offset = _signed(base + delta)
    key, at = _content(batch, at)
    value, at = _content(batch, at)
    count, at = _varint(batch, at)
    end = start + size
    if not 0 <= 2 * count <= end - at or end > len(batch):
        raise MalformedRecordError
    if count > HEADERS:
        return Oversized(offset), end
    headers = []
    for _ in range(count):
        name, at = _content(batch, at)
        if name is None:
            raise MalformedRecordError
        content, at = _content(batch, at)
        # To brokers and librdkafka, names are bytes.
        headers.append((name.decode(errors="backslashreplace"), content))
    if at != end:
        raise MalformedRecordError
    return PlainRecord(offset, timestamp, int(appended), key, value, headers), at


def _content(batch: bytes | memoryview, at: int) -> tuple[bytes | None, int]:
    size, at = _varint(batch, at)
    if size < 0:
        return None, at
    if size > len(batch) - at:
        raise MalformedRecordError
    return bytes(batch[at : at + size]), at + size


def _varint(batch: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a zigzag varint of up to 64 bits, and the index after it."""
    number = shift = 0
    for index in range(at, min(at + 10, len(batch))):
        byte = batch[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            number &= 0xFFFFFFFFFFFFFFFF
            return (number >> 1) ^ -(number & 1), index + 1
        shift += 7
    raise MalformedRecordError


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
