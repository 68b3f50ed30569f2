"""``waypost session copy`` and ``fork``: a session once more, elsewhere or from one of its checkpoints on.

Both read Postgres at one moment and write commands: the policy, the checkpoints, the pins.
"""

import asyncio
import tomllib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from waypost.errors import InvalidCommandError
from waypost.wire.encode import check_session_id, checkpoint_body, metadata_json, policy_body
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.connections import reading
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common, Target
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, note, show_fields
from waypost_worker.cli.support.sending import TimeoutFlag
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost.model.checkpoint import Checkpoint
    from waypost.reader.client import Reader, SnapshotSet
    from waypost_worker.cli.session.transfer import Step

FORKED_FROM: Final = "forked_from"
_MICROS: Final = 1_000_000
_DryRun = Annotated[bool, Parameter(help="show what would happen and change nothing")]


def copy(
    session: Annotated[str, Parameter(help="session id")],
    /,
    *,
    to_name: Annotated[str | None, Parameter(name="--as", help="session id of the copy")] = None,
    to_bootstrap_servers: Annotated[str | None, Parameter(help="Kafka of the other deployment")] = None,
    to_topic_prefix: Annotated[str | None, Parameter(help="of the other deployment's topics")] = None,
    to_config: Annotated[Path | None, Parameter(help="settings of the other deployment, a TOML file")] = None,
    dry_run: _DryRun = False,
    timeout: TimeoutFlag = 30,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Copy a session to another deployment, or to another name.

    Its own policy and its pins come along. Under its own name the copy has the
    same ids, and what is there already stays; under another name checkpoints
    get new numbers and are still found by their old ids. What no --to- option
    says is as in this deployment. Started again after an interruption, a copy
    goes on where it was.

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
    plan = _CopyPlan(session, name, transfer=f"copy {session!r} to {there!r} {name!r}")
    return asyncio.run(_carry_out(settings, target, plan, dry_run, timeout, common))


def fork(
    checkpoint: Annotated[str, Parameter(help="checkpoint id, session:number")],
    name: Annotated[str, Parameter(help="session id of the fork")],
    /,
    *,
    session: Annotated[str | None, Parameter(help="for an id from an import: the session it is in")] = None,
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
        raise CommandError(f"a fork needs a session id of its own, not {name!r}", USAGE)
    plan = _CopyPlan(origin, name, transfer=f"fork {checkpoint!r} of {origin!r} as {name!r}", last=checkpoint)
    return asyncio.run(_carry_out(settings, settings, plan, dry_run, timeout, common))


def _target(common: Common, file: Path | None, servers: str | None, prefix: str | None) -> Settings:
    """The settings of the other deployment: what is given for it, and this deployment's for all else."""
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = tomllib.loads(file.read_text())
        except OSError as error:
            raise CommandError(f"{file} can't be read: {error.strerror}", USAGE) from None
        except ValueError as error:
            raise CommandError(f"{file} can't be read as TOML: {error}", USAGE) from None
        if unknown := sorted(set(given) - set(Settings.model_fields)):
            raise CommandError(f"{file}: {unknown[0]!r} is not a setting", USAGE)
    flags = {"bootstrap_servers": servers, "topic_prefix": prefix}
    given |= {name: value for name, value in flags.items() if value is not None}
    as_flags = {field.name: given.pop(field.name) for field in fields(Target) if field.name in given}
    return replace(common, **as_flags).settings(**given)


class _CopyPlan:
    """The steps that make one session of another, from what Postgres holds at one moment."""

    def __init__(self, origin: str, name: str, *, transfer: str, last: str | None = None) -> None:
        self.origin = origin
        self.name = name
        self.transfer = transfer
        self.last = last  # a fork ends with this checkpoint
        self.checkpoints = 0
        self._pinned: list[str] = []
        self._policy: bytes | None = None

    async def prepare(self, reader: "Reader") -> None:
        """Refuse what can't be done; nothing has been sent yet."""
        info = await reader.session_info(self.origin)
        if info is None:
            raise CommandError(f"no session {self.origin!r} is known")
        if info.policy is not None:
            age = info.policy["max_age"]
            seconds = None if age is None else age / _MICROS
            self._policy = policy_body({**info.policy, "max_age": seconds})
        if self.last is None:
            return
        found = await reader.session(self.origin).get(self.last)
        if found is None:
            raise CommandError(f"{self.origin!r} holds no checkpoint {self.last!r}; nothing was changed")
        self.last = found.id
        if await reader.session_info(self.name) is not None and not await self._begun(reader):
            raise CommandError(
                f"there is a session {self.name!r} already; nothing was changed. Choose another name for the fork"
            )

    async def _begun(self, reader: "Reader") -> bool:
        """Whether what is there is this same fork, which was interrupted."""
        async for checkpoint in reader.session(self.name):
            if checkpoint.imported_id is None or checkpoint.imported_id.rpartition(":")[0] != self.origin:
                return False
        return True

    async def steps(self, reader: "Reader") -> "AsyncIterator[Step]":
        """The policy first, so that the default one drops nothing; the pins at the end."""
        from waypost_worker.cli.session.transfer import Step

        if self._policy is not None:
            yield Step(self.name, EventType.CONFIGURE, self._policy, "the policy")
        async with reader.snapshot() as snapshot, aclosing(self._lines(snapshot)) as lines:
            async for body in self._bodies(lines):
                yield Step(self.name, EventType.IMPORT, body, "a part of the checkpoints")
        for identifier in self._pinned:
            body = checkpoint_body(identifier)
            yield Step(self.name, EventType.PIN, body, f"the pin of {identifier}", may_fail=True)

    async def _bodies(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        from waypost.publisher.calls import IMPORT_PART_BYTES
        from waypost_worker.cli.session.interchange import parts_of_lines

        held: list[bytes] = []
        size = 0
        async for line in lines:
            if held and size + len(line) > IMPORT_PART_BYTES:
                for part in parts_of_lines(held, self.name, "skip"):
                    yield part.body
                held, size = [], 0
            held.append(line)
            size += len(line) + 1
        for part in parts_of_lines(held, self.name, "skip"):
            yield part.body

    async def _lines(self, snapshot: "SnapshotSet") -> AsyncGenerator[bytes, None]:
        from waypost.reader.session import checkpoints_of
        from waypost_worker.cli.session.interchange import line_of

        async for checkpoint in checkpoints_of(snapshot, self.origin):
            self.checkpoints += 1
            if checkpoint.pinned:
                self._pinned.append(checkpoint.id)
            if checkpoint.id == self.last:
                yield line_of(checkpoint, self._with_origin(checkpoint))
                return
            yield line_of(checkpoint)

    def _with_origin(self, checkpoint: "Checkpoint") -> bytes:
        try:
            return metadata_json({**checkpoint.metadata, FORKED_FROM: checkpoint.id})
        except InvalidCommandError as error:
            raise CommandError(
                f"{checkpoint.id} has no room for {FORKED_FROM} in its metadata ({error.message}): fork at another "
                "checkpoint"
            ) from None


async def _carry_out(
    settings: Settings, target: Settings, plan: _CopyPlan, dry_run: bool, timeout: float, common: Common
) -> int:
    from waypost_worker.cli.session.transfer import Transfer

    async with reading(settings) as reader:
        await plan.prepare(reader)
        if dry_run:
            steps = [step.type async for step in plan.steps(reader)]
            would = {"would_copy": plan.checkpoints, "from": plan.origin, "to": plan.name}
            where = {"bootstrap_servers": target.bootstrap_servers, "topic_prefix": target.topic_prefix}
            show_fields({**would, **where, "commands": len(steps)}, common.output)
            return DONE
        total = await Transfer(plan.transfer, timeout).run(target, plan.steps(reader))
    for reason in total.refused:
        note(f"not carried over: {reason}")
    if total.removed:
        note(f"retention at the target dropped {total.removed} of them: see its policy")
    origin = {} if plan.last is None else {FORKED_FROM: plan.last}
    show_fields({"session_id": plan.name, **origin, **total.shown()}, common.output)
    return DONE
