"""Places for snapshots: a directory, or a bucket of an object store. Whole files in, whole files out.

A file is there with all its bytes or not at all, whatever happens to the process or the machine.
"""

import asyncio
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Protocol

from typing_extensions import override

from waypost.errors import WaypostError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_UNFINISHED: Final = ".part"
_LONGEST: Final = 300


class SnapshotError(WaypostError):
    """A snapshot can't be taken, read or restored. The message says what was kept and what to do."""


class Storage(Protocol):
    """The operations that a place must support. Paths are relative, with ``/``. Failures are SnapshotErrors."""

    where: str

    async def put(self, path: str, data: bytes) -> None:
        """Store a file for good."""
        ...

    async def get(self, path: str, most: int) -> bytes | None:
        """A file's bytes; None if there is no such file. One of more than ``most`` bytes is an error, and not read."""
        ...

    async def names(self) -> list[str]:
        """Return the top-level names, sorted: the names of snapshots, complete or not."""
        ...

    async def remove(self, name: str) -> None:
        """Remove all below a name, the manifest first."""
        ...


def open_storage(where: str) -> Storage:
    """The storage at a directory's path, or at a URL such as ``s3://bucket/path``.

    Credentials and endpoints of object stores come from their usual environment variables (AWS_ACCESS_KEY_ID,
    AWS_ENDPOINT_URL, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME, …).
    """
    scheme, colon, rest = where.partition("://")
    if not colon:
        return DirectoryStorage(Path(where))
    if scheme == "file":
        return DirectoryStorage(Path(rest))
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise SnapshotError(
            f"{where} is object storage, which needs the extra: pip install 'waypost[object-storage]'"
        ) from None
    try:
        return ObjectStorage(from_url(where), where)
    except (BaseError, ValueError) as error:
        raise SnapshotError(f"{where} can't be used: {_plainly(error)}") from None


class DirectoryStorage(Storage):
    """Files below a directory, which is made when the first is written."""

    def __init__(self, directory: Path) -> None:
        self.where = str(directory)
        self._directory = directory

    @override
    async def put(self, path: str, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._put, self._directory / path, data)
        except OSError as error:
            raise SnapshotError(
                f"{self._directory / path} can't be written: {error.strerror}. The snapshot is not complete and "
                "doesn't count; 'waypost snapshot prune' removes its files"
            ) from None

    def _put(self, path: Path, data: bytes) -> None:
        # Whole sessions are in it: as closed to other users as a database's own files, whatever the umask says.
        if not self._directory.exists():
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + _UNFINISHED)
        try:
            with open(unfinished, "wb", opener=_closed) as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        # The names of new files are in their directories, which have to reach the disk too.
        for directory in (path.parent, *path.parent.parents):
            _sync(directory)
            if directory == self._directory:
                break

    @override
    async def get(self, path: str, most: int) -> bytes | None:
        try:
            return await asyncio.to_thread(_read, self._directory / path, most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SnapshotError(f"{self._directory / path} can't be read: {error.strerror}") from None

    @override
    async def names(self) -> list[str]:
        try:
            return sorted(each.name for each in self._directory.iterdir() if each.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SnapshotError(f"{self.where} can't be read: {error.strerror}") from None

    @override
    async def remove(self, name: str) -> None:
        try:
            (self._directory / name / "manifest.json").unlink(missing_ok=True)
            await asyncio.to_thread(shutil.rmtree, self._directory / name)
        except OSError as error:
            raise SnapshotError(f"{self._directory / name} can't be removed: {error.strerror}") from None


def _closed(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class ObjectStorage(Storage):
    """Objects below a prefix of a bucket."""

    def __init__(self, store: "ObjectStore", where: str) -> None:
        self.where = where
        self._store = store

    @override
    async def put(self, path: str, data: bytes) -> None:
        import obstore

        await self._do("written", path, obstore.put_async(self._store, path, data))

    @override
    async def get(self, path: str, most: int) -> bytes | None:
        import obstore

        try:
            found = await obstore.get_async(self._store, path)
        except FileNotFoundError:
            return None
        except _failures() as error:
            raise self._failed("read", path, error) from None
        if (size := found.meta["size"]) > most:
            raise _too_large(f"{self.where}/{path}", size, most)
        return bytes(await self._do("read", path, found.bytes_async()))

    @override
    async def names(self) -> list[str]:
        import obstore

        listed = await self._do("listed", "", obstore.list_with_delimiter_async(self._store))
        return sorted(PurePosixPath(prefix).name for prefix in listed["common_prefixes"])

    @override
    async def remove(self, name: str) -> None:
        import obstore

        paths = []
        async for page in obstore.list(self._store, prefix=f"{name}/"):
            paths += [each["path"] for each in page]
        paths.sort(key=lambda path: not path.endswith("/manifest.json"))
        if paths:
            await self._do("removed", name, obstore.delete_async(self._store, paths[0]))
            await self._do("removed", name, obstore.delete_async(self._store, paths[1:]))

    async def _do(self, done: str, path: str, doing: Any) -> Any:
        try:
            return await doing
        except _failures() as error:
            raise self._failed(done, path, error) from None

    def _failed(self, done: str, path: str, error: Exception) -> SnapshotError:
        what = f"{self.where}/{path}".rstrip("/")
        return SnapshotError(f"{what} can't be {done}: {_plainly(error)}")


def _failures() -> tuple[type[Exception], ...]:
    """The errors of an object store's client."""
    from obstore.exceptions import BaseError

    return BaseError, OSError, ValueError


def _read(path: Path, most: int) -> bytes:
    # Don't wait for the other end to be opened, if it is a pipe.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise SnapshotError(f"{path} is not a file. No part of it was read: use another snapshot")
        if found.st_size > most:
            raise _too_large(str(path), found.st_size, most)
        return file.read(most)


def _too_large(path: str, size: int, most: int) -> SnapshotError:
    return SnapshotError(
        f"{path} has {size} bytes, and at most {most} are allowed: it was changed. No part of it was read: use another "
        "snapshot"
    )


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plainly(error: Exception) -> str:
    """Return the beginning of a client's message; the rest is internal."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
