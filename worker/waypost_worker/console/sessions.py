"""Handlers of the pages that show sessions, checkpoints and differences."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from waypost.model.checkpoint import Checkpoint, checkpoint_id
from waypost.model.limits import MAX_SESSION_ID, text_problem
from waypost_worker.console import urls
from waypost_worker.console.access import Role
from waypost_worker.console.pages.health import Health
from waypost_worker.console.pages.search import ACTIVITY, active_since, parse_search
from waypost_worker.console.pages.sessions import SessionPage, difference
from waypost_worker.console.pages.tree import UnknownPathError, at, tree
from waypost_worker.console.problems import Problem, ProblemError, not_found, number_of
from waypost_worker.console.render import render
from waypost_worker.console.services import Services, require, services, user_of
from waypost_worker.operations.frameworks import plain

_MOST_CHANGES: Final = 500
_NO_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


async def home(request: Request) -> Response:
    """Show recent sessions."""
    query, activity = request.query_params.get("q", ""), request.query_params.get("active", "")
    only_rejected = request.query_params.get("rejected") == "1"
    cursor = request.query_params.get("after") or None
    search = parse_search(query)
    if search.looks_inside:
        require(request, Role.VIEWER)
    made = services(request)
    found, health = await asyncio.gather(
        made.reads.sessions(search, active_since(activity, datetime.now(UTC)), only_rejected, cursor),
        _health(made),
    )
    following = None
    if found.cursor is not None:
        rejected = "1" if only_rejected else None
        following = urls.with_query("/", q=query, active=activity, rejected=rejected, after=found.cursor)
    filtered = bool(query or activity or only_rejected or cursor)
    return render(
        request,
        "home.html",
        title="Sessions",
        found=found,
        health=health,
        query=query,
        activity=activity,
        activities=ACTIVITY,
        only_rejected=only_rejected,
        following=following,
        filtered=filtered,
    )


async def _health(made: Services) -> Health | None:
    """Return the health of the deployment; None for a console of one tenant, which does not show it."""
    return await made.cluster.health() if made.about.scope.tenant is None else None


async def session(request: Request) -> Response:
    """Show a session; with ``a`` and ``b``, what changed between two of its checkpoints."""
    identifier = session_id(request)
    before = request.query_params.get("before")
    page = await session_of(request, identifier, None if before is None else number_of(before, "checkpoint"))
    compared = None
    a, b = request.query_params.get("a"), request.query_params.get("b")
    if a and b and user_of(request).role >= Role.VIEWER:
        pair = [await _one(request, each, identifier) for each in (a, b)]
        compared = await asyncio.to_thread(difference, pair[0], pair[1], _MOST_CHANGES)
    return render(
        request,
        "session.html",
        title=identifier,
        page=page,
        verified=services(request).verifier.found(identifier),
        compared=compared,
        a=a,
        b=b,
    )


async def session_of(request: Request, identifier: str, before: int | None = None) -> SessionPage:
    """Return a session's page. Raise ProblemError if it is unknown."""
    with_data = user_of(request).role >= Role.VIEWER
    page = await services(request).reads.session(identifier, before, with_data)
    if page is None:
        raise ProblemError(
            Problem(
                404,
                "There is no such session",
                f"No command of a session {identifier!r} was ever accepted.",
                "Check the id, or look for it among the rejected commands.",
                ("/", "All sessions"),
            )
        )
    return page


async def checkpoint(request: Request) -> Response:
    """Show a checkpoint with its data as a tree."""
    require(request, Role.VIEWER)
    identifier = session_id(request)
    number = number_of(request.path_params["number"], "checkpoint")
    page = await services(request).reads.checkpoint(identifier, number)
    if page is None:
        raise ProblemError(
            Problem(
                404,
                "There is no such checkpoint",
                f"The session {identifier!r} holds no checkpoint {number}: it was never created, or was removed.",
                "",
                (urls.session(identifier), "The session"),
            )
        )
    path = request.query_params.get("at", "")
    data, problem = await asyncio.to_thread(_readable, identifier, page.checkpoint.raw_data)
    try:
        value = at(data, path)
    except UnknownPathError:
        raise not_found(f"A value at {path!r} in the data of checkpoint {number}") from None
    root = await asyncio.to_thread(tree, value, path)
    return render(
        request, "checkpoint.html", title=page.checkpoint.id, page=page, root=root, at=path, problem=problem
    )


def _readable(session_id: str, raw_data: bytes) -> tuple[Any, str | None]:
    """Data as JSON, with what an adapter encoded as plain data."""
    data = orjson.loads(raw_data)
    found, problem = plain(session_id, data)
    return (data if found is data else orjson.loads(orjson.dumps(found))), problem


async def raw(request: Request) -> Response:
    """Answer with a checkpoint's data, byte for byte."""
    require(request, Role.VIEWER)
    identifier = session_id(request)
    number = number_of(request.path_params["number"], "checkpoint")
    found = await services(request).reads.get(checkpoint_id(identifier, number))
    if found is None or found.number != number:
        raise not_found(f"Checkpoint {number} of the session {identifier!r}")
    headers = {}
    if request.query_params.get("download"):
        name = _NO_FILE_NAME.sub("-", found.id)[-100:]
        headers["content-disposition"] = f'attachment; filename="{name}.json"'
    # As text: nothing that an agent sent is ever a page.
    return Response(found.raw_data, media_type="text/plain; charset=utf-8", headers=headers)


async def diff(request: Request) -> Response:
    """Show what changed between two checkpoints, which may be of two sessions."""
    require(request, Role.VIEWER)
    identifier = session_id(request)
    pair = [await _one(request, request.query_params.get(side, ""), identifier) for side in ("a", "b")]
    compared = await asyncio.to_thread(difference, pair[0], pair[1], _MOST_CHANGES)
    return render(
        request, "diff.html", title=f"{pair[0].id} and {pair[1].id}", compared=compared, session=identifier
    )


async def _one(request: Request, given: str, session: str) -> Checkpoint:
    """A number of this session, or a whole id."""
    return await one_checkpoint(
        request, given if ":" in given else checkpoint_id(session, number_of(given, "checkpoint"))
    )


async def one_checkpoint(request: Request, identifier: str) -> Checkpoint:
    """Return a checkpoint by its id. Raise ProblemError if it is unknown."""
    found = await services(request).reads.get(identifier)
    if found is None:
        raise not_found(f"A checkpoint {identifier!r}")
    return found


def session_id(request: Request) -> str:
    """Return the session id in the address."""
    found = urls.from_segment(request.path_params["session"])
    if found is None or text_problem(found, MAX_SESSION_ID) is not None:
        raise not_found("This address", "No session can have such an id.")
    scope = services(request).about.scope
    if not scope.holds(found):
        raise not_found(
            f"A session {found!r} of the tenant {scope.tenant!r}", "This console shows no others."
        )
    return found
