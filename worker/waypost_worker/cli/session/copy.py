"""``waypost session copy`` and ``fork``: create the same session elsewhere, or a new one that starts at a checkpoint.

Both read Postgres at one moment and write commands: the policy, the checkpoints, the pins.
"""

import asyncio
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from waypost.wire.encode import check_session_id
from waypost_worker.cli.support.connections import publishing, reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, Target
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, note, show_fields
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.keys import make_codec
from waypost_worker.config.settings import Settings, unknown_key

if TYPE_CHECKING:
    from waypost_worker.operations.copying import CopyPlan

_DryRun = Annotated[bool, Parameter(help="show what would happen, and change nothing")]


def copy(
    session: Annotated[str, Parameter(help="session id")],
    /,
    *,
    to_name: Annotated[str | None, Parameter(name="--as", help="session id of the copy")] = None,
    to_bootstrap_servers: Annotated[
        str | None, Parameter(help="Kafka brokers of the other deployment")
    ] = None,
    to_topic_prefix: Annotated[str | None, Parameter(help="prefix of the other deployment's topics")] = None,
    to_config: Annotated[
        Path | None, Parameter(help="TOML file with the other deployment's settings")
    ] = None,
    dry_run: _DryRun = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Copy a session to another deployment, or to another name.

    The copy includes the session's own policy and its pins. Under the same name, the copy has the same ids, and
    existing checkpoints stay. Under another name, checkpoints get new numbers and are still found by their old ids.
    Settings without a --to- option are those of this deployment. A copy that was interrupted continues where it was
    when you run it again.

    For example:

      waypost session copy session-1 --to-bootstrap-servers other:9092
      waypost session copy session-1 --to-config other.toml --as restored
    """
    settings = common.settings()
    target = _target(common, to_config, to_bootstrap_servers, to_topic_prefix)
    name = check_session_id(to_name if to_name is not None else session)
    here = (settings.bootstrap_servers, settings.topic_prefix)
    there = (target.bootstrap_servers, target.topic_prefix)
    if name == session and here == there:
        raise CommandError("this would copy the session onto itself: give --as, or a --to- option", USAGE)
    from waypost_worker.operations.copying import CopyPlan

    plan = CopyPlan(session, name, transfer=f"copy {session!r} to {there!r} {name!r}")
    return asyncio.run(_carry_out(settings, target, plan, dry_run, timeout, common))


def fork(
    checkpoint: Annotated[str, Parameter(help="checkpoint id, session:number")],
    name: Annotated[str, Parameter(help="session id of the fork")],
    /,
    *,
    session: Annotated[
        str | None, Parameter(help="session that contains the checkpoint, if its id comes from an import")
    ] = None,
    dry_run: _DryRun = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Begin a new session with a session's checkpoints up to one of them.

    The old session stays as it is. The new one has its policy and pins, is
    numbered from 1, and finds its checkpoints by their old ids too. Its newest
    checkpoint says in metadata where it comes from: forked_from.

    For example:

      waypost session fork session-1:12 session-1-retry
      waypost session show session-1-retry:12 -o json | jq .metadata
    """
    settings = common.settings()
    origin = session if session is not None else checkpoint.rpartition(":")[0]
    if not origin:
        raise CommandError(
            f"{checkpoint!r} is not a checkpoint id, which looks like session:number. See --session", USAGE
        )
    if check_session_id(name) == origin:
        raise CommandError(f"a fork needs its own session id, not {name!r}", USAGE)
    from waypost_worker.operations.copying import CopyPlan

    plan = CopyPlan(origin, name, transfer=f"fork {checkpoint!r} of {origin!r} as {name!r}", last=checkpoint)
    return asyncio.run(_carry_out(settings, settings, plan, dry_run, timeout, common))


def _target(common: Common, file: Path | None, servers: str | None, prefix: str | None) -> Settings:
    """Return the settings of the other deployment: the given ones, and this deployment's for everything else."""
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = tomllib.loads(file.read_text())
        except OSError as error:
            raise CommandError(f"{file} can't be read: {error.strerror}", USAGE) from None
        except ValueError as error:
            raise CommandError(f"{file} can't be read as TOML: {error}", USAGE) from None
        if unknown := sorted(set(given) - set(Settings.model_fields)):
            raise CommandError(unknown_key(file, unknown[0]), USAGE)
    flags = {"bootstrap_servers": servers, "topic_prefix": prefix}
    given |= {name: value for name, value in flags.items() if value is not None}
    as_flags = {field.name: given.pop(field.name) for field in fields(Target) if field.name in given}
    return replace(common, **as_flags).settings(**given)


async def _carry_out(
    settings: Settings, target: Settings, plan: "CopyPlan", dry_run: bool, timeout: float, common: Common
) -> int:
    from waypost_worker.operations.stored_session import FORKED_FROM
    from waypost_worker.operations.transfer import Transfer

    async with reading(settings) as reader:
        await plan.prepare(reader, make_codec(target))
        if dry_run:
            steps = [step.type async for step in plan.steps(reader)]
            would = {"would_copy": plan.checkpoints, "from": plan.origin, "to": plan.name}
            where = {"bootstrap_servers": target.bootstrap_servers, "topic_prefix": target.topic_prefix}
            show_fields({**would, **where, "commands": len(steps)}, common.output)
            return DONE
        async with publishing(target) as publisher:
            total = await Transfer(plan.transfer, timeout).run(publisher, plan.steps(reader))
    for reason in total.refused:
        note(f"not copied: {reason}")
    if total.removed:
        note(f"retention at the target dropped {total.removed} of them: see its policy")
    origin = {} if plan.last is None else {FORKED_FROM: plan.last}
    show_fields({"session_id": plan.name, **origin, **total.shown()}, common.output)
    return DONE
