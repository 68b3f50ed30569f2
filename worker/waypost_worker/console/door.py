"""Coming in and leaving: the one-time link, the token's form, or the provider."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from waypost_worker.console import oidc
from waypost_worker.console.access import User, same
from waypost_worker.console.entering import let_in
from waypost_worker.console.forms import read_form
from waypost_worker.console.guard import Gate, cookie_of
from waypost_worker.console.problems import Problem, ProblemError
from waypost_worker.console.render import render

_LOCAL: Final = "local"


async def login(request: Request) -> Response:
    """Let the browser in that has a link's token, send it to the provider, or ask for the console's token."""
    gate: Gate = request.app.state.gate
    if gate.oidc is not None:
        return await oidc.begin(request)
    token = request.query_params.get("token")
    if gate.links is not None and token is not None:
        # A client that only fetches previews or headers must not use up the link.
        if "prefetch" in request.headers.get("sec-purpose", "") or request.method == "HEAD":
            return Response(status_code=503)
        if gate.links.redeem(token):
            return let_in(request, User(_LOCAL, gate.role))
    if gate.links is not None:
        if request.state.user is not None:
            return render(request, "welcome.html", title="You are in", page="/")
        raise ProblemError(
            Problem(
                401,
                "This link was already used",
                "A link works once, for one browser.",
                "Open the newest link that the console printed in its terminal.",
            )
        )
    if gate.token is None:
        raise ProblemError(Problem(404, "There is no login here", "The proxy in front says who you are."))
    return render(request, "login.html", title="Log in", wrong=False)


async def try_login(request: Request) -> Response:
    """Let the browser in that sent the console's token."""
    gate: Gate = request.app.state.gate
    form = await read_form(request)
    if gate.token is None or not same(form.get("token", ""), gate.token):
        return render(request, "login.html", 401, title="Log in", wrong=True)
    return let_in(request, User("token", gate.role))


async def logout(request: Request) -> Response:
    """Forget the browser."""
    await read_form(request)
    gate: Gate = request.app.state.gate
    gate.logins.end(cookie_of(request.headers, gate.cookie))
    elsewhere = None if gate.oidc is None else gate.oidc.provider.logout_url()
    raise ProblemError(
        Problem(
            401,
            "You are logged out",
            "This browser was forgotten.",
            "Close the tab, or log in again."
            if elsewhere is None
            else "The provider may still know you, and log you in again without asking.",
            link=None if elsewhere is None else (elsewhere, "Log out at the provider as well"),
        )
    )
