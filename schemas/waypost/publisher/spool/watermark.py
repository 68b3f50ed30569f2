"""The progress of a spool in Kafka: for each partition, the newest row up to which everything is acknowledged.

The commands of a partition are acknowledged in order, and partitions do not wait for each other, so one number for all
would send again what a healthy partition acknowledged while another had no leader. Each number is kept with the number
of partitions that there were, which decides where a session belongs. Entries are overwritten in place: 32 bytes, which
no sector of a disk splits, and which need no room on a full one.
"""

import os
import threading
from pathlib import Path
from struct import Struct
from typing import Final

from waypost.kafka.checksum import crc32c
from waypost.wire.topics import partition_of

_ENTRY: Final = Struct("<IIQI12x")  # partitions, partition, row, checksum of these
_CHECKED: Final = 16
_FIRST_BYTES: Final = 4096  # written with the file: room for 128 partitions


class Watermark:
    """The numbers of one spool, and their file. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple[int, int], int] = {}
        self._places: dict[tuple[int, int], int] = {}
        self._counts: list[int] = []
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        if len(data) < _FIRST_BYTES:
            os.pwrite(self._fd, bytes(_FIRST_BYTES - len(data)), len(data))
        for start in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
            partitions, partition, row, checksum = _ENTRY.unpack_from(data, start)
            if not partitions:
                continue  # never used
            key = partitions, partition
            self._places[key] = start
            if crc32c(data[start : start + _CHECKED]) == checksum and partition < partitions:
                self._note(key, max(row, self._rows.get(key, 0)))
        self._end = max(self._places.values(), default=-_ENTRY.size) + _ENTRY.size

    def _note(self, key: tuple[int, int], row: int) -> None:
        self._rows[key] = row
        if key[0] not in self._counts:
            self._counts.append(key[0])

    def advance(self, partitions: int, partition: int, row: int) -> None:
        """Record that Kafka has all commands of a partition up to this row."""
        key = partitions, partition
        with self._lock:
            if row <= self._rows.get(key, 0) or self._fd < 0:
                return
            place = self._places.get(key, self._end)
            checked = _ENTRY.pack(partitions, partition, row, 0)[:_CHECKED]
            os.pwrite(self._fd, _ENTRY.pack(partitions, partition, row, crc32c(checked)), place)
            if place == self._end:
                self._places[key] = place
                self._end += _ENTRY.size
            self._note(key, row)

    def covers(self, row: int, session_id: str | None, partition: int | None) -> bool:
        """Return whether Kafka has acknowledged a command."""
        for partitions in self._counts:
            its = partition_of(session_id or "", partitions) if partition is None else partition
            if row <= self._rows.get((partitions, its), 0):
                return True
        return False

    def sync(self) -> None:
        """Make sure that what was recorded survives a loss of power."""
        with self._lock:
            if self._fd >= 0:
                os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file, which stays."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Close this process's copy of the file, right after a fork."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
