"""Answer for every offset of a fetched piece of a log: with a record, or with the reason why there is none.

Owns record batch headers, checksums, aborted transactions and offsets. Brokers hand out batches that no library can
unpack, and records that claim each other's offsets. None of that may raise an exception, use unbounded memory, or leave
an offset without an answer. May import aiokafka's record parser (through ``records``), but no connection and no clock.

The answers depend on the bytes and the limit alone, so a worker, a replay and a verification agree.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from zlib import crc32

from waypost.kafka.checksum import crc32c
from waypost.kafka.decompression import unpack
from waypost.kafka.records import (
    HEADER_BYTES,
    HEADERS,
    Oversized,
    read_at_once,
    read_in_pieces,
    without_codec,
)

UNPACKED_BYTES: Final = 16 * 1_048_588
"""Most bytes that a batch may unpack to: 16 times Kafka's default for the largest batch.

Producers bound a batch by its size before compression. A constant, because whether a command counts must not
depend on a setting.
"""

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_START: Final = struct.Struct(">qiibIhi")
_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT, _BODY_AT, _MAGIC_AT, _CHECKED_FROM = 8, 12, 16, 21
_MAGIC_END: Final = 17  # the same in all formats
# A message of formats 0 and 1 begins with its offset, length, checksum, format and attributes.
_OLD_HEADER: Final = struct.Struct(">qiIbb")
_OLD_BYTES: Final = 26
_CODEC_MASK, _TRANSACTIONAL, _CONTROL = 0x07, 0x10, 0x20
_CURRENT_MAGIC: Final = 2
_ABORT: Final = b"\0\0"  # type of a control record, after two bytes of version

Reason: TypeAlias = Literal["undecodable", "too-large"]

_offset = attrgetter("offset")


class BatchHeader(NamedTuple):
    """Header of a record batch of format 2, which is never compressed. The fields are in Kafka's order."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    checksum: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def codec(self) -> int:
        """Compression: 0 none, 1 gzip, 2 Snappy, 3 LZ4, 4 Zstandard."""
        return self.attributes & _CODEC_MASK

    @property
    def is_control(self) -> bool:
        """Return whether the broker wrote it, for example to end a transaction."""
        return bool(self.attributes & _CONTROL)

    @property
    def last_offset(self) -> int:
        """Last offset of the batch, which is at least its first."""
        return self.base_offset + max(0, self.last_offset_delta)


class Records(NamedTuple):
    """Records of consecutive offsets, as aiokafka gives them."""

    first: int
    last: int
    records: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Offsets whose records can't be read. The batch is intact: its producer wrote it that way.

    ``batch`` is a view of the fetched bytes of the whole batch, whose last offset is ``batch_end``. Copy it before
    keeping it, once for all its offsets.
    """

    first: int
    last: int
    reason: Reason
    message: str
    batch: memoryview
    batch_end: int


@dataclass(frozen=True, slots=True)
class Hidden:
    """Offsets of transaction markers, and of aborted records if only committed ones are read."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Offsets that the log does not hold, because it was compacted or tampered with."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """The end of what can be trusted: from ``first`` on, the bytes are not those that were written.

    They changed on the way or on the broker's disk, or they have a format that is not known here. No offset from
    ``first`` on is answered. Fetch again; a wrong checksum is not bad input.
    """

    first: int
    message: str


Piece: TypeAlias = Records | Unreadable | Hidden | Hole | Damaged


def decode_batches(
    fetched: bytes,
    position: int,
    *,
    limit: int = UNPACKED_BYTES,
    aborted: Sequence[tuple[int, int]] | None = None,
) -> Iterator[Piece]:
    """Yield pieces that cover each offset from ``position`` to the end of the last whole batch once, in order.

    A batch is unpacked when its first piece is requested, and no piece takes more than about 50 ms. A caller can let
    other tasks run between two pieces, and should hold only as many as it needs.

    Args:
        fetched: Record batches as a broker hands them out; the last one may be cut off.
        position: First offset to answer; lower ones are left out.
        limit: Most bytes that a compressed batch may unpack to. A larger batch is unreadable as a whole.
        aborted: Producer ids and first offsets of aborted transactions, as listed in the fetch response, to read only
            committed records. None reads all records.

    Raises:
        MissingCodecError: If a batch needs cramjam, which is not installed.
    """
    transactions = None if aborted is None else _AbortedTransactions(aborted)
    at, size = 0, len(fetched)
    while size - at >= _MAGIC_END:
        end = at + _BODY_AT + _LENGTH.unpack_from(fetched, at + _LENGTH_AT)[0]
        if end > size:
            return
        header = _read_header(fetched, at, end)
        if isinstance(header, str):
            yield Damaged(position, f"The log can't be read at offset {position}: {header}.")
            return
        hidden = bool(header.attributes & (_TRANSACTIONAL | _CONTROL))
        if hidden:
            hidden = (
                header.is_control
                if transactions is None
                else transactions.hide(header, memoryview(fetched)[at:end])
            )
        base = header.base_offset
        last = base + header.last_offset_delta if header.last_offset_delta > 0 else base
        if last >= position:
            if base > position:
                yield Hole(position, base - 1)
                position = base
            if hidden:
                yield Hidden(position, last)
            elif header.magic < _CURRENT_MAGIC:
                # Such a record has no headers, so it is neither a command nor a result.
                message = f"The record has format {header.magic}, of Kafka 0.10 or older."
                yield Unreadable(position, last, "undecodable", message, memoryview(fetched)[at:end], last)
            else:
                batch = memoryview(fetched)[at:end]
                plain, problem = (
                    _unpack(header, batch, limit) if header.attributes & _CODEC_MASK else (batch, None)
                )
                records = read_at_once(plain) if plain is not None else None
                if records and header.record_count == last - base + 1 and _are_consecutive(records, base):
                    yield Records(position, last, records[position - base :] if position > base else records)
                else:
                    yield from _decode_odd_batch(header, batch, plain, problem, records, position)
            position = last + 1
        at = end


def producers_of(fetched: bytes) -> Iterator[tuple[int, int]]:
    """Yield the last offset and the producer id (-1 for none) of each whole batch of a fetched piece of a log."""
    at, size = 0, len(fetched)
    while size - at >= _MAGIC_END:
        end = at + _BODY_AT + _LENGTH.unpack_from(fetched, at + _LENGTH_AT)[0]
        header = _read_header(fetched, at, end) if end <= size else "it is cut off"
        if isinstance(header, str):
            return
        yield header.last_offset, header.producer_id
        at = end


def end_of(fetched: bytes, before: int | None = None) -> tuple[int, int]:
    """Return the offset after the last whole batch of a fetched piece of a log, and the leader epoch of that batch.

    With ``before``, only batches count that begin before this offset. 0 and -1 if there is no whole batch. Formats 0
    and 1 have no epoch.
    """
    at, end, leader_epoch, size = 0, 0, -1, len(fetched)
    while size - at >= HEADER_BYTES:
        base, length, epoch, magic, _, _, last_offset_delta = _START.unpack_from(fetched, at)
        at += _BODY_AT + length
        if at > size or length < 0 or (before is not None and base >= before):
            break
        if magic >= _CURRENT_MAGIC:
            end, leader_epoch = base + 1 + max(0, last_offset_delta), epoch
        else:
            end = base + 1
    return end, leader_epoch


def _read_header(fetched: bytes, at: int, end: int) -> "BatchHeader | str":
    """Return the header of a batch whose checksum is right, or what is wrong with it."""
    magic = fetched[at + _MAGIC_AT]
    if end - at < (HEADER_BYTES if magic >= _CURRENT_MAGIC else _OLD_BYTES):
        return "a batch is too short for its header"
    if magic > _CURRENT_MAGIC:
        return f"record format {magic} is not known here"
    if magic < _CURRENT_MAGIC:
        offset, _, checksum, _, attributes = _OLD_HEADER.unpack_from(fetched, at)
        if crc32(fetched[at + _MAGIC_AT : end]) != checksum:
            return "a message has a wrong checksum"
        # A compressed message wraps others and has the offset of the last: it covers all that precede it.
        span = offset if attributes & _CODEC_MASK else 0
        return BatchHeader(offset - span, 0, 0, magic, 0, 0, span, 0, 0, -1, -1, -1, 1)
    header = BatchHeader._make(_HEADER.unpack_from(fetched, at))
    if crc32c(fetched[at + _CHECKED_FROM : end]) != header.checksum:
        return "a batch has a wrong checksum"
    return header


class _AbortedTransactions:
    """Finds aborted batches, from the list in the fetch response and the markers in the log."""

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._ahead = sorted(aborted, key=itemgetter(1), reverse=True)
        self._producers: set[int] = set()

    def hide(self, header: BatchHeader, batch: memoryview) -> bool:
        """Return whether this transactional or control batch is hidden. Call it for each of them, in order."""
        while self._ahead and self._ahead[-1][1] <= header.base_offset:
            self._producers.add(self._ahead.pop()[0])
        if not header.is_control:
            return header.producer_id in self._producers
        if _is_abort_marker(header, batch):
            self._producers.discard(header.producer_id)
        return True


def _is_abort_marker(header: BatchHeader, batch: memoryview) -> bool:
    records = None if header.attributes & _CODEC_MASK else read_at_once(batch)
    key = records[0].key if records else None
    return key is not None and key[2:4] == _ABORT


def _unpack(header: BatchHeader, batch: memoryview, limit: int) -> tuple[bytes | None, str | None]:
    """Return the batch as it would be without compression (None if too large), and why it ends early if it does."""
    unpacked = unpack(header.codec, batch[HEADER_BYTES:], limit)
    if unpacked.too_large:
        return None, unpacked.problem
    return b"".join((without_codec(batch[:HEADER_BYTES]), *unpacked.chunks)), unpacked.problem


def _decode_odd_batch(
    header: BatchHeader,
    batch: memoryview,
    plain: bytes | memoryview | None,
    problem: str | None,
    records: list[Any] | None,
    position: int,
) -> Iterator[Piece]:
    """Yield the pieces, from ``position`` on, of a batch that is large, compacted or malformed."""
    last = header.last_offset
    if plain is None:
        message = f"The batch can't be unpacked: {problem}."
        yield Unreadable(position, last, "too-large", message, batch, last)
        return
    # A producer writes one record per offset, in order. Compaction leaves fewer.
    whole = header.record_count == header.last_offset_delta + 1
    read = 0
    for run in _valid_runs(header, [records] if records else read_in_pieces(plain), whole):
        read += len(run)
        first, end = run[0].offset, run[-1].offset
        if end < position:
            continue
        if first > position:
            yield Hole(position, first - 1)
        if isinstance(run[0], Oversized):
            message = f"The record has more than {HEADERS:,} headers."
            yield Unreadable(first, end, "too-large", message, batch, last)
        else:
            begin = max(first, position)
            yield Records(begin, end, run[begin - first :])
        position = end + 1
    if position > last:
        return
    if read == header.record_count and not whole:
        yield Hole(position, last)
        return
    why = "a record is malformed or claims the offset of another"
    if problem is not None:
        why = f"a record is malformed or missing, and {problem}"
    message = f"The batch can't be read from offset {position} on: {why}."
    yield Unreadable(position, last, "undecodable", message, batch, last)


def _valid_runs(header: BatchHeader, pieces: Iterable[list[Any]], whole: bool) -> Iterator[list[Any]]:
    """Yield runs of records with consecutive offsets, up to the first record whose offset is out of order."""
    offset, last = header.base_offset, header.last_offset
    for records in pieces:
        for run in _runs(records, offset):
            first = run[0].offset
            if first < offset or first > last or (whole and first > offset):
                return
            offset = run[-1].offset + 1
            if offset > last + 1:
                yield run[: last + 1 - first]
                return
            yield run


def _runs(records: list[Any], offset: int) -> Iterator[list[Any]]:
    """Split records into runs of consecutive offsets."""
    if _are_consecutive(records, offset):
        yield records
        return
    start = 0
    for index in range(1, len(records) + 1):
        if index == len(records) or records[index].offset != records[index - 1].offset + 1:
            yield records[start:index]
            start = index


def _are_consecutive(records: list[Any], offset: int) -> bool:
    return list(map(_offset, records)) == list(range(offset, offset + len(records)))
