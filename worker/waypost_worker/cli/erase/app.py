"""``waypost erase``: delete sessions' data wherever Waypost reaches, and say what it does not reach."""

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from waypost.errors import InvalidCommandError
from waypost.model.tenants import TenantScope
from waypost.wire.encode import check_session_id
from waypost_worker.cli.erase.eraser import Eraser, require_this_version
from waypost_worker.cli.erase.held import look, require_known, sessions
from waypost_worker.cli.erase.keys import has_key
from waypost_worker.cli.erase.receipt import check_directory, check_writable, write_receipt
from waypost_worker.cli.erase.remaining import COLUMNS, Erasure, Places, shown
from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.logs import command_partitions
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, TenantFlag
from waypost_worker.cli.support.output import (
    DONE,
    USAGE,
    CommandError,
    Format,
    Stream,
    confirm,
    event_line,
    note,
    show_fields,
    show_rows,
)
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings


def erase(
    session: Annotated[str | None, Parameter(help="session id")] = None,
    /,
    *,
    prefix: Annotated[
        str, Parameter(help="erase all sessions whose ids begin with this, instead of one")
    ] = "",
    tenant: TenantFlag = None,
    receipt: Annotated[
        Path | None,
        Parameter(help="write a receipt to this file, as JSON; of several, one for each to this directory"),
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
    """Erase a session for good, and list what still holds its bytes.

    Its key is deleted first, if it has one, which makes what is encrypted
    unreadable everywhere. Its checkpoints are removed, including pinned ones,
    with its policy, its command ids and its rejected commands. Subscribers get
    'waypost.session.erased'. A tombstone stays: later commands of this session
    are rejected, and their content is not kept. The id can't be used again.

    Topics, snapshots and backups can't be changed one session at a time. The
    receipt lists each of them that may still hold bytes of the session, and
    until when.

    It can be stopped at any time and started again. Erasing an erased session
    is harmless, and gives another receipt.

    For example:

      waypost erase trip-to-rome --dry-run
      waypost erase trip-to-rome --yes --receipt trip-to-rome.erased.json
      waypost erase --tenant acme --yes --receipt receipts
    """
    scope = TenantScope(tenant)
    if session is not None:
        scope.require(session)
    if (narrowed := scope.narrowed(prefix)) is None:
        problem = f"no session of the tenant {tenant!r} begins with {prefix!r}: leave out --prefix"
        raise CommandError(problem, USAGE)
    chosen = _Choice.of(session, prefix if session is not None else narrowed, unknown, yes, timeout)
    if receipt is not None and not dry_run:
        (check_writable if chosen.session is not None else check_directory)(receipt)
    settings = common.settings()
    if chosen.session is None:
        asyncio.run(_many(settings, chosen, receipt, dry_run, common.output))
    elif dry_run:
        asyncio.run(_plan(settings, chosen.session, chosen, common.output))
    else:
        made = asyncio.run(_one(settings, chosen.session, chosen))
        if receipt is not None:
            write_receipt(receipt, made)
        _show(made, common.output)
        _warn(made)
    return DONE


class _Choice(NamedTuple):
    """The sessions to erase, and how: ``session``, or all sessions whose ids begin with ``prefix``."""

    session: str | None
    prefix: str
    unknown: bool
    yes: bool
    timeout: float

    @classmethod
    def of(cls, session: str | None, prefix: str, unknown: bool, yes: bool, timeout: float) -> "_Choice":
        """Check what was given."""
        if (session is None) == (not prefix):
            raise CommandError("name one SESSION, or --prefix or --tenant for several", USAGE)
        if session is None and unknown:
            raise CommandError(
                "--unknown is for one SESSION: nobody can tell which others there may be", USAGE
            )
        try:
            check_session_id(prefix if session is None else session)
        except InvalidCommandError as error:
            raise CommandError(f"{'--prefix: ' if session is None else ''}{error.message}", USAGE) from None
        return cls(session, prefix, unknown, yes, timeout)


async def _plan(settings: Settings, session: str, chosen: _Choice, output: Format) -> None:
    """Show what an erasure would do."""
    from waypost.wire.topics import partition_of

    partition = partition_of(session, await command_partitions(settings))
    async with connected(settings, patiently=True) as databases:
        held = await look(databases, settings.postgres_schema, session)
        if not chosen.unknown:
            require_known(held, session)
        now = datetime.now(UTC)
        erasure = Erasure(session, partition, held.first, now, unattributed=held.unattributed)
        left = await Places(settings, databases).remaining(erasure)
        key = await has_key(settings, session)
    would_remove = {
        "checkpoints": held.checkpoints,
        "bytes": held.bytes,
        "command_ids": held.command_ids,
        "rejected": held.rejected,
        "key": key,
    }
    fields: dict[str, Any] = {
        "session_id": session,
        "erased_at": held.erased_at,
        "would_remove": would_remove,
    }
    if output != "table":
        show_fields({**fields, "may_still_hold_bytes": [one.for_programs() for one in left]}, output)
        return
    show_fields(fields, output)
    note("Bytes would still be here, for a while or until you remove them:")
    show_rows(shown([one.for_programs() for one in left]), output, COLUMNS)


async def _one(settings: Settings, session: str, chosen: _Choice) -> dict[str, Any]:
    """Erase one session and return the receipt."""
    await require_this_version(settings)
    async with connected(settings, patiently=True) as databases:
        held = await look(databases, settings.postgres_schema, session)
        if not chosen.unknown:
            require_known(held, session)
        if held.erased_at is None:
            what = f"this erases {held.checkpoints} checkpoints of {session!r} for good, and its id with them"
            confirm(what, chosen.yes)
        places = Places(settings, databases)
        async with publishing(settings) as publisher:
            eraser = Eraser(settings, databases, publisher, places, chosen.timeout)
            return await eraser.erase(session, held.erased_at)


async def _many(
    settings: Settings, chosen: _Choice, receipts: Path | None, dry_run: bool, output: Format
) -> None:
    """Erase all sessions of a prefix one at a time, or list them."""
    if not dry_run:
        await require_this_version(settings)
    async with connected(settings, patiently=True) as databases:
        with Stream(output) as stream:
            total = checkpoints = 0
            async for row in sessions(databases, settings.postgres_schema, chosen.prefix):
                total, checkpoints = total + 1, checkpoints + row["checkpoints"]
                if dry_run:
                    await _show_candidate(stream, databases, settings, row["session_id"])
            if total and not dry_run:
                what = f"this erases {checkpoints} checkpoints of {total} sessions for good, and their ids with them"
                confirm(what, chosen.yes)
                total = await _erase_all(stream, settings, databases, chosen, receipts)
    would = "would be erased" if dry_run else "erased"
    note(f"{total} session{'' if total == 1 else 's'} {would}")


async def _erase_all(
    stream: Stream, settings: Settings, databases: Databases, chosen: _Choice, receipts: Path | None
) -> int:
    """Erase all sessions of a prefix and return how many there were."""
    schema = settings.postgres_schema
    done: set[str] = set()
    async with publishing(settings) as publisher:
        eraser = Eraser(settings, databases, publisher, Places(settings, databases), chosen.timeout)
        for _ in range(2):  # the second time for sessions that began during the first
            async for row in sessions(databases, schema, chosen.prefix):
                if (name := row["session_id"]) in done:
                    continue
                held = await look(databases, schema, name)
                made = await eraser.erase(name, held.erased_at)
                if receipts is not None:
                    write_receipt(receipts / _file_name(name), made)
                removed = made["checkpoints_removed_now"]
                stream.show(made, event_line(None, "erased", name, f"{removed} checkpoints removed"))
                _warn(made)
                done.add(name)
    return len(done)


def _file_name(session: str) -> str:
    """Return the name of a session's receipt: ids may be long, and hold characters that no file name may have."""
    return f"{hashlib.sha256(session.encode()).hexdigest()[:32]}.json"


async def _show_candidate(stream: Stream, databases: Databases, settings: Settings, session: str) -> None:
    held = await look(databases, settings.postgres_schema, session)
    fields = {
        "session_id": session,
        "erased_at": held.erased_at,
        "checkpoints": held.checkpoints,
        "bytes": held.bytes,
    }
    about = f"{held.checkpoints} checkpoints, {held.bytes} bytes"
    stream.show(fields, event_line(None, "erased" if held.erased_at else "would go", session, about))


def _show(made: dict[str, Any], output: Format) -> None:
    if output != "table":
        show_fields(made, output)
        return
    command = made["command"]
    fields = {name: made[name] for name in ("session_id", "erased_at", "checkpoints_removed_now", "key")}
    fields["command"] = f"{command['id']} at {command['topic']}/{command['partition']}/{command['offset']}"
    show_fields(fields, output)
    note("Bytes may still be here:")
    show_rows(shown(made["may_still_hold_bytes"]), output, COLUMNS)


def _warn(made: dict[str, Any]) -> None:
    if made["key_came_back"]:
        note(
            f"warning: {made['session_id']!r} was erased before, but its key had come back, because an "
            "older key store was restored. The key is deleted now; 'waypost doctor' finds others"
        )
