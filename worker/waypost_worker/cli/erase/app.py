"""``waypost erase``: delete a session's data wherever Waypost reaches, and say what it does not reach.

Each step can be repeated. Whoever is killed between two of them starts again from the first one, and ends with a
receipt that says the same.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from cyclopts import Parameter

from waypost.wire.encode import check_session_id
from waypost.wire.event_types import EventType
from waypost_worker.cli.erase.receipt import check_writable, make_receipt, write_receipt
from waypost_worker.cli.erase.remaining import COLUMNS, Erasure, remaining, shown
from waypost_worker.cli.support.connections import kafka_connection, kafka_errors, publishing, query
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.logs import command_partitions
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import (
    DONE,
    CommandError,
    Format,
    confirm,
    note,
    show_fields,
    show_rows,
)
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings
from waypost_worker.operations.rejected import RejectedFilters, purge_rejected
from waypost_worker.operations.sending import Prepared, result_of

if TYPE_CHECKING:
    from datetime import datetime

    from waypost.publisher.client import Publisher
    from waypost.publisher.waiter import CommandResult

_UNSUPPORTED: Final = "unsupported-type"
# What a worker can't remove: it does not look at the session of what it skips or finds in a wrong partition.
_LEFT_BY_WORKERS: Final = ("misrouted", "skipped")
_ASKED: Final = 3


def erase(
    session: Annotated[str, Parameter(help="session id")],
    /,
    *,
    receipt: Annotated[
        Path | None, Parameter(name="--receipt", help="write a receipt to this file, as JSON")
    ] = None,
    unknown: Annotated[
        bool, Parameter(help="erase it although no worker has applied a command of it yet")
    ] = False,
    dry_run: Annotated[
        bool, Parameter(help="show what would go and what would stay; change nothing")
    ] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Erase a session for good, and say what still holds its bytes.

    Its checkpoints go, pinned ones included, with its policy, its command ids
    and its rejected commands. Subscribers get 'waypost.session.erased'. A
    tombstone stays: whatever comes later for this session is rejected, and its
    content is not kept. The id can't be used again.

    Topics, snapshots and backups can't be changed one session at a time. The
    receipt lists each of them that may still hold bytes of the session, and
    until when.

    It can be stopped at any time and started again. Erasing an erased session
    is harmless, and gives another receipt.

    For example:

      waypost erase trip-to-rome --dry-run
      waypost erase trip-to-rome --yes --receipt trip-to-rome.erased.json
    """
    check_session_id(session)
    if receipt is not None and not dry_run:
        check_writable(receipt)
    wanted = _Wanted(session, unknown, yes, timeout)
    settings = common.settings()
    if dry_run:
        return asyncio.run(_plan(settings, wanted, common.output))
    made, left = asyncio.run(_erase(settings, wanted))
    if receipt is not None:
        write_receipt(receipt, made)
    _show(made, left, common.output)
    return DONE


class _Wanted(NamedTuple):
    """What is to be erased, and how."""

    session: str
    unknown: bool
    yes: bool
    timeout: float


class _Held(NamedTuple):
    """What Postgres holds of a session, in all databases; the times are None if it is unknown there."""

    first: "datetime | None"
    erased_at: "datetime | None"
    checkpoints: int
    bytes: int
    command_ids: int
    rejected: int
    unattributed: int


async def _held(databases: Databases, settings: Settings, session: str) -> _Held:
    sql = query("erase/held", settings.postgres_schema)
    rows = [await database.fetchrow(sql, session) for database in databases]
    home = next((row for row in rows if row["partition"] is not None), rows[0])
    return _Held(
        home["first_recorded_at"],
        home["erased_at"],
        *(
            sum(row[name] for row in rows)
            for name in ("checkpoints", "bytes", "command_ids", "rejected", "unattributed")
        ),
    )


def _require_known(held: _Held, wanted: _Wanted) -> None:
    if held.first is None and not held.rejected and not wanted.unknown:
        raise CommandError(
            f"no worker has applied a command of a session {wanted.session!r}. Nothing was changed. Check the id; if "
            "commands may still be on their way to it, use --unknown"
        )


async def _plan(settings: Settings, wanted: _Wanted, output: Format) -> int:
    from datetime import UTC, datetime

    partition = await _partition(settings, wanted.session)
    async with connected(settings, patiently=True) as databases:
        held = await _held(databases, settings, wanted.session)
        _require_known(held, wanted)
        erasure = Erasure(
            wanted.session, partition, held.first, datetime.now(UTC), unattributed=held.unattributed
        )
        left = await remaining(settings, databases, erasure)
    fields = {
        "session_id": wanted.session,
        "erased_at": held.erased_at,
        "would_remove": {
            "checkpoints": held.checkpoints,
            "bytes": held.bytes,
            "command_ids": held.command_ids,
            "rejected": held.rejected,
        },
        "may_still_hold_bytes": [one.for_programs() for one in left],
    }
    if output != "table":
        show_fields(fields, output)
        return DONE
    del fields["may_still_hold_bytes"]
    show_fields(fields, output)
    note("Bytes would still be here, for a while or until you remove them:")
    show_rows(shown(left), output, COLUMNS)
    return DONE


async def _partition(settings: Settings, session: str) -> int:
    from waypost.wire.topics import partition_of

    return partition_of(session, await command_partitions(settings))


async def _erase(settings: Settings, wanted: _Wanted) -> "tuple[dict[str, Any], list[Any]]":
    session = wanted.session
    await _require_this_version(settings)
    async with connected(settings, patiently=True) as databases:
        held = await _held(databases, settings, session)
        _require_known(held, wanted)
        if held.erased_at is None:
            what = f"this erases {held.checkpoints} checkpoints of {session!r} for good, and its id with them"
            confirm(what, wanted.yes)
        async with publishing(settings) as publisher:
            result = await _command(publisher, wanted)
            owed = await _settle(publisher, wanted, databases, settings, result)
        for code in _LEFT_BY_WORKERS:
            async for _ in purge_rejected(
                databases, settings.postgres_schema, RejectedFilters(session=session, code=code)
            ):
                pass
        after = await _held(databases, settings, session)
        _require_gone(after, session)
        last = after.erased_at
        if last is None:
            raise CommandError(f"Postgres has no tombstone of {session!r}: is this the workers' database?")
        erasure = Erasure(session, result.token[0], after.first, last, owed, after.unattributed)
        left = await remaining(settings, databases, erasure)
    return make_receipt(session, settings.topics.commands, result.body, None, left), left


async def _require_this_version(settings: Settings) -> None:
    """CommandError if there is a worker of another version, which may know no tombstones.

    It would reject the erasure or, worse, take a partition over later and apply what comes to the session.
    """
    from waypost import __version__
    from waypost_worker.kafka.group_members import UNKNOWN_VERSION, worker_versions
    from waypost_worker.partition.ports import RefusedError

    try:
        async with kafka_errors(settings):
            found = await worker_versions(kafka_connection(settings), settings.group_id)
    except (CommandError, RefusedError):
        return  # this login may not look, or Kafka is away, which publishing says better
    if others := sorted(set(found) - {__version__, UNKNOWN_VERSION}):
        raise CommandError(
            f"this is version {__version__}, and workers of version {' and '.join(others)} are running, which may not "
            "know erased sessions. Nothing was changed. Finish the upgrade of workers and command line, and start this "
            "again"
        )


async def _command(publisher: "Publisher", wanted: _Wanted, command_id: str | None = None) -> "CommandResult":
    """Have the session erased; the result of that. CommandError if the command was rejected."""
    command = Prepared(wanted.session, EventType.ERASE, b"{}")
    result = await result_of(publisher, command, wanted.timeout, command_id)
    if result.type == EventType.REJECTED and result.body["code"] == _UNSUPPORTED:
        raise CommandError(
            f"the worker of partition {result.body['command']['partition']} is of an earlier version and doesn't know "
            "how to erase sessions. It keeps the command as rejected. Upgrade all workers, and start this again"
        )
    result.raise_if_rejected()
    return result


async def _settle(
    publisher: "Publisher",
    wanted: _Wanted,
    databases: Databases,
    settings: Settings,
    result: "CommandResult",
) -> int:
    """Have results that were emitted removed from the outbox; how many entries are left that may hold some.

    A batch removes what was emitted before it. In a partition without traffic, there would be none: the same command
    once more is one, and changes nothing.
    """
    partition, offset = result.token
    database, sql = databases.of(partition), query("erase/owed", settings.postgres_schema)
    for _ in range(_ASKED):
        await _command(publisher, wanted, result.body["command"]["id"])
        if not (owed := int(await database.fetchval(sql, partition, offset))):
            return 0
    return owed


def _require_gone(held: _Held, session: str) -> None:
    if held.checkpoints or held.rejected:
        raise CommandError(
            f"Postgres still holds {held.checkpoints} checkpoints and {held.rejected} rejected commands of "
            f"{session!r}, although a worker erased it. No receipt was written. Run 'waypost verify', and start this "
            "again"
        )


def _show(made: dict[str, Any], left: "list[Any]", output: Format) -> None:
    if output != "table":
        show_fields(made, output)
        return
    command = made["command"]
    fields = {name: made[name] for name in ("session_id", "erased_at", "checkpoints_removed_now", "key")}
    fields["command"] = f"{command['id']} at {command['topic']}/{command['partition']}/{command['offset']}"
    show_fields(fields, output)
    note("Bytes may still be here:")
    show_rows(shown(left), output, COLUMNS)
