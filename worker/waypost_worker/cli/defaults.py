"""``waypost defaults``: the retention policy of the deployment, as commands in the log."""

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter

from waypost.wire.encode import policy_body
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.authority_key import KeyFlag, Signer, read_signer
from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, confirm, show_fields
from waypost_worker.cli.support.partition_commands import (
    applied,
    authorities,
    check_signer,
    require_accepted,
    send,
)
from waypost_worker.cli.support.sending import TimeoutFlag, require_delivered
from waypost_worker.config.settings import Settings


def defaults(
    *,
    max_checkpoints: Annotated[int | None, Parameter(help="most that a session keeps")] = None,
    compress_after: Annotated[int | None, Parameter(help="beyond so many, keep one of a name")] = None,
    keep_recent: Annotated[int | None, Parameter(help="but always the last so many")] = None,
    max_age: Annotated[float | None, Parameter(help="seconds after which checkpoints go")] = None,
    no_max_age: Annotated[bool, Parameter(help="age no longer matters")] = False,
    authority_key: KeyFlag = None,
    dry_run: Annotated[bool, Parameter(help="check and show what would be sent, and send nothing")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Set the retention of sessions without a policy of their own.

    One command goes to every partition, so the policy is part of the log. It
    changes the fields that are named, and a session follows it from its next
    command on: what is then too much is dropped.

    If there is an authority (see 'waypost authority'), sign the commands with
    --authority-key; unsigned ones are rejected.

    For example:

      waypost defaults --max-checkpoints 500 --compress-after 200
    """
    if no_max_age and max_age is not None:
        raise CommandError("--max-age and --no-max-age contradict each other", USAGE)
    named: dict[str, int | float | None] = {
        "max_checkpoints": max_checkpoints,
        "compress_after": compress_after,
        "keep_recent": keep_recent,
        "max_age": max_age,
    }
    changes: dict[str, int | float | None] = {
        name: value for name, value in named.items() if value is not None
    }
    if no_max_age:
        changes["max_age"] = None
    if not changes:
        raise CommandError("name at least one field to change. See 'waypost defaults --help'.", USAGE)
    policy_body(changes)
    settings = common.settings()
    signer = None if authority_key is None else read_signer(authority_key)
    shown: dict[str, Any] = dict(changes)
    if dry_run:
        show_fields({**shown, "sent": False}, common.output)
        return DONE
    confirm("this can drop checkpoints of every session without a policy of its own", yes)
    sent = asyncio.run(_configure(settings, changes, signer, timeout))
    show_fields({**shown, "partitions": len(sent), "command_ids": sent}, common.output)
    return DONE


async def _configure(
    settings: Settings, changes: dict[str, int | float | None], signer: Signer | None, timeout: float
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
        found = {}  # Postgres is not needed here; it only tells sooner that the commands would be rejected
    check_signer(found, None)
    async with publishing(settings) as publisher:
        ids = await publisher.configure_defaults(**changes)
        await require_delivered(publisher, timeout)
        return ids
