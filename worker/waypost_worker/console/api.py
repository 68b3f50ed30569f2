"""The pages as JSON, under /api/v1, and their description."""

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from waypost.publisher.stamps import new_id
from waypost_worker.console import changes
from waypost_worker.console.access import Role
from waypost_worker.console.forms import body_of
from waypost_worker.console.pages.changes import KINDS, PreviewPage, change_of, preview_page
from waypost_worker.console.pages.health import Health
from waypost_worker.console.pages.rejected import RejectedRow
from waypost_worker.console.pages.search import active_since, parse_search
from waypost_worker.console.pages.sessions import CheckpointRow, SessionList, SessionRow, difference
from waypost_worker.console.problems import Problem, ProblemError, not_found, number_of
from waypost_worker.console.services import require, require_every_tenant, services
from waypost_worker.console.sessions import one_checkpoint, session_id, session_of
from waypost_worker.operations.differences import shown
from waypost_worker.operations.results import for_programs

_MOST_CHANGES: Final = 10_000
_LISTED: Final = 1000


async def sessions(request: Request) -> Response:
    """Answer with recent sessions."""
    given = request.query_params
    search = parse_search(given.get("q", ""))
    if search.looks_inside:
        require(request, Role.VIEWER)
    since = active_since(given.get("active", ""), datetime.now(UTC))
    found = await services(request).reads.sessions(
        search, since, given.get("rejected") == "1", given.get("after") or None
    )
    return _json(found)


async def session(request: Request) -> Response:
    """Answer with a session and a page of its checkpoints, without their data."""
    before = request.query_params.get("before")
    page = await session_of(
        request, session_id(request), None if before is None else number_of(before, "checkpoint")
    )
    found = asdict(page)
    del found["timeline"]
    return _json(found)


async def checkpoint(request: Request) -> Response:
    """Answer with a checkpoint, its data byte for byte."""
    require(request, Role.VIEWER)
    identifier = session_id(request)
    number = number_of(request.path_params["number"], "checkpoint")
    page = await services(request).reads.checkpoint(identifier, number)
    if page is None:
        raise not_found(f"Checkpoint {number} of the session {identifier!r}")
    found = page.checkpoint
    return _json(
        {
            "id": found.id,
            "name": found.name,
            "timestamp": found.timestamp,
            "recorded_at": found.recorded_at,
            "pinned": found.pinned,
            "imported_id": found.imported_id,
            "command": {"id": page.command_id, "partition": page.partition, "offset": page.position},
            "metadata": orjson.Fragment(found.raw_metadata),
            "data": orjson.Fragment(found.raw_data),
        }
    )


async def diff(request: Request) -> Response:
    """Answer with what changed between two checkpoints."""
    require(request, Role.VIEWER)
    pair = [await one_checkpoint(request, request.query_params.get(side, "")) for side in ("a", "b")]
    found = await asyncio.to_thread(difference, pair[0], pair[1], _MOST_CHANGES)
    return _json(
        {
            "before": pair[0].id,
            "after": pair[1].id,
            "more": found.more,
            "changes": [shown(change) for change in found.changes],
        }
    )


async def preview_change(request: Request) -> Response:
    """Answer with what a change would do."""
    require(request, Role.OPERATOR)
    identifier = session_id(request)
    change = change_of(request.path_params["kind"], identifier, dict(request.query_params))
    stored = await changes.stored_of(request, identifier)
    foreseen = stored.preview(change.action, time.time_ns() // 1000)
    return _json(preview_page(stored, change, foreseen, moved=False))


async def publish_change(request: Request) -> Response:
    """Publish a change, unless the session moved on: then 409 and a new preview."""
    user = require(request, Role.OPERATOR)
    identifier = session_id(request)
    given = await _object(request)
    position = given.pop("position", None)
    command_id = str(given.pop("command_id", "") or new_id())
    fields = {name: _text(value) for name, value in given.items()}
    change = change_of(request.path_params["kind"], identifier, fields)
    stored = await changes.current(request, identifier)
    if position != stored.last_position:
        foreseen = stored.preview(change.action, time.time_ns() // 1000)
        return _json(preview_page(stored, change, foreseen, moved=True), 409)
    result = await changes.publish(request, user, identifier, change, command_id)
    return _json(for_programs(result.type, result.body))


async def rejected(request: Request) -> Response:
    """Answer with rejected commands, newest first."""
    require(request, Role.VIEWER)
    given = request.query_params
    rows = await services(request).reads.rejected(
        given.get("session") or None, given.get("code") or None, _LISTED
    )
    return _json({"rejected": rows})


async def health(request: Request) -> Response:
    """Answer with how the deployment is."""
    require_every_tenant(request)
    cluster = services(request).cluster
    found = await cluster.health()
    findings = [asdict(one) for one in await cluster.findings(found)]
    more = {"lag": found.lag, "waiting_seconds": found.waiting_seconds, "advice": found.advice}
    return _json({**asdict(found), **more, "findings": findings})


async def description(request: Request) -> Response:
    """Answer with the description of all of this."""
    return _json(openapi(services(request).about.version))


def openapi(version: str) -> dict[str, Any]:
    """Return the API as an OpenAPI document."""
    text = {"type": "string"}
    of_session = _parameter("session", "path", "The session's id, percent-encoded, also its slashes.")
    of_kind = {**_parameter("kind", "path", "The kind of change."), "schema": {"enum": list(KINDS)}}
    change_fields = [
        _parameter("checkpoint", "query", "Number, for rollback, pin, unpin and delete."),
        _parameter("discard_later", "query", "1 removes later checkpoints as well."),
        *(_parameter(name, "query", "For policy.") for name in ("max_checkpoints", "compress_after")),
        *(_parameter(name, "query", "For policy.") for name in ("keep_recent", "max_age")),
    ]
    moved = {**_answered("The session has changed; nothing was published.", "PreviewPage")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Waypost console", "version": version},
        "paths": {
            "/api/v1/sessions": {
                "get": _operation(
                    "List sessions, the latest activity first.",
                    "SessionList",
                    [
                        _parameter("q", "query", "Prefix, name:… and metadata, as in the console's search."),
                        _parameter("active", "query", "1h, 1d, 7d or 30d."),
                        _parameter("rejected", "query", "1: only sessions with rejected commands."),
                        _parameter("after", "query", "The cursor of the previous page."),
                    ],
                )
            },
            "/api/v1/sessions/{session}": {
                "get": _operation(
                    "Show a session and its checkpoints, newest first, without data.",
                    None,
                    [of_session, _parameter("before", "query", "Only numbers below this one.")],
                )
            },
            "/api/v1/sessions/{session}/checkpoints/{number}": {
                "get": _operation(
                    "Show a checkpoint with its data.",
                    None,
                    [of_session, _parameter("number", "path", "The checkpoint's number.")],
                )
            },
            "/api/v1/sessions/{session}/{kind}": {
                "get": _operation(
                    "Show what a change would do.", "PreviewPage", [of_session, of_kind, *change_fields]
                ),
                "post": {
                    **_operation("Publish a change and wait for its result.", None, [of_session, of_kind]),
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "required": ["position"],
                                    "properties": {
                                        "position": {"type": "integer", "description": "From the preview."},
                                        "command_id": text,
                                        "checkpoint": {"type": "integer"},
                                        "discard_later": {"type": "boolean"},
                                        "max_checkpoints": {"type": "integer"},
                                        "compress_after": {"type": "integer"},
                                        "keep_recent": {"type": "integer"},
                                        "max_age": {"type": ["number", "null"]},
                                    },
                                }
                            }
                        },
                    },
                    "responses": {**_responses(None), "409": moved},
                },
            },
            "/api/v1/diff": {
                "get": _operation(
                    "Compare two checkpoints.",
                    None,
                    [_parameter(side, "query", "A checkpoint's id.") for side in ("a", "b")],
                )
            },
            "/api/v1/rejected": {
                "get": _operation(
                    "List rejected commands, newest first.",
                    None,
                    [_parameter("session", "query", "Its id."), _parameter("code", "query", "A code.")],
                )
            },
            "/api/v1/health": {"get": _operation("Show how the deployment is.", "Health", [])},
        },
        "components": {"schemas": _schemas()},
    }


def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in (SessionRow, SessionList, CheckpointRow, RejectedRow, PreviewPage, Health):
        schema = TypeAdapter(kind).json_schema(
            ref_template="#/components/schemas/{model}", mode="serialization"
        )
        found |= schema.pop("$defs", {})
        found[kind.__name__] = schema
    found["Problem"] = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
    return found


def _parameter(name: str, where: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string"},
    }


def _operation(summary: str, schema: str | None, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters, "responses": _responses(schema)}


def _responses(schema: str | None) -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/Problem"}
    return {
        "200": _answered("Done.", schema),
        "default": {
            "description": "The error.",
            "content": {"application/problem+json": {"schema": problem}},
        },
    }


def _answered(description: str, schema: str | None) -> dict[str, Any]:
    given = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": given}}}


async def _object(request: Request) -> dict[str, Any]:
    wrong = Problem(400, "This is not a JSON object", "The body could not be read. Nothing was published.")
    # A form of another site can send JSON, but not as that.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ProblemError(Problem(415, "Send application/json", "Nothing was published."))
    try:
        given = orjson.loads(await body_of(request))
    except orjson.JSONDecodeError:
        raise ProblemError(wrong) from None
    if not isinstance(given, dict):
        raise ProblemError(wrong)
    return given


def _text(value: Any) -> str:
    """A field as a form has it."""
    if value is None or value is False:
        return ""
    return "1" if value is True else str(value)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_UTC_Z), status, media_type="application/json")
