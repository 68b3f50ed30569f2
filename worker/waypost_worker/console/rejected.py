"""Handlers of the pages of rejected commands: look, send again, and forget."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaProducer
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from waypost.errors import ReaderTimeoutError
from waypost.kafka.diagnosis import require_access
from waypost.shards import shard_of
from waypost.statements import load_statement
from waypost_worker.config.settings import Settings
from waypost_worker.console.access import Role
from waypost_worker.console.forms import read_form
from waypost_worker.console.pages.rejected import rejected_page
from waypost_worker.console.problems import Problem, ProblemError, not_found, number_of
from waypost_worker.console.reads import Reads
from waypost_worker.console.render import render
from waypost_worker.console.services import require, require_every_tenant, services
from waypost_worker.kafka.connection import Connection
from waypost_worker.operations.rejected import (
    LARGEST,
    RefusedCommand,
    RejectedFilters,
    count_rejected,
    purge_rejected,
    refused_command,
)

_LISTED: Final = 200
_POSTGRES_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_APPLIED_SECONDS: Final = 10.0
_PURGE_SECONDS: Final = 60.0


class RejectedCommands:
    """Sends rejected commands again, and forgets them."""

    def __init__(self, settings: Settings, connection: Connection, reads: Reads) -> None:
        self._settings = settings
        self._connection = connection
        self._reads = reads

    async def publish(self, refused: RefusedCommand, partitions: int) -> tuple[int, int]:
        """Send a command as received, and return its new place once it has a result there."""
        options = self._connection.options()
        await require_access(options)
        producer = AIOKafkaProducer(**options, enable_idempotence=True, max_request_size=LARGEST)
        await producer.start()
        try:
            record = await producer.send_and_wait(
                self._settings.topics.commands,
                refused.value,
                refused.key,
                partition=refused.target(partitions),
                headers=refused.headers,
            )
        finally:
            await producer.stop()
        place = (record.partition, record.offset)
        await self._reads.reader.wait_for(place, _APPLIED_SECONDS)
        return place

    async def forget(self, partition: int, offset: int) -> None:
        """Remove the copy of a rejected command that Postgres keeps. The errors are asyncpg's."""
        dsns = self._settings.dsns
        async with self._connected([dsns[shard_of(partition, len(dsns))]]) as (connection,):
            sql = load_statement("waypost_worker.operations", "rejected_drop", self._settings.postgres_schema)
            await connection.execute(sql, [partition], [offset])

    async def count(self, filters: RejectedFilters) -> list[dict[str, Any]]:
        """Return how many commands match, by code. The errors are asyncpg's."""
        async with self._connected(self._settings.dsns) as connections:
            return await count_rejected(connections, self._settings.postgres_schema, filters)

    async def purge(self, filters: RejectedFilters) -> tuple[int, bool]:
        """Remove what matches; return how many are gone, and whether that is all. The errors are asyncpg's."""
        dropped = 0
        until = time.monotonic() + _PURGE_SECONDS
        async with self._connected(self._settings.dsns) as connections:
            async for batch in purge_rejected(connections, self._settings.postgres_schema, filters):
                dropped += batch
                if time.monotonic() > until:
                    return dropped, False
        return dropped, True

    @asynccontextmanager
    async def _connected(self, dsns: Sequence[str]) -> AsyncIterator[list[Any]]:
        """Connect to databases with the right to write, which a reader's sessions do not have."""
        async with AsyncExitStack() as stack:
            connections: list[Any] = []
            for dsn in dsns:
                connection: Any = await asyncpg.connect(
                    dsn,
                    timeout=self._settings.request_timeout,
                    command_timeout=self._settings.request_timeout,
                    statement_cache_size=0,
                )
                stack.push_async_callback(connection.close, timeout=1)
                connections.append(connection)
            yield connections


async def show_list(request: Request) -> Response:
    """List rejected commands, newest first."""
    require(request, Role.VIEWER)
    session, code = request.query_params.get("session", ""), request.query_params.get("code", "")
    rows = await services(request).reads.rejected(session or None, code or None, _LISTED)
    return render(
        request,
        "rejected.html",
        title="Rejected commands",
        rows=rows,
        session=session,
        code=code,
        more=len(rows) == _LISTED,
    )


async def show(request: Request) -> Response:
    """Show a rejected command as received, and what sending it again would do."""
    require(request, Role.VIEWER)
    row = await _row(request)
    page = rejected_page(row, await _partitions(request))
    return render(
        request, "rejected_one.html", title=f"Rejected: {page.row.partition}/{page.row.offset}", page=page
    )


async def raw(request: Request) -> Response:
    """Answer with the value of a rejected command, byte for byte, to be saved."""
    require(request, Role.VIEWER)
    row = await _row(request)
    name = f"rejected-{row['partition']}-{row['offset']}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(row["value"] or b"", media_type="application/octet-stream", headers=headers)


async def retry(request: Request) -> Response:
    """Send a rejected command again, and forget the old copy."""
    require(request, Role.OPERATOR)
    await read_form(request)
    row = await _row(request)
    made = services(request)
    refused = refused_command(row)
    if (problem := refused.problem()) is not None:
        raise ProblemError(
            Problem(
                409,
                "It would be rejected again",
                f"{problem.code}: {problem.message}. Nothing was published.",
            )
        )
    try:
        place = await made.rejected.publish(refused, await _partitions(request))
    except ReaderTimeoutError as error:
        raise ProblemError(
            Problem(
                504,
                "It was published, and has no result yet",
                f"{error} The old copy is still in the list.",
                "Is a worker running? Sending it again later changes nothing if it was accepted.",
            )
        ) from None
    again = await made.reads.refused_at(*place)
    kept = await _forget(request, row["partition"], row["offset"])
    return render(
        request,
        "retried.html",
        title="Sent again",
        place=f"{place[0]}/{place[1]}",
        again=again,
        session=refused.session_id,
        kept=kept,
    )


async def purge(request: Request) -> Response:
    """Forget a rejected command."""
    require(request, Role.OPERATOR)
    await read_form(request)
    row = await _row(request)
    if (kept := await _forget(request, row["partition"], row["offset"])) is not None:
        raise ProblemError(Problem(403, "The console may not remove this", f"{kept} Nothing was changed."))
    return RedirectResponse("/rejected", 303)


async def preview_purge(request: Request) -> Response:
    """Show how many rejected commands would be forgotten."""
    require_every_tenant(request)
    require(request, Role.OPERATOR)
    filters = _filters(request.query_params)
    counts = await services(request).rejected.count(filters)
    newest = max((one["newest"] for one in counts), default=None)
    return render(
        request,
        "purge.html",
        title="Remove rejected commands",
        filters=filters,
        counts=counts,
        total=sum(one["commands"] for one in counts),
        # Those that are refused from now on were not shown, so they stay.
        until=None if newest is None else (newest + timedelta(microseconds=1)).isoformat(),
    )


async def purge_many(request: Request) -> Response:
    """Forget the rejected commands that a preview counted."""
    require_every_tenant(request)
    require(request, Role.OPERATOR)
    form = await read_form(request)
    try:
        until = datetime.fromisoformat(form.get("until", ""))
        filters = replace(_filters(form), until=until.astimezone(UTC))
    except (ValueError, OverflowError):
        raise ProblemError(
            Problem(400, "This form is not one of the console's", "Nothing was removed.")
        ) from None
    try:
        dropped, is_all = await services(request).rejected.purge(filters)
    except _POSTGRES_ERRORS as error:
        status = 403 if isinstance(error, asyncpg.InsufficientPrivilegeError) else 503
        said = f"{_why_kept(error)} The list shows what is left."
        raise ProblemError(Problem(status, "Not all of it was removed", said)) from None
    return render(request, "purged.html", title="Removed", dropped=dropped, is_all=is_all, filters=filters)


def _filters(fields: Mapping[str, str]) -> RejectedFilters:
    return RejectedFilters(fields.get("session") or None, fields.get("code") or None)


async def _forget(request: Request, partition: int, offset: int) -> str | None:
    """Return why the old copy still exists, or None if it is gone."""
    try:
        await services(request).rejected.forget(partition, offset)
    except _POSTGRES_ERRORS as error:
        return _why_kept(error)
    return None


def _why_kept(error: Exception) -> str:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"The console's role in Postgres may only read: {error}."
    return f"Postgres did not remove it: {error}."


async def _row(request: Request) -> Any:
    partition = number_of(request.path_params["partition"], "partition")
    offset = number_of(request.path_params["offset"], "offset")
    row = None
    if partition < 2**31:
        row = await services(request).reads.refused(partition, offset)
    if row is None:
        raise not_found(
            f"A rejected command at {partition}/{offset}",
            "It may have been sent again, purged, or made room.",
        )
    return row


async def _partitions(request: Request) -> int:
    rows = await services(request).reads.partitions()
    return int(rows[0]["partitions"]) if rows else 1
