"""A key store in a directory: who may use it, and what is found there."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from waypost.encryption.directory import DirectoryKeyStore
from waypost.encryption.key_store import StoredKey
from waypost.errors import KeyStoreError

NOW = datetime(2026, 11, 30, tzinfo=UTC)
KEY = StoredKey("s", "key-1", "kek-1", b"the wrapped key", NOW)


@pytest.fixture
async def store(tmp_path: Path) -> DirectoryKeyStore:
    made = DirectoryKeyStore(tmp_path / "keys")
    await made.initialize()
    await made.create(KEY)
    return made


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


async def test_files_and_directories_are_closed_to_other_users(
    store: DirectoryKeyStore, tmp_path: Path
) -> None:
    for path in (tmp_path / "keys").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_a_directory_that_others_may_enter_is_refused(store: DirectoryKeyStore, tmp_path: Path) -> None:
    (tmp_path / "keys").chmod(0o750)
    with pytest.raises(KeyStoreError, match=r"open to other users \(mode 750\).*chmod 700"):
        await store.find(["s"])


async def test_a_damaged_file_is_neither_used_nor_replaced(store: DirectoryKeyStore, tmp_path: Path) -> None:
    (path,) = (tmp_path / "keys").glob("??/*.json")
    for content in (b"", b"{", b"[]", b'{"session_id":"s"}', b"\xff"):
        path.write_bytes(content)
        for use in (store.find(["s"]), store.create(KEY), store.page(), store.erase("s", NOW)):
            with pytest.raises(KeyStoreError, match="damaged"):
                await use
        assert path.read_bytes() == content


async def test_the_key_of_another_session_is_not_taken_for_a_session_s(
    store: DirectoryKeyStore, tmp_path: Path
) -> None:
    (path,) = (tmp_path / "keys").glob("??/*.json")
    other = store._file("other")
    other.parent.mkdir(exist_ok=True)
    path.rename(other)
    with pytest.raises(KeyStoreError, match="damaged"):
        await store.find(["other"])


async def test_an_erasure_leaves_the_wrapped_key_in_no_file(store: DirectoryKeyStore, tmp_path: Path) -> None:
    (path,) = (tmp_path / "keys").glob("??/*.json")
    # Left by a process that died while it wrote.
    (path.parent / ".draft-abc").write_bytes(path.read_bytes())
    await store.erase("s", NOW)
    found = files(tmp_path / "keys")
    assert path in found
    assert not any(b"dGhlIHdyYXBwZWQga2V5" in each.read_bytes() for each in found)


async def test_a_later_format_is_refused(store: DirectoryKeyStore, tmp_path: Path) -> None:
    (tmp_path / "keys" / "store.json").write_text('{"version": 2, "deployment": "x"}')
    with pytest.raises(KeyStoreError, match=r"another version of Waypost \(format 2\)"):
        await store.find(["s"])
