"""Rows as files: a stream of COPY data is cut into pieces, each compressed and with its checksum, and joined again.

A piece is one Zstandard frame and one object, so that neither side ever holds more than one, and no store needs
uploads in parts.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import cramjam

from waypost.kafka.decompression import ZSTD, unpack
from waypost_worker.snapshots.manifest import PIECE_BYTES as PIECE_BYTES
from waypost_worker.snapshots.manifest import File, path_of
from waypost_worker.snapshots.storage import SnapshotError, Storage

_LEVEL: Final = 1  # for JSON as agents write it, as small as level 3 at a fourth of the time


class TableWriter:
    """Takes one table's COPY stream of one partition, and stores it as files of the snapshot ``name``."""

    def __init__(
        self, storage: Storage, name: str, partition: int, table: str, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self.files: list[File] = []
        self._storage = storage
        self._name = name
        self._partition = partition
        self._table = table
        self._piece_bytes = piece_bytes
        self._held = bytearray()

    async def write(self, data: bytes) -> None:
        """More of the stream."""
        self._held += data
        while len(self._held) >= self._piece_bytes:
            piece = bytes(self._held[: self._piece_bytes])
            del self._held[: self._piece_bytes]
            await self._store(piece)

    async def end(self, rows: int) -> None:
        """The rest; a table without rows leaves no file."""
        if rows and self._held:
            await self._store(bytes(self._held))

    async def _store(self, piece: bytes) -> None:
        packed, checksum = await asyncio.to_thread(_pack, piece)
        path = path_of(self._partition, self._table, len(self.files) + 1)
        self.files.append(File(path, self._table, len(packed), len(piece), checksum))
        await self._storage.put(f"{self._name}/{path}", packed)


async def stream_of(storage: Storage, name: str, files: Sequence[File]) -> AsyncIterator[bytes]:
    """Yield the contents of a table's files of a partition, in order. Raise SnapshotError at the first changed file."""
    for file in files:
        yield await read(storage, name, file)


async def read(storage: Storage, name: str, file: File) -> bytes:
    """One file's rows. SnapshotError if it is missing, or not as it was written."""
    path = f"{name}/{file.path}"
    packed = await storage.get(path, file.size)
    if packed is None:
        raise SnapshotError(f"{storage.where}/{path} is missing: the snapshot is damaged. Use another one")
    return await asyncio.to_thread(_unpack, packed, file, f"{storage.where}/{path}")


def _pack(piece: bytes) -> tuple[bytes, str]:
    packed = bytes(cramjam.zstd.compress(piece, level=_LEVEL))
    return packed, hashlib.sha256(packed).hexdigest()


def _unpack(packed: bytes, file: File, where: str) -> bytes:
    if len(packed) != file.size:
        raise SnapshotError(
            f"{where} has {len(packed)} bytes instead of {file.size}: it was truncated or changed. Use another snapshot"
        )
    if hashlib.sha256(packed).hexdigest() != file.sha256:
        raise SnapshotError(
            f"{where} has another checksum than when it was written: it was damaged or changed. Use another "
            "snapshot"
        )
    # Step by step, and no further than the manifest says, which is bounded itself.
    unpacked = unpack(ZSTD, memoryview(packed), file.raw_size)
    raw = b"".join(unpacked.chunks)
    if unpacked.too_large or unpacked.problem is not None or len(raw) != file.raw_size:
        raise SnapshotError(
            f"{where} does not hold the {file.raw_size} bytes that its manifest says "
            f"({unpacked.problem or f'{len(raw)} bytes'}): it is malicious or damaged. Use another snapshot"
        )
    return raw
