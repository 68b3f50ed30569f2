"""``waypost session timeline``: a session's checkpoints in their order, with what happened between them."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from waypost_worker.cli.support.connections import reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import DONE, CommandError, note, show_rows
from waypost_worker.cli.support.results import kept
from waypost_worker.operations.stored_session import FORKED_FROM

if TYPE_CHECKING:
    from waypost.model.checkpoint import Checkpoint


def timeline(
    session: Annotated[str, Parameter(help="session id")],
    /,
    *,
    limit: Annotated[
        int,
        Parameter(
            help="number of newest checkpoints to show", validator=validators.Number(gte=1, lte=10_000)
        ),
    ] = 50,
    tenant: TenantFlag = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show a session's checkpoints, oldest first, and what changed between them.

    Each line has the time since the previous checkpoint (agents' clocks may go backwards), the keys of data that were
    added (+), removed (-) or changed (~), pins, where it was imported or forked from, and how many numbers before it
    are missing. 'waypost tail --session SESSION --from-beginning' shows all commands.

    For example:

      waypost session timeline session-1
      waypost session timeline session-1 --limit 500 -o jsonl
    """
    found, left = asyncio.run(_newest(common, tenant, session, limit + 1))
    more = len(found) > limit
    rows = [_row(found[at - 1] if at else None, found[at]) for at in range(more, len(found))]
    if common.output == "table":
        columns = ("number", "timestamp", "since", "name", "data", "marks")
        empty = f"{session} holds no checkpoints"
        show_rows([_for_people(row) for row in rows], "table", columns, empty, wrap=("name", "data", "marks"))
    else:
        show_rows(rows, common.output, ())
    if more:
        note(f"there are more than {limit}: see --limit")
    if common.output == "table":
        note(f"{left} checkpoints kept")
    return DONE


async def _newest(
    common: Common, tenant: str | None, session: str, limit: int
) -> "tuple[list[Checkpoint], str]":
    async with reading(common.settings(), tenant) as reader:
        if (info := await reader.session_info(session)) is None:
            raise CommandError(f"no session {session!r} is known")
        page = await reader.session(session).page(limit=limit, newest_first=True)
    return page.checkpoints[::-1], kept(info.checkpoint_count, info.last_number)


def _row(before: "Checkpoint | None", checkpoint: "Checkpoint") -> dict[str, Any]:
    old, new = before.data if before else {}, checkpoint.data
    since = (checkpoint.timestamp - before.timestamp).total_seconds() if before else None
    return {
        "id": checkpoint.id,
        "number": checkpoint.number,
        "name": checkpoint.name,
        "timestamp": checkpoint.timestamp,
        "recorded_at": checkpoint.recorded_at,
        "seconds_since": since,
        "gone_before": checkpoint.number - (before.number if before else 0) - 1,
        "pinned": checkpoint.pinned,
        "imported_id": checkpoint.imported_id,
        FORKED_FROM: checkpoint.metadata.get(FORKED_FROM),
        "added": [key for key in new if key not in old],
        "removed": [key for key in old if key not in new],
        "changed": [key for key in new if key in old and new[key] != old[key]],
    }


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    signs = (("+", "added"), ("-", "removed"), ("~", "changed"))
    marks = [
        f"{row['gone_before']} gone before" if row["gone_before"] else "",
        "pinned" if row["pinned"] else "",
        f"forked from {row[FORKED_FROM]}" if row[FORKED_FROM] else "",
        f"was {row['imported_id']}" if row["imported_id"] and not row[FORKED_FROM] else "",
    ]
    return {
        **row,
        "since": "" if row["seconds_since"] is None else _span(row["seconds_since"]),
        "data": " ".join(f"{sign}{key}" for sign, field in signs for key in row[field][:4]),
        "marks": ", ".join(mark for mark in marks if mark),
    }


def _span(seconds: float) -> str:
    sign, seconds = ("-" if seconds < 0 else "+"), abs(seconds)
    if seconds < 60:
        return f"{sign}{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{sign}{minutes:.0f} min" if hours < 2 else f"{sign}{hours:.0f} h"
