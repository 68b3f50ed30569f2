"""Logging in at an OpenID Connect provider: out to it with a login of one's own, and back with its answer."""

import logging
import time
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from waypost.errors import printable
from waypost_worker.console.entering import is_secure, let_in
from waypost_worker.console.guard import Gate, cookie_of
from waypost_worker.console.identity import PENDING_SECONDS, user_named
from waypost_worker.console.problems import Problem, ProblemError
from waypost_worker.console.urls import own_page

if TYPE_CHECKING:
    from waypost_worker.console.provider import OidcLogin

log = logging.getLogger("waypost.console")
CALLBACK: Final = "/login/callback"


async def begin(request: Request) -> Response:
    """Send a browser to the provider, with a cookie that makes the login its own."""
    gate: Gate = request.app.state.gate
    oidc = login_of(gate)
    cookie, pending = oidc.pending.begin(own_page(request.query_params.get("page", "/")), time.monotonic())
    address = await oidc.provider.authorization_url(_callback(request), pending)
    response = RedirectResponse(address, 303)
    response.set_cookie(
        _cookie(gate),
        cookie,
        max_age=PENDING_SECONDS,
        path="/login",
        secure=is_secure(request),
        httponly=True,
        # The provider's site sends the browser back, and a strict cookie would stay behind.
        samesite="lax",
    )
    return response


async def end(request: Request) -> Response:
    """Let in the browser that comes back from the provider, if this console sent it there."""
    gate: Gate = request.app.state.gate
    oidc = login_of(gate)
    answer = request.query_params
    cookie = cookie_of(request.headers, _cookie(gate))
    pending = oidc.pending.end(cookie, answer.get("state", ""), time.monotonic())
    if pending is None:
        raise ProblemError(
            Problem(
                400,
                "This login was not begun here",
                "It was begun in another browser, is older than ten minutes, or was finished already. Nothing was "
                "changed.",
                "Log in again, and allow this site to keep cookies.",
                link=("/login", "Log in again"),
            )
        )
    try:
        claims, groups = await oidc.provider.claims(answer, _callback(request), pending)
    except ProblemError as error:
        log.warning("nobody was logged in: %s", printable(error.problem.happened))
        raise
    user = user_named(claims, groups, oidc.user_claim, oidc.roles, gate.role)
    if user is None:
        raise _without_role(oidc, str(claims["sub"]))
    response = let_in(request, user, pending.page)
    response.delete_cookie(_cookie(gate), path="/login")
    return response


def login_of(gate: Gate) -> "OidcLogin":
    """Return how a console logs in with a provider. Raise ProblemError if it does not."""
    if gate.oidc is None:
        raise ProblemError(Problem(404, "There is no login here", "This console does not ask a provider."))
    return gate.oidc


def _without_role(oidc: "OidcLogin", subject: str) -> ProblemError:
    shown = printable(subject)[:100]
    log.warning("%s has no group that may use the console", shown)
    logout = oidc.provider.logout_url()
    return ProblemError(
        Problem(
            403,
            "You may not use this console",
            f"{oidc.provider.registration.host} knows you as {shown}, but in no group that may use this console.",
            "Ask the operator of this console, or log in as another user.",
            link=None if logout is None else (logout, "Log out at the provider"),
        )
    )


def _callback(request: Request) -> str:
    scheme = "https" if is_secure(request) else "http"
    # The guard answers only the console's own names.
    return f"{scheme}://{request.headers['host'].lower()}{CALLBACK}"


def _cookie(gate: Gate) -> str:
    return f"{gate.cookie}_login"
