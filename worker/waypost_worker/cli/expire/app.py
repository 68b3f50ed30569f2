"""``waypost expire``: a command to each session that looks idle in Postgres; the worker decides by the log."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from waypost.errors import InvalidCommandError
from waypost.model.session import ERASED
from waypost.model.tenants import TenantScope
from waypost.wire.encode import check_session_id, expire_body
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.ages import age_of, moment_before
from waypost_worker.cli.support.connections import publishing, query
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    Format,
    Stream,
    confirm,
    event_line,
    note,
)
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings
from waypost_worker.operations.sending import Prepared, result_of

if TYPE_CHECKING:
    from waypost.publisher.client import Publisher
    from waypost.publisher.waiter import CommandResult

_PAGE: Final = 500
_UNSUPPORTED: Final = "unsupported-type"


def expire(
    *,
    idle: Annotated[
        str, Parameter(help="expire sessions with no commands for this long, such as 30d or 12h")
    ],
    prefix: Annotated[str, Parameter(help="only sessions whose ids begin with this text")] = "",
    tenant: TenantFlag = None,
    pinned: Annotated[bool, Parameter(help="also remove pinned checkpoints")] = False,
    dry_run: Annotated[bool, Parameter(help="list the sessions that would expire, and send nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Remove the checkpoints of sessions that have been idle.

    A session is idle if its last accepted command is older than --idle, by the
    broker's clock. Each idle session gets a command, so the removal is part of
    the log; a session that becomes active meanwhile is kept. Pinned
    checkpoints stay, unless --pinned is given.

    An expiry counts as activity. A second one, a further idle period later,
    also forgets the ids by which repeated commands are recognized. A session's
    counter and policy always stay.

    You can stop it at any time, run it again, and run it several times in parallel. The exit code is 1 if a command was
    rejected.

    For example:

      waypost expire --idle 30d --dry-run
      waypost expire --idle 12h --prefix run- --yes
      waypost expire --idle 90d --tenant acme --yes
    """
    if prefix:
        try:
            check_session_id(prefix)
        except InvalidCommandError as error:
            raise CommandError(f"--prefix: {error.message}", USAGE) from None
    if (narrowed := TenantScope(tenant).narrowed(prefix)) is None:
        raise CommandError(
            f"no session of the tenant {tenant!r} begins with {prefix!r}: leave out --prefix", USAGE
        )
    chosen = _Choice(moment_before("--idle", idle), age_of("--idle", idle), narrowed, pinned)
    counts = asyncio.run(_run(common.settings(), chosen, dry_run, yes, timeout, common.output))
    would = "would expire" if dry_run else "expired"
    said = [
        f"{counts['expired']} session{'' if counts['expired'] == 1 else 's'} {would}, "
        f"{counts['removed']} checkpoint{'' if counts['removed'] == 1 else 's'} {'to remove' if dry_run else 'removed'}"
    ]
    said += [f"{counts[kind]} {kind}" for kind in ("kept", ERASED, "rejected") if counts[kind]]
    note("; ".join(said))
    return FAILED if counts["rejected"] else DONE


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which sessions are to expire."""

    idle_since: datetime
    idle: timedelta
    prefix: str
    pinned: bool

    async def pages(self, databases: Databases, schema: str) -> AsyncIterator[Sequence[Any]]:
        """The sessions that look idle, in the order of their ids, for each database."""
        # Here and not above: commands that read nothing start faster.
        from waypost.reader.client import first_after

        sql = query("expire/idle", schema)
        for database in databases:
            after = ""
            while rows := await database.fetch(
                sql, after, self.prefix, first_after(self.prefix), self.idle_since, self.pinned, _PAGE
            ):
                yield rows
                after = rows[-1]["session_id"]

    def would_remove(self, row: Any) -> int:
        """Return how many checkpoints of a session would be removed, as far as Postgres knows."""
        pinned: int = 0 if self.pinned else row["pinned"]
        return int(row["checkpoints"]) - pinned


async def _run(
    settings: Settings, chosen: _Choice, dry_run: bool, yes: bool, timeout: float, output: Format
) -> Counter[str]:
    counts: Counter[str] = Counter()
    async with connected(settings, patiently=True) as databases:
        pages = partial(chosen.pages, databases, settings.postgres_schema)
        total = checkpoints = 0
        with Stream(output) as stream:
            async for rows in pages():
                total += len(rows)
                checkpoints += sum(map(chosen.would_remove, rows))
                for row in rows if dry_run else ():
                    _show_candidate(stream, row, chosen.would_remove(row), counts)
            if dry_run:
                return counts
            if not total:
                await _note_run(databases, settings.postgres_schema, chosen, counts)
                return counts
            confirm(f"this removes {checkpoints} checkpoints of {total} sessions for good", yes)
            # On a terminal that shows each session, its lines are the progress.
            hidden = output == "table" and sys.stdout.isatty()
            progress = WorkProgress("Expiring", total, "sessions")
            async with publishing(settings) as publisher:
                expiry = _Expiry(publisher, chosen, timeout)
                with nullcontext() if hidden else progress:
                    async for rows in pages():
                        for row, result in zip(rows, await expiry.results(rows), strict=True):
                            _show_result(stream, row, result, counts)
                        if not hidden:
                            progress.advanced(0, len(rows))
        await _note_run(databases, settings.postgres_schema, chosen, counts)
    return counts


async def _note_run(databases: Databases, schema: str, chosen: _Choice, counts: Counter[str]) -> None:
    """Note the run in each database, for ``waypost doctor``; a role that may only read can't, and doesn't have to."""
    import asyncpg

    from waypost_worker.operations.expiry import ExpiryRun, record_expiry

    run = ExpiryRun(chosen.prefix, chosen.idle, timedelta(0), counts["expired"], counts["removed"])
    try:
        for database in databases:
            await record_expiry(database, schema, run)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        note(f"all of it was done, but the run was not noted for 'waypost doctor': {error}")


class _Expiry:
    """Sends the commands and waits for their results."""

    def __init__(self, publisher: "Publisher", chosen: _Choice, timeout: float) -> None:
        self._publisher = publisher
        self._body = expire_body(chosen.idle_since, chosen.pinned)
        self._timeout = timeout
        self._known: set[int] = set()  # partitions whose workers know the command

    async def results(self, rows: Sequence[Any]) -> Sequence["CommandResult"]:
        """The results for these sessions, in their order."""
        made: dict[str, CommandResult] = {}
        # A worker of an earlier version rejects what it does not know: one command finds that out.
        first = {row["partition"]: row for row in reversed(rows) if row["partition"] not in self._known}
        for row in first.values():
            result = made[row["session_id"]] = await self._result(row)
            if result.type == EventType.REJECTED and result.body["code"] == _UNSUPPORTED:
                raise CommandError(
                    f"the worker of partition {row['partition']} is of an earlier version and doesn't know how to "
                    "expire sessions. It keeps the command as rejected. Upgrade all workers, and start this again"
                )
            self._known.add(row["partition"])
        rest = [row for row in rows if row["session_id"] not in made]
        found = await asyncio.gather(*map(self._result, rest))
        made |= {row["session_id"]: result for row, result in zip(rest, found, strict=True)}
        return [made[row["session_id"]] for row in rows]

    async def _result(self, row: Any) -> "CommandResult":
        command = Prepared(row["session_id"], EventType.EXPIRE, self._body)
        return await result_of(self._publisher, command, self._timeout)


def _show_candidate(stream: Stream, row: Any, would_remove: int, counts: Counter[str]) -> None:
    counts["expired"] += 1
    counts["removed"] += would_remove
    fields = {
        "session_id": row["session_id"],
        "last_recorded_at": row["last_recorded_at"],
        "would_remove": would_remove,
        "would_keep": row["checkpoints"] - would_remove,
    }
    last = row["last_recorded_at"].strftime("%Y-%m-%d %H:%M")
    about = f"{would_remove} of {row['checkpoints']} checkpoints; last active {last}"
    stream.show(fields, event_line(None, "idle", row["session_id"], about))


def _show_result(stream: Stream, row: Any, result: "CommandResult", counts: Counter[str]) -> None:
    body = result.body
    kind = result.type.rpartition(".")[2]
    if kind == "rejected" and body.get("code") == ERASED:  # meanwhile
        kind = ERASED
    counts[kind] += 1
    fields: dict[str, Any] = {"session_id": row["session_id"], "outcome": kind}
    if kind == "expired":
        counts["removed"] += body["count"]
        fields |= {"removed": body["count"], "last_recorded_at": body["last_recorded_at"]}
        about = f"{body['count']} checkpoints removed"
    elif kind == "kept":
        fields["last_recorded_at"] = body["last_recorded_at"]
        about = f"active at {body['last_recorded_at']}"
    else:
        fields |= {"code": body.get("code"), "message": body.get("message")}
        about = f"{body.get('code')}: {body.get('message')}"
    stream.show(fields, event_line(None, kind, row["session_id"], about))
