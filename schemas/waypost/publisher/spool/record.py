"""The bytes of a spool: records with their length and CRC32C, one behind the other. Pure; knows no files.

A record is a prefix (magic bytes, checksum, lengths of head and value), a head and a value. The head is UTF-8 text with
one field per line, because none of its fields can contain a line feed. There are three kinds, distinguished by the
first field:

- the file's own, first in it: ``waypost-spool``, format, topic, source;
- a command: its row, how many commands of the same call follow it, id, type, session, partition, time, traceparent;
  its body is the value;
- ``dropped``: the rows of commands that were given up and are not to be sent.
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, Final, NamedTuple

from waypost.errors import SpoolError
from waypost.kafka.checksum import crc32c
from waypost.model.limits import MAX_COMMAND_ID, MAX_SESSION_ID, MAX_TYPE, text_problem
from waypost.publisher.pending import Pending

FORMAT: Final = 2  # 1 was SQLite
_MAGIC: Final = b"\xf5wps"  # begins with a byte that no UTF-8 text has, so bodies do not hold it
_PREFIX: Final = Struct("<4sIII")
_LARGEST_HEAD: Final = 16 * 1024
_LARGEST_VALUE: Final = 2**30
_LONGEST_STAMP: Final = 64  # bytes of a time or a traceparent
_LAST_PARTITION: Final = 2**31 - 1
_FILE: Final = b"waypost-spool"
_DROPPED: Final = b"dropped"
_AT_ONCE: Final = 500  # rows in a record of what was dropped


class Frame(NamedTuple):
    """Bytes ``start`` to ``end``: a record or, if ``head`` is None, bytes that are not a record."""

    start: int
    end: int
    head: bytes | None
    value: bytes = b""


def frame(head: bytes, value: bytes = b"") -> bytes:
    """Return a record."""
    content = head + value
    return _PREFIX.pack(_MAGIC, crc32c(content), len(head), len(value)) + content


def frames(data: bytes) -> Iterator[Frame]:
    """Yield records, and what lies between them if it is damaged.

    An incomplete write at the end is not a frame, because its call has not returned.
    """
    at = 0
    while at < len(data):
        if (found := _first_frame(data, at)) is None:
            if not _cut_short(data, at):
                yield Frame(at, len(data), None)
            return
        if found.start > at:
            yield Frame(at, found.start, None)
        yield found
        at = found.end


def _first_frame(data: bytes, at: int) -> Frame | None:
    while at >= 0:
        if (found := _frame_at(data, at)) is not None:
            return found
        at = data.find(_MAGIC, at + 1)
    return None


def _frame_at(data: bytes, at: int) -> Frame | None:
    if len(data) - at < _PREFIX.size:
        return None
    magic, checksum, head, value = _PREFIX.unpack_from(data, at)
    if magic != _MAGIC or head > _LARGEST_HEAD or value > _LARGEST_VALUE:
        return None
    start = at + _PREFIX.size
    content = data[start : start + head + value]
    if len(content) < head + value or crc32c(content) != checksum:
        return None
    return Frame(at, start + head + value, content[:head], content[head:])


def _cut_short(data: bytes, at: int) -> bool:
    if len(data) - at < _PREFIX.size:
        return _MAGIC.startswith(data[at : at + len(_MAGIC)])
    magic, _, head, value = _PREFIX.unpack_from(data, at)
    return bool(magic == _MAGIC and len(data) - at - _PREFIX.size < head + value)


def of_file(topic: str, source: bytes) -> bytes:
    """Return the record with which a file begins."""
    return frame(b"%b\n%d\n%b\n%b" % (_FILE, FORMAT, topic.encode(), source))


def of_command(pending: Pending, row: int, more: int = 0) -> bytes:
    """Return the record of a command. ``more`` commands of the same call follow it."""
    session, partition = pending.session_id, pending.partition
    content = b"".join(
        (
            f"{row}\n{more}\n{pending.command_id}\n{pending.command_type}\n{'' if session is None else session}\n"
            f"{'' if partition is None else partition}\n".encode(),
            pending.time,
            b"\n",
            pending.traceparent or b"",
            pending.value,
        )
    )
    length = len(pending.value)
    return _PREFIX.pack(_MAGIC, crc32c(content), len(content) - length, length) + content


def of_dropped(rows: Iterable[int]) -> bytes:
    """Return the records that keep commands from being sent."""
    found = [b"%d" % row for row in rows]
    return b"".join(
        frame(b"\n".join((_DROPPED, *found[start : start + _AT_ONCE])))
        for start in range(0, len(found), _AT_ONCE)
    )


class Opening(NamedTuple):
    """The head of a file."""

    topic: str
    source: bytes


class Entry(NamedTuple):
    """The fields of a command that recovery needs before it reads the command."""

    row: int
    more: int
    session_id: str | None
    partition: int | None


class Dropped(NamedTuple):
    """Rows of commands that were given up."""

    rows: list[int]


def meaning(head: bytes) -> Opening | Entry | Dropped | None:
    """Return what a record says, without its command; None if it says nothing that this version knows.

    Raises:
        SpoolError: The file has another format.
    """
    fields = head.split(b"\n")
    try:
        match fields:
            case [kind, version, topic, source] if kind == _FILE:
                if int(version) != FORMAT:
                    raise SpoolError(
                        f"it has format {int(version)}, and this version of waypost reads {FORMAT}"
                    )
                return Opening(topic.decode(), source)
            case [kind, *rows] if kind == _DROPPED:
                return Dropped([int(row) for row in rows])
            case [row, more, _, _, session, partition, _, _]:
                return Entry(
                    int(row), int(more), session.decode() or None, int(partition) if partition else None
                )
    except ValueError:
        pass
    return None


def command(found: Frame) -> Pending | None:
    """Return the command of a record, with its row; None if it is not a command."""
    assert found.head is not None
    try:
        row, _, command_id, command_type, session, partition, time, trace = found.head.split(b"\n")
        pending = Pending(
            command_id.decode(),
            command_type.decode(),
            session.decode() or None,
            found.value,
            time,
            trace or None,
            int(partition) if partition else None,
        )
        pending.row = int(row)
    except ValueError:
        return None
    pending.stored = found.end - found.start
    return pending if problem(pending) is None else None


def problem(pending: Any) -> str | None:
    """Return why this can't be a command, or None. Its fields may be of any type."""
    for name, text, longest in (
        ("id", pending.command_id, MAX_COMMAND_ID),
        ("type", pending.command_type, MAX_TYPE),
        *((("session", pending.session_id, MAX_SESSION_ID),) if pending.session_id is not None else ()),
    ):
        if not isinstance(text, str):
            return f"{name} is a {type(text).__name__}, not a text"
        if (wrong := text_problem(text, longest)) is not None:
            return f"{name} {wrong}"
    for name, stamp in (("time", pending.time), ("traceparent", pending.traceparent or b"")):
        if not isinstance(stamp, bytes) or len(stamp) > _LONGEST_STAMP or b"\n" in stamp:
            return f"{name} is not a timestamp or a trace context"
    partition = pending.partition
    if (pending.session_id is None) == (partition is None):
        return "session and partition contradict each other"
    if partition is not None and not (isinstance(partition, int) and 0 <= partition <= _LAST_PARTITION):
        return "partition is not a partition number"
    if not isinstance(pending.value, bytes):
        return "value is not bytes"
    return None
