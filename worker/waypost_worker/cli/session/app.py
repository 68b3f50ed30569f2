"""``waypost session``: list and show sessions. Commands that move or change them are in separate modules."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, validators

from waypost_worker.cli.session.copy import copy, fork
from waypost_worker.cli.session.diff import diff
from waypost_worker.cli.session.export import export
from waypost_worker.cli.session.import_ import import_session
from waypost_worker.cli.session.policy import policy
from waypost_worker.cli.session.rollback import rollback
from waypost_worker.cli.session.threads import COLUMNS, THREAD, WRAP, readable, thread_row
from waypost_worker.cli.session.timeline import timeline
from waypost_worker.cli.support.connections import reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, note, show_fields, show_rows
from waypost_worker.cli.support.results import kept
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.model.checkpoint import Checkpoint
    from waypost.reader.pages import SessionPage

app = App(
    name="session",
    help="Show sessions, set their policies, move them and roll them back.",
)
app.command(export)
app.command(import_session, name="import")
app.command(copy)
app.command(fork)
app.command(diff)
app.command(timeline)
app.command(rollback)
app.command(policy)
_Limit = Annotated[
    int, Parameter(help="maximum number to show", validator=validators.Number(gte=1, lte=1_000_000))
]


@app.command(name="list")
def list_sessions(
    *,
    prefix: Annotated[str, Parameter(help="only sessions whose ids begin with this text")] = "",
    tenant: TenantFlag = None,
    limit: _Limit = 50,
    cursor: Annotated[str, Parameter(help="cursor from the end of the previous page")] = "",
    recent: Annotated[
        bool, Parameter(help="sort by last activity, most recent first, instead of by id")
    ] = False,
    common: Common = NOTHING_GIVEN,
) -> int:
    """List sessions, by id or by last activity.

    For example:

      waypost session list --prefix run- --limit 20
      waypost session list --tenant acme
      waypost session list --recent --limit 5
    """
    find = _recent if recent else _by_id
    rows, following = asyncio.run(find(common.settings(), tenant, prefix, limit, cursor))
    columns = ("session_id", "kept", "partition", "last_recorded_at")
    show_rows(rows, common.output, columns, "no sessions", wrap=("kept",))
    if following is not None:
        note(f"there may be more: continue with --cursor {following!r}")
    return DONE


_Listed = tuple[list[dict[str, Any]], str | None]


async def _by_id(settings: Settings, tenant: str | None, prefix: str, limit: int, cursor: str) -> _Listed:
    async with reading(settings, tenant) as reader:
        page = await reader.sessions(prefix=prefix, limit=limit, cursor=cursor)
    return _rows(page), page.cursor


async def _recent(settings: Settings, tenant: str | None, prefix: str, limit: int, cursor: str) -> _Listed:
    async with reading(settings, tenant) as reader:
        try:
            page = await reader.recent_sessions(prefix=prefix, limit=limit, cursor=cursor or None)
        except ValueError as error:
            raise CommandError(str(error), USAGE) from None
    return _rows(page), page.cursor


def _rows(page: "SessionPage") -> list[dict[str, Any]]:
    # The names that -o json has always had.
    return [
        {
            "session_id": info.session_id,
            "partition": info.partition,
            "counter": info.last_number,
            "checkpoints": info.checkpoint_count,
            "kept": kept(info.checkpoint_count, info.last_number) if info.erased_at is None else "erased",
            "policy": info.policy,
            "first_recorded_at": info.first_recorded_at,
            "last_recorded_at": info.last_recorded_at,
            "erased_at": info.erased_at,
        }
        for info in page
    ]


@app.command
def show(
    session: Annotated[str, Parameter(help="session id, or a checkpoint id to show its data")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="only checkpoints with this name")] = None,
    limit: _Limit = 50,
    tenant: TenantFlag = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show a session's checkpoints, newest first, or one checkpoint with its data.

    Of a LangGraph thread, the table has steps, nodes and exposed state. Values
    that an adapter encoded are shown as plain data, unless -o asks for JSON.

    For example:

      waypost session show session-1
      waypost session show session-1:12 -o json | jq .data
    """
    found, left = asyncio.run(_look(common.settings(), tenant, session, name, limit))
    if isinstance(found, dict):
        if common.output == "table":
            found["data"] = readable(session, found["data"])
        show_fields(found, common.output)
        return DONE
    columns: tuple[str, ...] = ("id", "name", "timestamp", "pinned", "bytes", "metadata")
    wrap: tuple[str, ...] = ("name", "metadata")
    if common.output == "table" and session.startswith(THREAD):
        found, columns, wrap = [thread_row(row) for row in found], COLUMNS, WRAP
    empty = f"{session} holds no checkpoints" if name is None else f"{session} holds none named {name}"
    show_rows(found, common.output, columns, empty, wrap=wrap)
    if len(found) == limit:
        note(f"there may be more than {limit}: see --limit")
    if common.output == "table":
        note(left)
    return DONE


async def _look(
    settings: Settings, tenant: str | None, session: str, name: str | None, limit: int
) -> tuple[list[dict[str, Any]] | dict[str, Any], str]:
    """A session's checkpoints and how many are left, or one checkpoint."""
    async with reading(settings, tenant) as reader:
        if (info := await reader.session_info(session)) is not None:
            page = await reader.session(session).page(name=name, limit=limit, newest_first=True)
            left = f"{kept(info.checkpoint_count, info.last_number)} checkpoints kept"
            if info.erased_at is not None:
                left = f"{session} was erased at {info.erased_at:%Y-%m-%d %H:%M:%S} UTC and takes no more commands"
            return [_row(checkpoint) for checkpoint in page.checkpoints], left
        found = await reader.session(session.rpartition(":")[0]).get(session)
        if found is None:
            raise CommandError(f"neither a session nor a checkpoint {session!r} is known")
        about = {
            **found.to_dict(),
            "recorded_at": found.recorded_at,
            "pinned": found.pinned,
            "imported_id": found.imported_id,
        }
        return about, ""


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
