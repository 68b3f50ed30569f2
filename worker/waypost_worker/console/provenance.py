"""Handler of the page that shows the command in the log that a checkpoint was made by."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from waypost_worker.console import urls
from waypost_worker.console.access import Role
from waypost_worker.console.pages.log_record import log_record
from waypost_worker.console.problems import Problem, ProblemError, not_found, number_of
from waypost_worker.console.render import render
from waypost_worker.console.services import require, services
from waypost_worker.console.sessions import session_id
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.partition.ports import OwnerError

_SECONDS: Final = 10.0


async def show(request: Request) -> Response:
    """Show a checkpoint's command as the log has it."""
    require(request, Role.VIEWER)
    identifier = session_id(request)
    number = number_of(request.path_params["number"], "checkpoint")
    made = services(request)
    page = await made.reads.checkpoint(identifier, number)
    if page is None:
        raise not_found(f"Checkpoint {number} of the session {identifier!r}")
    link = (urls.checkpoint(identifier, number), "The checkpoint")
    log = KafkaCommandLog(made.client, made.cluster.topic, page.partition)
    try:
        async with asyncio.timeout(_SECONDS):
            start, _ = await log.bounds()
            records = await log.read(page.position, page.position + 1) if page.position >= start else []
    except (OwnerError, TimeoutError, OSError) as error:
        said = str(error) or "Kafka did not answer in time"
        raise ProblemError(Problem(503, "The log can't be read", f"{said}.", "", link)) from None
    finally:
        await log.close()
    if not records:
        raise ProblemError(
            Problem(
                404,
                "The log no longer has this command",
                f"Retention removed everything before offset {start} of partition {page.partition}.",
                "",
                link,
            )
        )
    record = log_record(page.partition, records[0], made.about.trace_url)
    return render(
        request,
        "log.html",
        title=f"Command {page.partition}/{page.position}",
        record=record,
        session=identifier,
        number=number,
    )
