"""``waypost session export``: one session as a list, or many as lines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from waypost_worker.cli.support.connections import reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, note, write
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec
    from waypost.reader.client import Reader, SnapshotSet

_SESSIONS: Final = 500


def export(
    session: Annotated[str | None, Parameter(help="session id")] = None,
    /,
    *,
    prefix: Annotated[str | None, Parameter(help="all sessions whose ids begin with this text")] = None,
    every: Annotated[bool, Parameter(name="--all", help="all sessions")] = False,
    tenant: TenantFlag = None,
    to: Annotated[Path | None, Parameter(help="file to write to (default: standard output)")] = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Write a session as the interchange JSON list, or with -o jsonl as one checkpoint per line.

    With --prefix, --tenant or --all, many sessions as they are at one moment,
    always one checkpoint per line. 'waypost session import' reads both.

    For example:

      waypost session export session-1 --to session-1.json
      waypost session export --all --to all.jsonl
      waypost session export --tenant acme --to acme.jsonl
    """
    settings = common.settings()
    given = [session is not None, prefix is not None, every].count(True)
    if given > 1 or (given == 0 and tenant is None):
        raise CommandError("name a SESSION, or give --prefix, --tenant or --all", USAGE)
    if session is None and common.output == "json":
        raise CommandError("many sessions are written as JSON lines: use -o jsonl", USAGE)
    pieces = _Pieces(session, prefix or "", by_line=session is None or common.output == "jsonl")
    if to is None:
        asyncio.run(_export(settings, tenant, pieces, write))
        return DONE
    # A reader that finds the file must find all of it.
    part = to.with_name(to.name + ".part")
    try:
        with part.open("wb") as out:
            asyncio.run(_export(settings, tenant, pieces, lambda piece: _put(out.write, piece, to)))
        part.replace(to)
    except OSError as error:
        raise _unwritable(to, error) from None
    finally:
        part.unlink(missing_ok=True)
    of = f" of {pieces.sessions} session{'' if pieces.sessions == 1 else 's'}" if session is None else ""
    note(f"{pieces.count} checkpoint{'' if pieces.count == 1 else 's'}{of} written to {to}")
    return DONE


class _Pieces:
    """The sessions to write, and how much was written."""

    def __init__(self, session: str | None, prefix: str, *, by_line: bool) -> None:
        self.count = self.sessions = 0
        self._session = session
        self._prefix = prefix
        self._by_line = by_line
        self._codec: Codec | None = None

    async def of(self, reader: "Reader") -> AsyncIterator[bytes]:
        self._codec = reader.codec
        if self._session is None:
            async with reader.snapshot() as snapshot:
                async for session in _ids(snapshot, self._prefix):
                    self.sessions += 1
                    async for line in self._lines(snapshot, session):
                        yield line
            return
        if await reader.session_info(self._session) is None:
            raise CommandError(f"no session {self._session!r} is known")
        if self._by_line:
            async with reader.snapshot() as snapshot:
                async for line in self._lines(snapshot, self._session):
                    yield line
            return
        async for piece in reader.session(self._session).export_stream():
            yield piece
        yield b"\n"
        self.count = await reader.session(self._session).count()

    async def _lines(self, snapshot: "SnapshotSet", session: str) -> AsyncIterator[bytes]:
        from waypost.reader.session import checkpoints_of
        from waypost_worker.operations.interchange import line_of

        async for checkpoint in checkpoints_of(snapshot, session, self._codec):
            self.count += 1
            yield line_of(checkpoint) + b"\n"


async def _ids(snapshot: "SnapshotSet", prefix: str) -> AsyncIterator[str]:
    from waypost.reader.client import sessions_of

    cursor = None
    while True:
        page = await sessions_of(snapshot, prefix=prefix, cursor=cursor, limit=_SESSIONS)
        for session in page:
            yield session.session_id
        if (cursor := page.cursor) is None:
            return


async def _export(
    settings: Settings, tenant: str | None, pieces: _Pieces, put: Callable[[bytes], object]
) -> None:
    async with reading(settings, tenant) as reader:
        async for piece in pieces.of(reader):
            put(piece)


def _put(write_to: Callable[[bytes], object], piece: bytes, path: Path) -> None:
    try:
        write_to(piece)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} can't be written: {error.strerror}; no partial file is left")
