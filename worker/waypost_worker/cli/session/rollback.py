"""``waypost session rollback``: going back, as a command in the log."""

import asyncio
import time
from typing import Annotated, Any

from cyclopts import Parameter

from waypost.model.checkpoint import checkpoint_id
from waypost.model.commands import Rollback
from waypost.wire.encode import check_session_id, rollback_body
from waypost.wire.event_types import EventType
from waypost_worker.cli.session.changes import show_changes
from waypost_worker.cli.support.connections import publishing, reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, confirm, show_fields
from waypost_worker.cli.support.results import show_result
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings
from waypost_worker.operations.differences import contents, differences, shown
from waypost_worker.operations.sending import Prepared, result_of
from waypost_worker.operations.stored_session import read_stored_session


def rollback(
    checkpoint: Annotated[str, Parameter(help="checkpoint id, session:number")],
    /,
    *,
    session: Annotated[
        str | None, Parameter(help="session that contains the checkpoint, if its id comes from an import")
    ] = None,
    discard_later: Annotated[
        bool, Parameter(help="remove all later checkpoints, including pinned ones")
    ] = False,
    dry_run: Annotated[bool, Parameter(help="show what would happen, and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Go back to a checkpoint, and show its data.

    The rollback is recorded in the log and has a result, for agents and subscribers to follow. Without --discard-later,
    nothing is removed. --dry-run shows which checkpoints would be removed, and how the newest checkpoint's data differs
    from the data from which an agent would continue.

    For example:

      waypost session rollback session-1:12 --discard-later --dry-run
      waypost session rollback session-1:12 --discard-later --yes
    """
    settings = common.settings()
    owner = session if session is not None else checkpoint.rpartition(":")[0]
    if not owner:
        raise CommandError(
            f"{checkpoint!r} is not a checkpoint id, which looks like session:number. See --session", USAGE
        )
    check_session_id(owner)
    body = rollback_body(checkpoint, discard_later)
    if dry_run or discard_later:
        plan = asyncio.run(_plan(settings, owner, checkpoint, discard_later))
        if dry_run:
            changes = plan["would_change"]
            people = common.output == "table"
            show_fields(
                {**plan, "would_change": f"{len(changes)}, below"} if people and changes else plan,
                common.output,
            )
            if people and changes:
                show_changes(changes, common.output)
            return DONE
        if plan["would_remove"]:
            count = len(plan["would_remove"])
            confirm(f"this drops {count} checkpoint{'' if count == 1 else 's'} after {checkpoint}", yes)

    async def go_back() -> int:
        async with publishing(settings) as publisher:
            result = await result_of(publisher, Prepared(owner, EventType.ROLLBACK, body), timeout)
        return show_result(result, common.output)

    return asyncio.run(go_back())


async def _plan(settings: Settings, session: str, checkpoint: str, discard_later: bool) -> dict[str, Any]:
    """Return what the rollback would do to the session as it is in Postgres now."""
    async with reading(settings) as reader:
        found = reader.session(session)
        target = await found.get(checkpoint)
        if target is None:
            raise CommandError(f"{session!r} holds no checkpoint {checkpoint!r}; nothing was changed")
        newest = await found.get_latest()
        async with reader.snapshot() as snapshot:
            stored = await read_stored_session(snapshot, session)
    if stored is None:
        raise CommandError(f"{session!r} holds no checkpoint {checkpoint!r}; nothing was changed")
    foreseen = stored.preview(Rollback(checkpoint, discard_later), time.time_ns() // 1000)
    removed = [checkpoint_id(session, number) for number in foreseen.removed]
    later = [checkpoint_id(session, entry.number) for entry in stored.entries if entry.number > target.number]
    changes = [] if newest is None else differences(contents(newest), contents(target))
    return {
        "would_go_back_to": target.id,
        "name": target.name,
        "timestamp": target.timestamp,
        "would_remove": removed,
        "would_keep_later": [identifier for identifier in later if identifier not in removed],
        "would_change": [shown(change) for change in changes],
    }
