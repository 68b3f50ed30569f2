"""``waypost session import`` and ``rollback``: changes of a session, as commands in the log."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from waypost import commands
from waypost.bodies import parse_body
from waypost.outgoing import check_session_id, import_body, rollback_body
from waypost_worker.cli.commandline import Prepared
from waypost_worker.cli.common import NOTHING_GIVEN, Common
from waypost_worker.cli.confirm import confirm
from waypost_worker.cli.output import DONE, USAGE, CommandError, show_fields
from waypost_worker.cli.publish import TimeoutFlag, result_of
from waypost_worker.cli.reach import publishing, reading
from waypost_worker.cli.results import short, show_result
from waypost_worker.settings import Settings


def import_session(
    session: Annotated[str, Parameter(help="session id to import into")],
    file: Annotated[
        Path, Parameter(help="an exported list; - for standard input", allow_leading_hyphen=True)
    ],
    /,
    *,
    on_conflict: Annotated[
        Literal["skip", "replace", "reject"], Parameter(help="where an id is taken already")
    ] = "skip",
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Import an exported list.

    It goes through the log, and this waits until it is applied. Into an empty
    session of the same name, ids, order, times and data come out the same; ids
    of another session get new numbers. A list that is larger than one message
    is sent in parts.

    For example:

      waypost session import session-1 session-1.json --on-conflict replace
      waypost session export session-1 | waypost session import copy -
    """
    settings = common.settings()
    check_session_id(session)
    bodies = _bodies(_read(file), on_conflict)
    total = asyncio.run(_import(settings, session, bodies, timeout))
    show_fields({"session_id": session, **total}, common.output)
    return DONE


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}", USAGE) from None


def _bodies(text: bytes, on_conflict: Literal["skip", "replace", "reject"]) -> list[bytes]:
    """The bodies of the commands; all are checked before the first is sent."""
    from waypost.publisher import split_import

    bodies = [import_body(part, on_conflict) for part in split_import(text)]
    for body in bodies:
        parse_body(commands.IMPORT, body)
    return bodies


async def _import(settings: Settings, session: str, bodies: list[bytes], timeout: float) -> dict[str, int]:
    total = {"imported": 0, "replaced": 0, "skipped": 0}
    async with publishing(settings) as publisher:
        for number, body in enumerate(bodies, 1):
            result = await result_of(publisher, Prepared(session, commands.IMPORT, body), timeout)
            if short(result.type) == "rejected":
                before = f"; the {number - 1} part(s) before it are applied" if number > 1 else ""
                raise CommandError(
                    f"part {number} of {len(bodies)} was refused, {result.body['code']}: "
                    f"{result.body['message']}{before}"
                )
            for key in total:
                total[key] += result.body.get(key, 0)
    return total


def rollback(
    checkpoint: Annotated[str, Parameter(help="checkpoint id, session:number")],
    /,
    *,
    session: Annotated[str | None, Parameter(help="for an id from an import: the session it is in")] = None,
    discard_later: Annotated[bool, Parameter(help="drop all later checkpoints, pinned ones too")] = False,
    dry_run: Annotated[bool, Parameter(help="show what would happen and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Go back to a checkpoint, and show its data.

    The rollback is recorded in the log and has a result, for agents and
    subscribers to follow. Nothing is dropped without --discard-later.

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
            show_fields(plan, common.output)
            return DONE
        if plan["would_remove"]:
            count = len(plan["would_remove"])
            confirm(f"this drops {count} checkpoint{'' if count == 1 else 's'} after {checkpoint}", yes)

    async def go_back() -> int:
        async with publishing(settings) as publisher:
            result = await result_of(publisher, Prepared(owner, commands.ROLLBACK, body), timeout)
        return show_result(result, common.output)

    return asyncio.run(go_back())


async def _plan(settings: Settings, session: str, checkpoint: str, discard_later: bool) -> dict[str, Any]:
    """What the rollback would do to the session as it is in Postgres now."""
    async with reading(settings) as reader:
        found = reader.session(session)
        target = await found.get(checkpoint)
        if target is None:
            raise CommandError(f"{session!r} holds no checkpoint {checkpoint!r}; nothing was changed")
        later = [each.id async for each in found if each.number > target.number]
    return {
        "would_go_back_to": target.id,
        "name": target.name,
        "timestamp": target.timestamp,
        "would_remove": later if discard_later else [],
        "would_keep_later": [] if discard_later else later,
    }
