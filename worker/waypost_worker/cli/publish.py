"""``waypost publish`` and ``waypost defaults``: send commands."""

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
from cyclopts import Parameter

from waypost import commands
from waypost.errors import InvalidCommandError
from waypost.publisher import Publisher
from waypost_worker.cli.common import Common, run
from waypost_worker.cli.output import DONE, FAILED, USAGE, CommandError, note, show_fields, show_json_line
from waypost_worker.settings import Settings

_TYPES = {kind.rpartition(".")[2]: kind for kind in commands.BODIES if kind != commands.CONFIGURE_DEFAULTS}
_TYPES["configure"] = commands.CONFIGURE


def publish(
    session: Annotated[str | None, Parameter(help="session id")] = None,
    name: Annotated[str | None, Parameter(help="checkpoint name, for a create")] = None,
    *,
    data: Annotated[str, Parameter(help="JSON object, @file, or - for standard input")] = "{}",
    metadata: Annotated[str | None, Parameter(help="JSON object")] = None,
    type: Annotated[str | None, Parameter(help=f"instead of create: {', '.join(_TYPES)}")] = None,
    body: Annotated[str | None, Parameter(help="JSON body of the command, with --type")] = None,
    stdin: Annotated[bool, Parameter(help="one JSON object a line: session, name, data, metadata")] = False,
    wait: Annotated[bool, Parameter(help="wait for the result and show it")] = False,
    timeout: Annotated[float, Parameter(help="seconds to wait")] = 10,
    common: Common | None = None,
) -> int:
    """Publish one command, or one a line with --stdin.

    For example:

      waypost publish session-1 task_started --data '{"step": 1}' --wait
      waypost publish session-1 --type rollback --body '{"checkpoint_id": "session-1:3"}' --wait
      waypost publish --stdin < commands.jsonl
    """
    common = common or Common()
    settings = common.settings()
    if stdin:
        return run(_publish_lines(settings))
    if session is None:
        raise CommandError("name a session, or use --stdin (see 'waypost publish --help')", USAGE)
    kind, raw = _one(name, data, metadata, type, body)
    return run(_publish_one(settings, common, session, kind, raw, wait, timeout))


def _one(
    name: str | None, data: str, metadata: str | None, kind: str | None, body: str | None
) -> tuple[str, bytes]:
    if kind is not None:
        full = _TYPES.get(kind, kind)
        if full not in commands.BODIES:
            raise CommandError(f"--type {kind}: known are {', '.join(_TYPES)}", USAGE)
        return full, _text(body or "{}")
    if name is None:
        raise CommandError("a create needs the name of the checkpoint", USAGE)
    fields: dict[str, Any] = {"name": name, "data": _json(_text(data), "--data")}
    if metadata is not None:
        fields["metadata"] = _json(_text(metadata), "--metadata")
    return commands.CREATE, orjson.dumps(fields)


def _text(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_bytes()
        except OSError as error:
            raise CommandError(f"{given[1:]} can't be read: {error.strerror}", USAGE) from None
    return given.encode()


def _json(raw: bytes, flag: str) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"{flag} is not JSON: {error}", USAGE) from None


async def _publish_one(
    settings: Settings, common: Common, session: str, kind: str, raw: bytes, wait: bool, timeout: float
) -> int:
    from waypost.bodies import parse_body

    parse_body(kind, raw)
    async with Publisher(
        settings.bootstrap_servers, prefix=settings.topic_prefix, source="/waypost/cli"
    ) as p:
        if wait:
            result = await p.publish_and_wait(session, kind, raw, timeout=timeout)
            short = result.type.rpartition(".")[2]
            show_fields({"result": short, **result.body}, common.output)
            return FAILED if short == "rejected" else DONE
        identifier = p.publish(session, kind, raw)
        left = await p.flush(timeout)
    if left:
        raise CommandError(f"Kafka did not take the command within {timeout:g} s; it is not published")
    show_fields({"command_id": identifier}, common.output)
    return DONE


async def _publish_lines(settings: Settings) -> int:
    sent = bad = 0
    async with Publisher(
        settings.bootstrap_servers, prefix=settings.topic_prefix, source="/waypost/cli"
    ) as p:
        for number, line in enumerate(sys.stdin.buffer, 1):
            if not line.strip():
                continue
            try:
                fields = cast(dict[str, Any], orjson.loads(line))
                await p.room()
                p.create(fields["session"], fields["name"], fields.get("data", {}), fields.get("metadata"))
                sent += 1
            except (orjson.JSONDecodeError, KeyError, TypeError, InvalidCommandError) as error:
                bad += 1
                note(f"line {number} was not published: {type(error).__name__}: {error}")
        left = await p.flush(60)
    show_json_line({"published": sent - left, "refused": bad, "left": left})
    return DONE if not bad and not left else FAILED


def defaults(
    *,
    max_checkpoints: int | None = None,
    compress_after: int | None = None,
    keep_recent: int | None = None,
    max_age: Annotated[float | None, Parameter(help="seconds")] = None,
    forever: Annotated[bool, Parameter(help="no max_age any more")] = False,
    yes: Annotated[bool, Parameter(help="don't ask")] = False,
    common: Common | None = None,
) -> int:
    """Set the retention policy of all sessions without one of their own, as a command in the log.

    For example:

      waypost defaults --max-checkpoints 500 --compress-after 200
    """
    common = common or Common()
    settings = common.settings()
    named = {
        "max_checkpoints": max_checkpoints,
        "compress_after": compress_after,
        "keep_recent": keep_recent,
        "max_age": max_age,
    }
    changes = {name: value for name, value in named.items() if value is not None}
    if forever:
        changes["max_age"] = None  # type: ignore[assignment]
    if not changes:
        raise CommandError("name at least one field to change", USAGE)
    confirm("this changes what every session without a policy of its own keeps", yes)

    async def work() -> list[str]:
        async with Publisher(
            settings.bootstrap_servers, prefix=settings.topic_prefix, source="/waypost/cli"
        ) as publisher:
            sent = await publisher.configure_defaults(**changes)
            if await publisher.flush(10):
                raise CommandError("Kafka did not take all commands in time; repeat this command")
            return sent

    show_fields({"partitions": len(run(work())), **changes}, common.output)
    return DONE


def confirm(what: str, yes: bool) -> None:
    """Ask on a terminal, unless ``yes``; elsewhere refuse without it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{what}: say --yes to go on without a terminal", USAGE)
    note(f"{what}. Go on? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")
