"""``waypost publish``: one command, or one for each line of standard input."""

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from waypost.errors import InvalidCommandError
from waypost.model.retention import RetentionPolicy
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.command_input import TYPES, from_arguments, from_line
from waypost_worker.cli.support.connections import publishing
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import (
    DONE,
    FAILED,
    USAGE,
    CommandError,
    Format,
    Stream,
    event_line,
    note,
    show_fields,
)
from waypost_worker.cli.support.results import removal_note, show_result
from waypost_worker.cli.support.sending import TimeoutFlag, require_delivered
from waypost_worker.cli.support.stdin import lines
from waypost_worker.config.settings import Settings
from waypost_worker.operations.results import about, for_programs, short, subject
from waypost_worker.operations.sending import Prepared, result_of

if TYPE_CHECKING:
    from waypost.publisher.client import Publisher
    from waypost.publisher.waiter import CommandResult

_IN_FLIGHT: Final = 500


def _json(what: str) -> Parameter:
    return Parameter(help=what, allow_leading_hyphen=True)  # a lone - is standard input


def publish(
    session: Annotated[str | None, Parameter(help="session id")] = None,
    name: Annotated[str | None, Parameter(help="name of the checkpoint to create")] = None,
    /,
    *,
    data: Annotated[str | None, _json("JSON object, @FILE, or - for stdin")] = None,
    metadata: Annotated[str | None, _json("JSON object, @FILE, or - for stdin")] = None,
    type: Annotated[str, Parameter(help=", ".join(TYPES))] = "create",
    body: Annotated[str | None, _json("the command's complete JSON body, with --type")] = None,
    stdin: Annotated[bool, Parameter(help="read one command per line, as described above")] = False,
    wait: Annotated[bool, Parameter(help="wait for the result, and show it")] = False,
    timeout: TimeoutFlag = 10,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Publish commands; --wait shows their results.

    With --stdin, each line is a JSON object with session, name, data and metadata, or with session, type and body.
    Invalid commands are reported and not sent. The exit code is 1 if there were any or, with --wait, if a command is
    rejected later.

    For example:

      waypost publish session-1 task_started --data '{"step": 1}' --wait
      waypost publish session-1 report --data @report.json
      waypost publish session-1 --type pin \\
          --body '{"checkpoint_id": "session-1:1"}'
      waypost publish --stdin --wait -o jsonl < commands.jsonl
    """
    settings = common.settings()
    if stdin:
        if (session, name, data, metadata, body, type) != (None, None, None, None, None, "create"):
            raise CommandError("with --stdin, session, name and the rest come from the lines", USAGE)
        if sys.stdin.isatty():
            note("reading commands, one JSON object per line; press Ctrl-D to end")
        work = _publish_and_show if wait else _publish_lines
        return asyncio.run(work(settings, timeout, common.output))
    if session is None:
        raise CommandError("name a SESSION, or use --stdin. See 'waypost publish --help'.", USAGE)
    command = from_arguments(session, name, data, metadata, type, body)
    return asyncio.run(_publish_one(settings, command, wait, timeout, common.output))


async def _publish_one(
    settings: Settings, command: Prepared, wait: bool, timeout: float, output: Format
) -> int:
    async with publishing(settings) as publisher:
        if wait:
            result = await result_of(publisher, command, timeout)
            if (removed := removal_note(result)) is not None:
                note(removed)
            return show_result(result, output)
        identifier = publisher.publish_raw(command.session, command.type, command.body)
        await require_delivered(publisher, timeout)
    show_fields({"command_id": identifier}, output)
    return DONE


async def _publish_lines(settings: Settings, timeout: float, output: Format) -> int:
    refused = 0
    created: Counter[str] = Counter()  # by session
    async with publishing(settings) as publisher:
        number = 0
        async for line in lines():
            number += 1
            if (command := _read(number, line)) is not None:
                await publisher.drain()
                publisher.publish_raw(command.session, command.type, command.body)
                created[command.session] += command.type == EventType.CREATE
            elif line.strip():
                refused += 1
        left = await publisher.flush(timeout)
        stats = publisher.stats()
    show_fields({"published": stats.delivered, "refused": refused, "lost": left + stats.failed}, output)
    _note_retention(created)
    if left:
        note(
            f"waypost: Kafka did not accept the last {left} within {timeout:g} s of waiting: {stats.last_error}"
        )
    return FAILED if refused or left or stats.failed else DONE


def _note_retention(created: Counter[str]) -> None:
    """Warn if a session got more checkpoints than the default policy keeps."""
    policy = RetentionPolicy()
    for session, count in created.most_common(1):
        if count > policy.compress_after:
            note(
                f"{session!r} got {count} checkpoints. By default, a session keeps at most {policy.max_checkpoints}, "
                f"and above {policy.compress_after} only the latest of each name between the first and the last "
                f"{policy.keep_recent}: 'waypost session policy {session}' shows what is left"
            )


async def _publish_and_show(settings: Settings, timeout: float, output: Format) -> int:
    """Yield results in the order of the lines, each as soon as it and all earlier ones exist."""
    counts: Counter[str] = Counter()
    thinned: set[str] = set()  # sessions from which retention removed something
    async with publishing(settings) as publisher:
        waiting: asyncio.Queue[asyncio.Task[CommandResult] | None] = asyncio.Queue(_IN_FLIGHT)
        reading = asyncio.create_task(_read_all(publisher, timeout, waiting, counts))
        try:
            with Stream(output) as stream:
                while (task := await waiting.get()) is not None:
                    result = await task
                    counts[short(result.type)] += 1
                    stream.show(for_programs(result.type, result.body), _line(result))
                    removed = removal_note(result)
                    if removed is not None and result.body["session_id"] not in thinned:
                        thinned.add(result.body["session_id"])
                        note(removed)
            await reading
        finally:
            reading.cancel()
    note(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no commands")
    return FAILED if counts["not sent"] or counts["rejected"] else DONE


async def _read_all(
    publisher: "Publisher",
    timeout: float,
    waiting: "asyncio.Queue[asyncio.Task[CommandResult] | None]",
    counts: Counter[str],
) -> None:
    number = 0
    try:
        async for line in lines():
            number += 1
            if (command := _read(number, line)) is not None:
                await waiting.put(asyncio.create_task(result_of(publisher, command, timeout)))
            elif line.strip():
                counts["not sent"] += 1
    finally:
        await waiting.put(None)


def _line(result: "CommandResult") -> str:
    kind, body = result.type, result.body
    return event_line(None, short(kind), subject(kind, body), about(kind, body))


def _read(number: int, line: bytes) -> Prepared | None:
    """Return the command in a line, or None after reporting its error."""
    if not line.strip():
        return None
    try:
        return from_line(line)
    except (InvalidCommandError, CommandError) as error:
        note(f"line {number} was not published: {error}")
        return None
