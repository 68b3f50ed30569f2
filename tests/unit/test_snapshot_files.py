"""Rows cut into files and joined again, and a directory that holds them."""

import hashlib
import os
import random
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cramjam
import pytest

from waypost_worker.snapshots.catalog import chosen, listed, newest
from waypost_worker.snapshots.files import TableWriter, read, stream_of
from waypost_worker.snapshots.manifest import File
from waypost_worker.snapshots.storage import DirectoryStorage, SnapshotError, open_storage

NAME = "20261124T120000000Z-1a2b3c"


@pytest.mark.parametrize("seed", range(5))
async def test_a_stream_comes_back_whole_however_it_was_cut(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    storage = DirectoryStorage(tmp_path)
    writer = TableWriter(storage, NAME, 3, "checkpoints", piece_bytes=1000)
    sent = b""
    for _ in range(chance.randrange(1, 40)):
        piece = chance.randbytes(chance.choice([0, 1, 10, 999, 1000, 1001, 2500]))
        await writer.write(piece)
        sent += piece
    await writer.end(rows=1)
    assert b"".join([piece async for piece in stream_of(storage, NAME, writer.files)]) == sent
    assert all(file.raw_size <= 1000 for file in writer.files)
    for file in writer.files:
        stored = (tmp_path / NAME / file.path).read_bytes()
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (file.size, file.sha256)


async def test_a_table_without_rows_leaves_no_file(tmp_path: Path) -> None:
    writer = TableWriter(DirectoryStorage(tmp_path), NAME, 0, "outbox")
    await writer.write(b"only a header")
    await writer.end(rows=0)
    assert writer.files == []
    assert os.listdir(tmp_path) == []


async def test_each_single_flipped_bit_is_found(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    writer = TableWriter(storage, NAME, 0, "sessions")
    await writer.write(os.urandom(40))
    await writer.end(rows=1)
    (file,) = writer.files
    path = tmp_path / NAME / file.path
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(SnapshotError, match="another checksum"):
                await read(storage, NAME, file)
    path.write_bytes(whole)
    assert len(await read(storage, NAME, file)) == 40
    with pytest.raises(SnapshotError, match="bytes instead of"):
        await read(storage, NAME, replace(file, size=file.size + 1))


async def test_a_directory_shows_snapshots_and_nothing_else(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}")
    await storage.put(f"{NAME}/partition-00000/sessions-000001.copy.zst", b"x")
    await storage.put("family-photos/manifest.json", b"{}")
    (tmp_path / "notes.txt").write_text("mine")
    assert [(each.name, each.state) for each in await listed(storage)] == [(NAME, "incomplete")]
    assert await newest(storage) is None
    for name in ("family-photos", "../etc", "latest"):
        with pytest.raises(SnapshotError, match="holds no"):
            await chosen(storage, name)
    await storage.remove(NAME)
    assert await listed(storage) == []
    assert (tmp_path / "family-photos").exists()


async def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "none"))
    assert await storage.names() == []
    assert await storage.get("x/manifest.json", 10) is None


async def test_a_place_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = open_storage(str(tmp_path / "file"))
    with pytest.raises(SnapshotError, match="can't be written: Not a directory"):
        await storage.put("a/b", b"x")
    with pytest.raises(SnapshotError, match="can't be read"):
        await storage.names()


async def test_a_newer_snapshot_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    await storage.put(f"{NAME}/manifest.json", b"{")
    assert [each.state for each in await listed(storage)] == ["unreadable"]
    with pytest.raises(SnapshotError, match="can't be read"):
        await newest(storage)


def bomb() -> bytes:
    """Some kilobytes that unpack to 2 GB."""
    return bytes(cramjam.zstd.compress(bytes(64 * 1024 * 1024), level=1)) * 32


HARM = {
    "a bomb": bomb(),
    "too little": bytes(cramjam.zstd.compress(b"12345")),
    "bytes behind the frame": bytes(cramjam.zstd.compress(b"1234567890")) + b"more",
    "not zstd": b"nothing that is compressed",
    "half a frame": bytes(cramjam.zstd.compress(bytes(range(256)) * 40))[:-40],
}


@pytest.mark.parametrize("packed", HARM.values(), ids=HARM)
async def test_no_more_is_unpacked_than_the_manifest_says(tmp_path: Path, packed: bytes) -> None:
    file = File(
        "partition-00000/sessions-000001.copy.zst",
        "sessions",
        len(packed),
        10,
        hashlib.sha256(packed).hexdigest(),
    )
    storage = DirectoryStorage(tmp_path)
    await storage.put(f"{NAME}/{file.path}", packed)
    began = memory_peak()
    with pytest.raises(SnapshotError, match="does not hold the 10 bytes"):
        await read(storage, NAME, file)
    assert memory_peak() - began < 200 * 1024 * 1024


def memory_peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_file_larger_than_its_manifest_says_is_not_read(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    path = tmp_path / NAME / "manifest.json"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(SnapshotError, match=f"has {2**40} bytes, and at most"):
        await chosen(storage, NAME)
    assert [each.state for each in await listed(storage)] == ["unreadable"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
async def test_missing_files_are_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / NAME).mkdir()
    make(tmp_path / NAME / "manifest.json")
    with pytest.raises(SnapshotError, match=r"is not a file|can't be read"):
        await chosen(DirectoryStorage(tmp_path), NAME)


async def test_a_directory_s_files_are_closed_to_other_users_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await DirectoryStorage(tmp_path / "snapshots").put(
            f"{NAME}/partition-00000/sessions-000001.copy.zst", b"rows"
        )
    finally:
        os.umask(before)
    (file,) = (tmp_path / "snapshots").rglob("*.zst")
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "snapshots", file)] == [0, 0]
