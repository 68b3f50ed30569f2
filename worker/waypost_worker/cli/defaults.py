"""``waypost defaults``: the retention policy of the deployment, as commands in the log."""

import asyncio
import time
from typing import Annotated, Any, Final

from cyclopts import Parameter

from waypost.model.preview import preview_policy
from waypost.wire.encode import policy_body, policy_changes
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.authority_key import KeyFlag, Signer, read_signer
from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.databases import connected
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import (
    DONE,
    USAGE,
    CommandError,
    Format,
    confirm,
    note,
    show_fields,
    show_rows,
)
from waypost_worker.cli.support.partition_commands import (
    applied,
    authorities,
    check_signer,
    require_accepted,
    send,
)
from waypost_worker.cli.support.policies import (
    NO_CHANGES,
    PolicyChanges,
    PolicyFlags,
    default_policies,
    sessions_by_default,
    shown_preview,
)
from waypost_worker.cli.support.sending import TimeoutFlag, require_delivered
from waypost_worker.config.settings import Settings

_SHOWN: Final = 20


def defaults(
    *,
    flags: PolicyFlags = NO_CHANGES,
    authority_key: KeyFlag = None,
    dry_run: Annotated[bool, Parameter(help="show what would be removed, and send nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Set the retention of sessions without their own policy.

    One command goes to every partition, so the policy is part of the log. It changes the fields that you name. A
    session follows the new policy starting with its next command, which removes the checkpoints that it no longer
    allows. --dry-run shows how many that would be now, per session and in total.

    If there is an authority (see 'waypost authority'), sign the commands with
    --authority-key; unsigned ones are rejected.

    For example:

      waypost defaults --max-checkpoints 500 --compress-after 200 --dry-run
      waypost defaults --max-checkpoints 500 --compress-after 200
    """
    changes = flags.changes()
    if not changes:
        raise CommandError("name at least one field to change. See 'waypost defaults --help'.", USAGE)
    policy_body(changes)
    settings = common.settings()
    signer = None if authority_key is None else read_signer(authority_key)
    if dry_run:
        _show_preview(changes, asyncio.run(_preview(settings, changes)), common.output)
        return DONE
    confirm("this can remove checkpoints of every session without its own policy", yes)
    sent = asyncio.run(_configure(settings, changes, signer, timeout))
    show_fields({**changes, "partitions": len(sent), "command_ids": sent}, common.output)
    return DONE


async def _preview(settings: Settings, changes: PolicyChanges) -> list[dict[str, Any]]:
    """Return the sessions that would lose checkpoints, sorted by how many they would lose."""
    changed = policy_changes(changes)
    schema, now = settings.postgres_schema, time.time_ns() // 1000
    found = []
    async with connected(settings, patiently=True) as databases:
        defaults = await default_policies(databases, schema)
        new = {partition: policy.changed(changed) for partition, policy in defaults.items()}
        of_old = any(policy.max_age is not None for policy in new.values())
        most = [min(policy.max_checkpoints, policy.compress_after) for policy in new.values()]
        async for one in sessions_by_default(databases, schema, 1 if of_old else min(most, default=0)):
            preview = preview_policy(one.session, new[one.partition], now)
            if preview.removed:
                found.append({"session_id": one.session.session_id, **shown_preview(preview)})
    return sorted(found, key=lambda row: (-row["would_remove"], row["session_id"]))


def _show_preview(changes: PolicyChanges, rows: list[dict[str, Any]], output: Format) -> None:
    total = sum(row["would_remove"] for row in rows)
    if output != "table":
        of_sessions = {"sessions": len(rows), "would_remove": total, "by_session": rows}
        show_fields({**changes, "sent": False, **of_sessions}, output)
        return
    columns = ("session_id", "checkpoints", "would_remove", "too_old", "compressed", "above_maximum")
    if rows:
        show_rows(rows[:_SHOWN], output, columns)
    if len(rows) > _SHOWN:
        note(f"and {len(rows) - _SHOWN} sessions that would lose less: -o json shows all")
    show_fields({**changes, "sessions": len(rows), "would_remove": total, "sent": False}, output)


async def _configure(
    settings: Settings, changes: PolicyChanges, signer: Signer | None, timeout: float
) -> list[str]:
    if signer is not None:
        found = await authorities(settings)
        check_signer(found, signer)
        bodies = dict.fromkeys(found, policy_body(changes))
        sent = await send(settings, EventType.CONFIGURE_DEFAULTS, bodies, found, signer)
        require_accepted(await applied(settings, sent, timeout))
        return [one.command_id for one in sent]
    try:
        found = await authorities(settings)
    except CommandError:
        found = {}  # Postgres is not needed here; it only shows earlier that the commands would be rejected
    check_signer(found, None)
    async with publishing(settings) as publisher:
        ids = await publisher.configure_defaults(**changes)
        await require_delivered(publisher, timeout)
        return ids
