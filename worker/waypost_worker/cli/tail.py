"""``waypost tail``: results as they come."""

import asyncio
import os
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from waypost.model.times import from_micros, parse_micros
from waypost.wire.event_types import RESULT_TYPES, EventType
from waypost_worker.cli.support.connections import kafka_errors, kafka_options, require_topics
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, USAGE, CommandError, Format, Stream, event_line, note
from waypost_worker.config.settings import Settings
from waypost_worker.operations.results import about, short

if TYPE_CHECKING:
    from waypost.subscriber.client import Event, Subscriber

# A takeover is not a command's result.
_TYPES: Final[tuple[EventType, ...]] = tuple(kind for kind in RESULT_TYPES if kind != EventType.ACQUIRED)
_SHORT_TYPES: Final = ", ".join(dict.fromkeys(map(short, _TYPES)))


def tail(
    *,
    session: Annotated[list[str] | None, Parameter(help="only these sessions; may be repeated")] = None,
    name: Annotated[list[str] | None, Parameter(help="only checkpoints with these names")] = None,
    type: Annotated[list[str] | None, Parameter(help=f"only these: {_SHORT_TYPES}")] = None,
    from_beginning: Annotated[
        bool, Parameter(help="start with the first result that the topic still has")
    ] = False,
    since: Annotated[str | None, Parameter(help="start at this time, in RFC 3339")] = None,
    count: Annotated[
        int | None,
        Parameter(
            name=["--count", "-n"], help="end after this many results", validator=validators.Number(gte=1)
        ),
    ] = None,
    common: Common = NOTHING_GIVEN,
) -> int:
    """Watch results as they arrive.

    Until Ctrl-C, or --count of them. Filters work together: an event must pass
    all that are given. Times are UTC.

    For example:

      waypost tail --session session-1 --from-beginning
      waypost tail --type rejected --type duplicate -o jsonl
      waypost tail -n 1 --name task_done -o json
    """
    settings = common.settings()
    try:
        start = None if since is None else from_micros(parse_micros(since))
    except ValueError as error:
        raise CommandError(f"--since: {error}", USAGE) from None
    if start is not None and from_beginning:
        raise CommandError("--from-beginning and --since contradict each other", USAGE)
    types = None if type is None else [whole for given in type for whole in _whole_types(given)]
    filters = {"sessions": session, "names": name, "types": types}
    try:
        asyncio.run(_tail(settings, filters, from_beginning, start, count, common.output))
    except KeyboardInterrupt:
        return DONE
    return DONE


def _whole_types(given: str) -> list[EventType]:
    """``configured`` means both, ``session.configured`` one of them."""
    found = [kind for kind in _TYPES if given in (kind, kind.removeprefix("waypost."), short(kind))]
    if not found:
        raise CommandError(f"--type {given}: there are {_SHORT_TYPES}", USAGE)
    return found


async def _tail(
    settings: Settings,
    filters: dict[str, Any],
    from_beginning: bool,
    since: datetime | None,
    count: int | None,
    output: Format,
) -> None:
    from waypost.subscriber.client import Subscriber

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, os.kill, os.getpid(), signal.SIGINT)
    await require_topics(settings)
    async with kafka_errors(settings):
        subscriber = Subscriber(
            settings.bootstrap_servers,
            topic_prefix=settings.topic_prefix,
            from_beginning=from_beginning,
            since=since,
            kafka_options=kafka_options(settings),
            **filters,
        )
        async with subscriber:
            if output == "table":
                note(f"watching {settings.topics.results}; Ctrl-C ends")
            await _show(subscriber, count, output)


async def _show(subscriber: "Subscriber", count: int | None, output: Format) -> None:
    seen = 0
    with Stream(output) as stream:
        async for event in subscriber:
            kind = short(event.type)
            said = about(event.type, event.body) if output == "table" else ""
            subject = event.subject or event.session_id
            stream.show(_for_programs(event), event_line(event.time, kind, subject, said))
            seen += 1
            if seen == count:
                return


def _for_programs(event: "Event") -> dict[str, Any]:
    return {
        "id": event.id,
        "result": short(event.type),
        "type": event.type,
        "time": event.time,
        "subject": event.subject,
        "session_id": event.session_id,
        "name": event.name,
        "partition": event.partition,
        "offset": event.offset,
        "body": event.body,
    }
