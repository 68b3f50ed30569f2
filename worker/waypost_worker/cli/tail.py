"""``waypost tail``: watch results as they come."""

import signal
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from waypost.subscriber import Event, Subscriber
from waypost.times import from_micros, parse_micros
from waypost_worker.cli.common import Common, run
from waypost_worker.cli.output import DONE, USAGE, CommandError, show_json_line


def tail(
    *,
    session: Annotated[list[str] | None, Parameter(help="only these sessions")] = None,
    name: Annotated[list[str] | None, Parameter(help="only checkpoints of these names")] = None,
    type: Annotated[list[str] | None, Parameter(help="only these results: created, rejected, …")] = None,
    from_beginning: Annotated[bool, Parameter(help="all that the topic still holds")] = False,
    since: Annotated[str | None, Parameter(help="from this time on, RFC 3339")] = None,
    count: Annotated[int | None, Parameter(name=["--count", "-n"], help="end after so many")] = None,
    common: Common | None = None,
) -> int:
    """Print result events as they come, until Ctrl-C.

    For example:

      waypost tail --session session-1 --from-beginning
      waypost tail --type rejected -o jsonl
    """
    common = common or Common()
    settings = common.settings()
    try:
        start = None if since is None else from_micros(parse_micros(since))
    except ValueError as error:
        raise CommandError(f"--since: {error}", USAGE) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    async def work() -> None:
        subscriber = Subscriber(
            settings.bootstrap_servers,
            prefix=settings.topic_prefix,
            sessions=session,
            names=name,
            types=type,
            from_beginning=from_beginning,
            since=start,
        )
        seen = 0
        async with subscriber:
            async for event in subscriber:
                _show(event, common.output)
                seen += 1
                if seen == count:
                    return

    try:
        run(work())
    except KeyboardInterrupt:
        return DONE
    return DONE


def _show(event: Event, output: str) -> None:
    if output != "table":
        show_json_line(
            {
                "id": event.id,
                "type": event.type,
                "time": event.time,
                "subject": event.subject,
                "partition": event.partition,
                "offset": event.offset,
                "body": event.body,
            }
        )
        return
    time = (event.time or datetime.now(UTC)).strftime("%H:%M:%S.%f")[:12]
    short = event.type.rpartition(".")[2]
    about = event.name or ""
    if short == "rejected":
        about = f"{event.body['code']}: {event.body['message']}"
    elif event.removed:
        about += f"  (dropped {len(event.removed)})"
    print(f"{time}  {short:<11} {event.subject or '-':<28} {about}", flush=True)  # noqa: T201
