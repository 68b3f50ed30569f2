"""A key store in a directory: a file for each session, written under a lock and replaced atomically.

For publishers and readers of one user on one machine, or on a file system that they share. File names are hashes of
session ids, which may hold any characters.
"""

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from waypost.arguments import checked_path
from waypost.encryption.key_store import PAGE, StoredKey, not_ready
from waypost.errors import KeyStoreError
from waypost.private_directory import exposure, sync_directory

_STORE: Final = "store.json"
_LOCK: Final = "lock"
_DRAFT: Final = ".draft-"
_VERSION: Final = 1
_SUFFIX: Final = ".json"
_T = TypeVar("_T")


class DirectoryKeyStore:
    """Key store in a directory that belongs to this user and is closed to others.

    Args:
        path: The directory. ``waypost keys init`` makes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = checked_path("the key directory", path)
        self._deployment: str | None = None

    def __repr__(self) -> str:
        return f"<DirectoryKeyStore in {self._path}>"

    @property
    def described(self) -> str:
        """Description of where the store is."""
        return f"the directory {self._path}"

    async def initialize(self) -> bool:
        """Make the directory and its id. Return False if they were there."""
        return await self._in_thread(self._initialize)

    async def deployment(self) -> str:
        """Return the random id that the store got when it was made."""
        if self._deployment is None:
            self._deployment = await self._in_thread(self._read_deployment)
        return self._deployment

    async def find(self, session_ids: Collection[str]) -> dict[str, StoredKey]:
        """Return the keys and tombstones of these sessions."""
        return await self._in_thread(lambda: self._find(session_ids))

    async def create(self, key: StoredKey) -> StoredKey:
        """Store a session's first key, and return what the store holds for that session now."""
        return await self._in_thread(lambda: self._create(key))

    async def replace(self, old: StoredKey, new: StoredKey) -> bool:
        """Put a key that was wrapped again in the place of ``old``, if that is still there."""
        return await self._in_thread(lambda: self._replace(old, new))

    async def erase(self, session_id: str, at: datetime) -> StoredKey:
        """Delete a session's key, and return the tombstone that stays."""
        return await self._in_thread(lambda: self._erase(session_id, at))

    async def page(self, after: str | None = None, limit: int = PAGE) -> list[StoredKey]:
        """Return keys and tombstones in the order of their file names."""
        return await self._in_thread(lambda: self._page(after, limit))

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.to_thread(self._checked, work)

    def _checked(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except OSError as error:
            raise KeyStoreError(f"{self.described} can't be used as a key store: {error}") from error

    def _initialize(self) -> bool:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._require_private()
        made = json.dumps({"version": _VERSION, "deployment": str(uuid4())})
        with self._draft(self._path, made.encode()) as draft:
            try:
                os.link(draft, self._path / _STORE)
            except FileExistsError:
                return False
            sync_directory(self._path)
            return True

    def _require_private(self) -> None:
        try:
            found = exposure(self._path)
        except FileNotFoundError:
            raise not_ready(self.described) from None
        if found is not None:
            raise KeyStoreError(
                f"The key directory {self._path} {found.problem}. No key was read or written. {found.remedy}"
            )

    def _read_deployment(self) -> str:
        self._require_private()
        try:
            found = json.loads((self._path / _STORE).read_text())
            version, deployment = found["version"], found["deployment"]
        except FileNotFoundError:
            raise not_ready(self.described) from None
        except (ValueError, KeyError, TypeError):
            raise self._damaged(self._path / _STORE) from None
        if version != _VERSION or not isinstance(deployment, str):
            raise KeyStoreError(
                f"{self.described} was made by another version of Waypost (format {version}). No key was read or "
                "written"
            )
        return deployment

    def _damaged(self, path: Path) -> KeyStoreError:
        return KeyStoreError(
            f"The key file {path} is damaged, so it was neither used nor replaced. Restore it from a copy"
        )

    def _file(self, session_id: str) -> Path:
        name = hashlib.sha256(session_id.encode()).hexdigest()
        return self._path / name[:2] / f"{name}{_SUFFIX}"

    def _find(self, session_ids: Collection[str]) -> dict[str, StoredKey]:
        self._read_deployment()
        found = {session_id: self._read(self._file(session_id)) for session_id in session_ids}
        return {session_id: key for session_id, key in found.items() if key is not None}

    def _read(self, path: Path) -> StoredKey | None:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            key = _decoded(json.loads(text))
        except (ValueError, KeyError, TypeError):
            raise self._damaged(path) from None
        if self._file(key.session_id) != path:
            raise self._damaged(path)
        return key

    def _create(self, key: StoredKey) -> StoredKey:
        path = self._file(key.session_id)
        with self._alone():
            if (found := self._read(path)) is not None:
                return found
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._write(path, _encoded(key))
            return key

    def _replace(self, old: StoredKey, new: StoredKey) -> bool:
        path = self._file(old.session_id)
        with self._alone():
            if old.erased or self._read(path) != old:
                return False
            self._write(path, _encoded(new))
            return True

    def _erase(self, session_id: str, at: datetime) -> StoredKey:
        path = self._file(session_id)
        with self._alone():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            found = self._read(path) or StoredKey(session_id, "", "", b"", at)
            if not found.erased:
                found = replace(found, wrapping_key="", wrapped=b"", erased_at=at)
                self._write(path, _encoded(found))
            # Of a process that died while it wrote. One may hold this session's key.
            for draft in path.parent.glob(f"{_DRAFT}*"):
                draft.unlink()
            sync_directory(path.parent)
            return found

    def _page(self, after: str | None, limit: int) -> list[StoredKey]:
        self._read_deployment()
        name = "" if after is None else self._file(after).name
        found = (self._read(path) for path in islice(self._paths(name), limit))
        return [key for key in found if key is not None]

    def _paths(self, name: str) -> Iterator[Path]:
        """The files that follow one with this name."""
        for directory in sorted(self._path.glob("[0-9a-f][0-9a-f]")):
            if directory.name >= name[:2]:
                yield from sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.name > name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Otherwise a rotation that has read a key could write it back over the tombstone of an erasure.
        self._read_deployment()
        lock = os.open(self._path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            # Not by closing alone: a child that was forked meanwhile holds the file open as well.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _write(self, path: Path, content: bytes) -> None:
        """Write or replace a file atomically: nobody reads a part of it."""
        with self._draft(path.parent, content) as draft:
            os.replace(draft, path)
            sync_directory(path.parent)

    @contextmanager
    def _draft(self, directory: Path, content: bytes) -> Iterator[Path]:
        number, name = tempfile.mkstemp(prefix=_DRAFT, dir=directory)
        draft = Path(name)
        try:
            with open(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def _encoded(key: StoredKey) -> bytes:
    return json.dumps(
        {
            "session_id": key.session_id,
            "key_id": key.key_id,
            "wrapping_key": key.wrapping_key,
            "wrapped": base64.b64encode(key.wrapped).decode(),
            "created_at": key.created_at.isoformat(),
            "erased_at": None if key.erased_at is None else key.erased_at.isoformat(),
        }
    ).encode()


def _decoded(found: dict[str, Any]) -> StoredKey:
    erased_at = found["erased_at"]
    return StoredKey(
        session_id=found["session_id"],
        key_id=found["key_id"],
        wrapping_key=found["wrapping_key"],
        wrapped=base64.b64decode(found["wrapped"], validate=True),
        created_at=datetime.fromisoformat(found["created_at"]),
        erased_at=None if erased_at is None else datetime.fromisoformat(erased_at),
    )
