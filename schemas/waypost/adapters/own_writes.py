"""This process's writes that Postgres may lack: which offsets are its own, and the records to show until they are
applied.

Pure: callers report where commands landed in Kafka's log and how far Postgres has applied it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from waypost.adapters.records import Row

#: Records that have no number yet get one above all that have.
FIRST_OWN_NUMBER: Final = 2**62
#: Of records that are not known to be applied, as while no worker runs or Kafka is unreachable.
MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(eq=False, slots=True)
class OwnWrite:
    """A command of this process, and the records that it adds. It has an offset once Kafka has it."""

    session_id: str
    rows: Sequence[Row] | None  # None if there are too many to be kept in memory
    records: int  # with the parts of large ones
    landing: "asyncio.Future[tuple[int, int]] | None" = None
    partition: int | None = None
    offset: int | None = None


class OwnWrites:
    """The writes that are not known to be applied, in the order in which they were accepted."""

    def __init__(self) -> None:
        self._of_session: dict[str, list[OwnWrite]] = {}
        self._by_offset: dict[int, dict[int, OwnWrite]] = {}
        self._number = FIRST_OWN_NUMBER
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._of_session)

    def next_number(self) -> int:
        """Return a number for a record that this process adds now."""
        self._number += 1
        return self._number

    def add(self, session_id: str, rows: Sequence[Row], records: int) -> OwnWrite:
        """Note a command that was accepted. If much is kept already, its records are not: reads then wait for them."""
        write = OwnWrite(session_id, rows, records)
        if self._bytes + (size := _size(write)) > MAX_BYTES:
            write.rows = None
        else:
            self._bytes += size
        self._of_session.setdefault(session_id, []).append(write)
        return write

    def landed(self, write: OwnWrite, partition: int, offset: int) -> None:
        """Note where Kafka has it."""
        write.partition, write.offset = partition, offset
        self._by_offset.setdefault(partition, {})[offset] = write

    def drop(self, write: OwnWrite) -> None:
        """Forget a write: it is applied, was rejected, or will never reach Kafka."""
        if write.partition is not None and write.offset is not None:
            self._by_offset.get(write.partition, {}).pop(write.offset, None)
        writes = self._of_session.get(write.session_id, [])
        if write in writes:
            writes.remove(write)
            self._bytes -= _size(write)
        if not writes:
            self._of_session.pop(write.session_id, None)

    def is_open(self, write: OwnWrite) -> bool:
        """Tell whether it is not known yet what became of a write."""
        return write in self._of_session.get(write.session_id, ())

    def partitions(self) -> list[int]:
        """Return the partitions in which writes landed that are not known to be applied."""
        return [partition for partition, writes in self._by_offset.items() if writes]

    def passed(self, partition: int, position: int) -> list[OwnWrite]:
        """Return the writes that are applied or were rejected, when Postgres is at this position."""
        writes = self._by_offset.get(partition, {})
        return [write for offset, write in writes.items() if offset < position]

    def cover(self, partition: int, position: int, end: int) -> bool:
        """Tell whether all commands from ``position`` to ``end`` are this process's own, with their records."""
        writes = self._by_offset.get(partition, {})
        return end - position <= len(writes) and all(
            offset in writes and writes[offset].rows is not None for offset in range(position, end)
        )

    def has_unkept_outside_kafka(self, session_id: str) -> bool:
        """Tell whether there are writes to a session whose records are neither kept in memory nor in Kafka yet."""
        return any(write.rows is None and write.offset is None for write in self.of_session(session_id))

    def end_of_unkept(self, session_id: str) -> int:
        """Return the offset after the last write to a session whose records are not kept in memory, or 0."""
        return max(
            (
                write.offset + 1
                for write in self.of_session(session_id)
                if write.rows is None and write.offset is not None
            ),
            default=0,
        )

    def unapplied(self, session_id: str, position: int) -> list[OwnWrite]:
        """Return the writes to a session that Postgres may lack at this position, oldest first."""
        return [
            write
            for write in self._of_session.get(session_id, ())
            if write.offset is None or write.offset >= position
        ]

    def of_session(self, session_id: str) -> list[OwnWrite]:
        """Return the writes to a session that are not known to be applied, oldest first."""
        return list(self._of_session.get(session_id, ()))


def _size(write: OwnWrite) -> int:
    return sum(len(row.raw) for row in write.rows or ())
