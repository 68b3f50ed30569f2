"""The cookies of somebody who comes in, whichever way."""

import time

from starlette.requests import Request
from starlette.responses import Response

from waypost_worker.console.access import SESSION_SECONDS, User
from waypost_worker.console.guard import Gate
from waypost_worker.console.render import render


def let_in(request: Request, user: User, page: str = "/") -> Response:
    """Return the answer that logs a user in and leads to a page."""
    gate: Gate = request.app.state.gate
    # Not a redirect: behind a link on another site, a browser would not send a strict cookie along with it.
    response = render(request, "welcome.html", title="You are in", page=page)
    response.set_cookie(
        gate.cookie,
        gate.logins.let_in(user, time.monotonic()),
        max_age=SESSION_SECONDS,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return response


def is_secure(request: Request) -> bool:
    """Tell whether the browser uses https, by itself or to the proxy in front."""
    return request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
