"""The door of the console: every request passes here before a page sees it, and every answer on its way out.

Rejects host names that are not the console's (DNS rebinding), users without a login, and requests from other sites'
pages. A page that changes something also checks its form's token (``forms``).
"""

import time
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from waypost_worker.console.access import Links, Logins, Proxy, Role, User, is_own_origin, same
from waypost_worker.console.problems import Problem, answer
from waypost_worker.console.urls import with_query

if TYPE_CHECKING:
    from waypost_worker.console.provider import OidcLogin

OPEN: Final = ("/static/", "/login")
_SAFE: Final = frozenset(("GET", "HEAD"))
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # With no-referrer, a browser would not say where a form comes from.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


@dataclass
class Gate:
    """The login method of the console, and its host names."""

    hosts: frozenset[str]
    cookie: str
    links: Links | None = None
    token: str | None = None
    proxy: Proxy | None = None
    oidc: "OidcLogin | None" = None
    role: Role = Role.OPERATOR
    logins: Logins = field(default_factory=Logins)

    def user(self, peer: str | None, headers: Headers) -> tuple[User | None, str]:
        """Return who sends a request, and whose form token its forms carry."""
        if self.proxy is not None:
            user = self.proxy.user(peer, headers)
            return user, "" if user is None else user.name
        if self.token is not None and same(headers.get("authorization", ""), f"Bearer {self.token}"):
            return User("token", self.role), ""
        cookie = cookie_of(headers, self.cookie)
        return self.logins.user(cookie, time.monotonic()), cookie or ""


def cookie_of(headers: Headers, name: str) -> str | None:
    """Return the value of a cookie, None if there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


class Guard:
    """ASGI middleware that applies a gate."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with what is wrong with it."""
        if scope["type"] != "http":
            return
        # Paths are matched as they were sent: in a session id, %2F is not a separator.
        scope["path"] = scope["raw_path"].decode("ascii", "replace")
        headers = Headers(scope=scope)
        state: dict[str, Any] = scope.setdefault("state", {})
        problem = self._problem(scope, headers, state)

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    own[name] = value
                if "cache-control" not in own:
                    own["cache-control"] = "no-store"
            await send(message)

        if problem is None:
            await self._app(scope, receive, protected)
        else:
            await answer(scope, problem)(scope, receive, protected)

    def _problem(self, scope: Scope, headers: Headers, state: dict[str, Any]) -> Problem | None:
        state["user"], state["form_token"] = None, ""
        host = headers.get("host", "").lower()
        if host not in self._gate.hosts:
            return Problem(
                421,
                "This is not one of the console's names",
                f"The request was for {host or 'no host'!r}, so it was not answered: a page of another site may have "
                "sent it.",
                "Open the link that the console printed, or name this host in WAYPOST_CONSOLE_HOSTS.",
            )
        peer = (scope.get("client") or (None,))[0]
        user, holder = self._gate.user(peer, headers)
        state["user"], state["form_token"] = user, self._gate.logins.form_token(holder)
        if user is None and not scope["path"].startswith(OPEN):
            return self._not_let_in(scope)
        programs = "authorization" in headers and user is not None and self._gate.token is not None
        if scope["method"] in _SAFE or programs:
            return None
        if not is_own_origin(headers.get("origin"), host) or headers.get(
            "sec-fetch-site", "same-origin"
        ) not in (
            "same-origin",
            "none",
        ):
            return Problem(
                403,
                "This request did not come from a page of the console",
                "Nothing was published and nothing was changed.",
                "Open the console in its own tab and try again there.",
            )
        return None

    def _not_let_in(self, scope: Scope) -> Problem:
        if self._gate.proxy is not None:
            return Problem(
                401,
                "The proxy did not say who you are",
                "This console only answers a reverse proxy that it knows, with the secret that both share.",
                "Open the console by the proxy's address. See docs/console.md for the headers that it must send.",
            )
        if self._gate.oidc is not None:
            provider = self._gate.oidc.provider.registration.host
            asked = scope["path"] + (
                f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            )
            return Problem(
                401,
                "Log in first",
                f"This console asks {provider} who you are. A login lasts 12 hours at most.",
                link=(
                    with_query("/login", page=asked if scope["method"] in _SAFE else None),
                    f"Log in with {provider}",
                ),
            )
        if self._gate.token is not None:
            return Problem(
                401,
                "Log in first",
                "This console asks for its token.",
                "Type it in.",
                link=("/login", "Log in"),
            )
        return Problem(
            401,
            "This browser was not let in",
            "A link of the console works once, for one browser, and for 12 hours.",
            "Open the newest link that the console printed in its terminal.",
        )
