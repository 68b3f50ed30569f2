"""Read what Postgres holds of a session, and which sessions there are."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from waypost_worker.cli.support.connections import query
from waypost_worker.cli.support.databases import Databases
from waypost_worker.cli.support.output import CommandError

_PAGE: Final = 500


class Held(NamedTuple):
    """The rows that all databases hold of a session. The times are None if it is unknown there.

    ``unattributed`` rejected commands name no session that could be read.
    """

    first: datetime | None
    erased_at: datetime | None
    checkpoints: int
    bytes: int
    command_ids: int
    rejected: int
    unattributed: int


async def look(databases: Databases, schema: str, session: str) -> Held:
    """Return what is held of a session."""
    sql = query("erase/held", schema)
    rows = [await database.fetchrow(sql, session) for database in databases]
    home = next((row for row in rows if row["partition"] is not None), rows[0])
    return Held(
        home["first_recorded_at"],
        home["erased_at"],
        *(
            sum(row[name] for row in rows)
            for name in ("checkpoints", "bytes", "command_ids", "rejected", "unattributed")
        ),
    )


def require_known(held: Held, session: str) -> None:
    """Raise CommandError if no command of the session ever reached a worker: the id may be mistyped."""
    if held.first is None and not held.rejected:
        raise CommandError(
            f"no worker has applied a command of a session {session!r}. Nothing was changed. Check the id; if commands "
            "may still be on their way to it, use --unknown"
        )


def require_gone(held: Held, session: str) -> datetime:
    """Return when the session was erased. Raise CommandError if anything of it is still there."""
    if held.erased_at is None:
        raise CommandError(f"Postgres has no tombstone of {session!r}: is this the workers' database?")
    if held.checkpoints or held.rejected:
        raise CommandError(
            f"Postgres still holds {held.checkpoints} checkpoints and {held.rejected} rejected commands of "
            f"{session!r}, although a worker erased it. No receipt was written. Run 'waypost verify', and start this "
            "again"
        )
    return held.erased_at


async def sessions(databases: Databases, schema: str, prefix: str) -> AsyncIterator[Any]:
    """Yield sessions whose ids begin with ``prefix``, erased ones too, with their numbers of checkpoints."""
    # Here and not above: commands that read nothing start faster.
    from waypost.reader.client import first_after

    sql = query("erase/sessions", schema)
    for database in databases:
        after = ""
        while rows := await database.fetch(sql, after, prefix, first_after(prefix), _PAGE):
            for row in rows:
                yield row
            after = rows[-1]["session_id"]
