"""Handlers of the pages of rejected commands: look, send again, and forget."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from waypost.errors import ReaderTimeoutError
from waypost_worker.console.access import Role
from waypost_worker.console.forms import read_form
from waypost_worker.console.pages.rejected import rejected_page
from waypost_worker.console.problems import Problem, ProblemError, not_found, number_of
from waypost_worker.console.render import render
from waypost_worker.console.services import require, require_every_tenant, services
from waypost_worker.operations.rejected import (
    RejectedFilters,
    refused_command,
)

_LISTED: Final = 200
_POSTGRES_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_APPLIED_SECONDS: Final = 10.0
_PURGE_SECONDS: Final = 60.0


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
