"""``waypost session policy``: look at a session's retention policy, preview another one, or set it."""

import asyncio
import time
from typing import Annotated, Any

from cyclopts import Parameter

from waypost.errors import InvalidCommandError
from waypost.model.checkpoint import checkpoint_id
from waypost.model.commands import Configure
from waypost.model.index import Session
from waypost.model.preview import Preview, preview
from waypost.model.retention import RetentionPolicy
from waypost.wire.encode import check_session_id, policy_body, policy_changes
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, CommandError, confirm, show_fields
from waypost_worker.cli.support.policies import (
    NO_CHANGES,
    PolicyFlags,
    Retained,
    default_policies,
    retained_session,
    shown_policy,
    shown_preview,
)
from waypost_worker.cli.support.results import kept, show_result
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings
from waypost_worker.operations.sending import Prepared, result_of


def policy(
    session: Annotated[str, Parameter(help="session id")],
    /,
    *,
    flags: PolicyFlags = NO_CHANGES,
    dry_run: Annotated[bool, Parameter(help="show what would be removed, and change nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Show a session's retention policy, or change it.

    Without a flag that names a field, show the policy and how many checkpoints are left. Otherwise, change the named
    fields. The session then has its own policy, and checkpoints that it no longer allows are removed immediately.
    --dry-run shows how many that would be.

    For example:

      waypost session policy session-1
      waypost session policy session-1 --max-checkpoints 50 --dry-run
      waypost session policy session-1 --max-checkpoints 500 --compress-after 500
    """
    check_session_id(session)
    changes = flags.changes()
    body = policy_body(changes)
    settings = common.settings()
    if not changes:
        found, default = asyncio.run(_look(settings, session))
        if found is None:
            raise CommandError(f"no session {session!r} is known")
        show_fields(_shown(found, default), common.output)
        return DONE
    foreseen = asyncio.run(_preview(settings, session, changes))
    if dry_run:
        new = None if foreseen.policy is None else shown_policy(foreseen.policy)
        about = {"session_id": session, "policy": new, **shown_preview(foreseen)}
        if common.output != "table":
            about["removed"] = [checkpoint_id(session, number) for number in foreseen.removed]
        show_fields({**about, "sent": False}, common.output)
        return DONE
    if foreseen.removed:
        confirm(f"this removes {len(foreseen.removed)} of {foreseen.checkpoints} checkpoints", yes)

    async def configure() -> int:
        async with publishing(settings) as publisher:
            result = await result_of(publisher, Prepared(session, EventType.CONFIGURE, body), timeout)
        return show_result(result, common.output)

    return asyncio.run(configure())


async def _look(settings: Settings, session: str) -> tuple[Retained | None, RetentionPolicy]:
    """The session, if there is one, and the default policy of its partition."""
    async with connected(settings) as databases:
        found = await retained_session(databases, settings.postgres_schema, session)
        defaults = await default_policies(databases, settings.postgres_schema)
    partition = partition_of(session, max(1, len(defaults))) if found is None else found.partition
    return found, defaults.get(partition, RetentionPolicy())


async def _preview(settings: Settings, session: str, changes: dict[str, int | float | None]) -> Preview:
    found, default = await _look(settings, session)
    now = time.time_ns() // 1000
    # A session that has no checkpoint yet may get its policy first.
    held = Session(session) if found is None else found.session
    foreseen = preview(held, Configure(policy_changes(changes)), default, now)
    if foreseen.rejected is not None:
        raise InvalidCommandError(foreseen.rejected.code, foreseen.rejected.message)
    return foreseen


def _shown(found: Retained, default: RetentionPolicy) -> dict[str, Any]:
    session = found.session
    return {
        "session_id": session.session_id,
        "kept": kept(len(session), session.counter),
        "pinned": session.pins(),
        "policy_of": "the session" if session.policy else "the default",
        **shown_policy(session.policy or default),
    }
