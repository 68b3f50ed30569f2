"""The console as an ASGI application: its routes, and what each request may use."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp
from typing_extensions import override

from waypost.errors import WaypostError
from waypost_worker.console import (
    api,
    changes,
    oidc,
    overview,
    provenance,
    rejected,
    sessions,
    streams,
    verifying,
)
from waypost_worker.console.door import login, logout, try_login
from waypost_worker.console.guard import Gate, Guard
from waypost_worker.console.pages.changes import KINDS
from waypost_worker.console.problems import Problem, ProblemError, answer, not_found, problem_of
from waypost_worker.console.services import Services

log = logging.getLogger("waypost.console")
STATIC: Final = {"waypost.css": "text/css", "waypost.js": "text/javascript", "icon.svg": "image/svg+xml"}
_Handler = Callable[[Request], Awaitable[Response]]


class _ChangeKind(Convertor[str]):
    regex = "|".join(KINDS)

    @override
    def convert(self, value: str) -> str:
        return value

    @override
    def to_string(self, value: str) -> str:
        return value


register_url_convertor("change", _ChangeKind())


def make_app(services: Services, gate: Gate) -> ASGIApp:
    """Return the console."""
    app = Starlette(routes=_routes(), exception_handlers=_exception_handlers())
    app.state.services = services
    app.state.gate = gate
    app.state.about = services.about
    return Guard(app, gate)


def _routes() -> list[Route]:
    gets: Mapping[str, _Handler] = {
        "/": sessions.home,
        "/sessions": sessions.home,
        "/sessions/{session}": sessions.session,
        "/sessions/{session}/diff": sessions.diff,
        "/sessions/{session}/fork": changes.fork,
        "/sessions/{session}/{kind:change}": changes.show,
        "/sessions/{session}/done/{command}": changes.done,
        "/sessions/{session}/verify": verifying.show,
        "/sessions/{session}/events": streams.session_events,
        "/sessions/{session}/{number}": sessions.checkpoint,
        "/sessions/{session}/{number}/raw": sessions.raw,
        "/sessions/{session}/{number}/log": provenance.show,
        "/events": streams.home_events,
        "/tail": streams.tail,
        "/tail/events": streams.tail_events,
        "/rejected": rejected.show_list,
        "/rejected/purge": rejected.preview_purge,
        "/rejected/{partition}/{offset}": rejected.show,
        "/rejected/{partition}/{offset}/raw": rejected.raw,
        "/health": overview.health,
        "/help": overview.help_page,
        "/api/v1/openapi.json": api.description,
        "/api/v1/sessions": api.sessions,
        "/api/v1/sessions/{session}": api.session,
        "/api/v1/sessions/{session}/checkpoints/{number}": api.checkpoint,
        "/api/v1/sessions/{session}/{kind:change}": api.preview_change,
        "/api/v1/diff": api.diff,
        "/api/v1/rejected": api.rejected,
        "/api/v1/health": api.health,
        "/login": login,
        oidc.CALLBACK: oidc.end,
        "/static/{name}": static,
    }
    posts: Mapping[str, _Handler] = {
        "/login": try_login,
        "/logout": logout,
        "/sessions/{session}/fork": changes.confirm_fork,
        "/sessions/{session}/verify": verifying.run,
        "/api/v1/sessions/{session}/{kind:change}": api.publish_change,
        "/rejected/purge": rejected.purge_many,
        "/rejected/{partition}/{offset}/retry": rejected.retry,
        "/rejected/{partition}/{offset}/purge": rejected.purge,
        "/sessions/{session}/{kind:change}": changes.confirm,
    }
    return [
        *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
        *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
    ]


def _exception_handlers() -> Mapping[Any, Any]:
    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return answer(request.scope, error.problem)

    async def missing(request: Request, _: Exception) -> Response:
        return answer(request.scope, not_found("This address", "The list of sessions is at /.").problem)

    async def method(request: Request, _: Exception) -> Response:
        return answer(
            request.scope, Problem(405, "This address does not accept that", "Nothing was changed.")
        )

    async def other(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem is None:
            log.error("a page failed: %s", request.url.path, exc_info=error)
            problem = Problem(
                500,
                "The console failed to build this page",
                f"{type(error).__name__}. Nothing was changed.",
                "Its log says more; please report it.",
            )
        return answer(request.scope, problem)

    # Any other exception would be raised again after it is answered, and end the connection.
    return {
        ProblemError: known,
        404: missing,
        405: method,
        WaypostError: other,
        OSError: other,
        Exception: other,
    }


async def static(request: Request) -> Response:
    """Answer with one of the console's own files."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise not_found("This file")
    content = files("waypost_worker.console").joinpath("static", name).read_bytes()
    return Response(content, media_type=STATIC[name], headers={"cache-control": "max-age=300"})
