"""``waypost session``: look at sessions, and take them out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, validators

from waypost_worker.cli.common import NOTHING_GIVEN, Common
from waypost_worker.cli.output import (
    DONE,
    CommandError,
    note,
    show_fields,
    show_rows,
    write,
)
from waypost_worker.cli.reach import reading
from waypost_worker.cli.session_changes import import_session, rollback
from waypost_worker.settings import Settings

if TYPE_CHECKING:
    from waypost.checkpoint import Checkpoint
    from waypost.reader import Reader

app = App(name="session", help="List, show, export, import and roll back sessions.")
app.command(import_session, name="import")
app.command(rollback)
_Limit = Annotated[int, Parameter(help="at most so many", validator=validators.Number(gte=1, lte=1_000_000))]


@app.command(name="list")
def list_sessions(
    *,
    prefix: Annotated[str, Parameter(help="only ids that begin with this")] = "",
    limit: _Limit = 50,
    cursor: Annotated[str, Parameter(help="go on after this session id")] = "",
    common: Common = NOTHING_GIVEN,
) -> int:
    """List sessions, by id.

    For example:

      waypost session list --prefix team-a/ --limit 20
    """
    rows = asyncio.run(_sessions(common.settings(), prefix, limit, cursor))
    columns = ("session_id", "checkpoints", "counter", "partition", "last_recorded_at")
    show_rows(rows, common.output, columns, "no sessions", wrap=("session_id",))
    if len(rows) == limit:
        note(f"there may be more: go on with --cursor {rows[-1]['session_id']!r}")
    return DONE


async def _sessions(settings: Settings, prefix: str, limit: int, cursor: str) -> list[dict[str, Any]]:
    async with reading(settings) as reader:
        return [asdict(each) for each in await reader.sessions(prefix=prefix, limit=limit, cursor=cursor)]


@app.command
def show(
    session: Annotated[str, Parameter(help="session id, or checkpoint id for its data")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="only checkpoints of this name")] = None,
    limit: _Limit = 50,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show a session's checkpoints, newest first, or one checkpoint with its data.

    For example:

      waypost session show session-1
      waypost session show session-1:12 -o json | jq .data
    """
    found = asyncio.run(_look(common.settings(), session, name, limit))
    if isinstance(found, dict):
        show_fields(found, common.output)
        return DONE
    columns = ("id", "name", "timestamp", "pinned", "bytes", "metadata")
    empty = f"{session} holds no checkpoints" if name is None else f"{session} holds none named {name}"
    show_rows(found, common.output, columns, empty, wrap=("id", "name", "metadata"))
    if len(found) == limit:
        note(f"there may be more than {limit}: see --limit")
    return DONE


async def _look(
    settings: Settings, session: str, name: str | None, limit: int
) -> list[dict[str, Any]] | dict[str, Any]:
    async with reading(settings) as reader:
        if await reader.session_info(session) is not None:
            page = await reader.session(session).page(name=name, limit=limit, newest_first=True)
            return [_row(checkpoint) for checkpoint in page.checkpoints]
        found = await reader.session(session.rpartition(":")[0]).get(session)
        if found is None:
            raise CommandError(f"neither a session nor a checkpoint {session!r} is known")
        return {
            **found.to_dict(),
            "recorded_at": found.recorded_at,
            "pinned": found.pinned,
            "imported_id": found.imported_id,
        }


def _row(checkpoint: "Checkpoint") -> dict[str, Any]:
    return {
        "id": checkpoint.id,
        "name": checkpoint.name,
        "timestamp": checkpoint.timestamp,
        "recorded_at": checkpoint.recorded_at,
        "pinned": checkpoint.pinned,
        "bytes": len(checkpoint.raw_data),
        "metadata": checkpoint.metadata,
        "imported_id": checkpoint.imported_id,
    }


@app.command
def export(
    session: Annotated[str, Parameter(help="session id")],
    /,
    *,
    to: Annotated[Path | None, Parameter(help="file, instead of standard output")] = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Write a session as the interchange JSON list; with -o jsonl a checkpoint a
    line.

    'waypost session import' reads the list.

    For example:

      waypost session export session-1 --to session-1.json
    """
    settings = common.settings()
    by_line = common.output == "jsonl"
    if to is None:
        asyncio.run(_export(settings, session, by_line, write))
        return DONE
    # Whoever finds the file finds all of it.
    part = to.with_name(to.name + ".part")
    try:
        with part.open("wb") as out:
            count = asyncio.run(_export(settings, session, by_line, lambda piece: _put(out.write, piece, to)))
        part.replace(to)
    except OSError as error:
        raise _unwritable(to, error) from None
    finally:
        part.unlink(missing_ok=True)
    note(f"{count} checkpoint{'' if count == 1 else 's'} written to {to}")
    return DONE


async def _export(settings: Settings, session: str, by_line: bool, put: Callable[[bytes], object]) -> int:
    async with reading(settings) as reader:
        if await reader.session_info(session) is None:
            raise CommandError(f"no session {session!r} is known")
        async for piece in _pieces(reader, session, by_line):
            put(piece)
        return await reader.session(session).count()


async def _pieces(reader: "Reader", session: str, by_line: bool) -> AsyncIterator[bytes]:
    import orjson

    if by_line:
        async for checkpoint in reader.session(session):
            yield orjson.dumps(checkpoint.to_dict()) + b"\n"
        return
    async for piece in reader.session(session).export_stream():
        yield piece
    yield b"\n"


def _put(write_to: Callable[[bytes], object], piece: bytes, path: Path) -> None:
    try:
        write_to(piece)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} can't be written: {error.strerror}; nothing is left of it")
