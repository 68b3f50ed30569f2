"""Logins and roles: links, tokens, proxies, and what a browser's request must contain. Pure.

Four modes. ``link``: the console prints a link with a token that works once, for its own machine. ``token``: one
shared token, typed into a form or sent by a program. ``proxy``: a reverse proxy in front says who it is, in headers
that count only from its own address and with its secret. ``oidc``: an OpenID Connect provider says it (``identity``).
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from urllib.parse import urlsplit

from waypost.errors import printable

SESSION_SECONDS: Final = 12 * 3600
USER_HEADER: Final = "x-waypost-user"
ROLE_HEADER: Final = "x-waypost-role"
SECRET_HEADER: Final = "x-waypost-secret"  # noqa: S105
_MOST_SESSIONS: Final = 1000
LONGEST_USER: Final = 100
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


class Role(IntEnum):
    """The permissions of a user. Each role may do everything that the previous ones may."""

    OBSERVER = 1
    """Look at sessions, names and times, but at neither data nor metadata."""
    VIEWER = 2
    OPERATOR = 3


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who was let in."""

    name: str
    role: Role

    @property
    def source(self) -> str:
        """The source of the commands that this user publishes."""
        safe = "".join(each if each.isalnum() or each in "-_.@" else "-" for each in self.name)
        return f"/console/{safe}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, port: int, named: Sequence[str]) -> frozenset[str]:
    """Return the Host headers that are answered: others may be a name that somebody points at this machine."""
    own = [*_LOOPBACK_NAMES] if is_loopback(host) else []
    listed = {f"{name}:{port}" for name in own} | {name.lower() for name in named}
    if port in (80, 443):
        listed |= set(own)
    return frozenset(listed)


def is_own_origin(origin: str | None, host: str) -> bool:
    """Tell whether a request that changes something was sent by a page of the console itself."""
    if origin is None:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host


class Links:
    """Tokens that let one browser in, once. ``on_new`` is called when there is a new one."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(24)
        self.on_new: Callable[[], None] = lambda: None

    @property
    def token(self) -> str:
        """The token of the link that works now."""
        return self._token

    def redeem(self, token: str) -> bool:
        """Return whether a token is the current one. It is then used up, and there is a new one."""
        if not same(token, self._token):
            return False
        self._token = secrets.token_urlsafe(24)
        self.on_new()
        return True


class Logins:
    """Browsers that were let in, by the value of their cookie. ``now`` is in seconds, of any clock."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[User, float]] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def let_in(self, user: User, now: float) -> str:
        """Return the cookie's value for a user."""
        value = secrets.token_urlsafe(32)
        self._known[value] = (user, now + SESSION_SECONDS)
        while len(self._known) > _MOST_SESSIONS:
            self._known.popitem(last=False)
        return value

    def user(self, cookie: str | None, now: float) -> User | None:
        """Return whose cookie this is, None if nobody's or too old."""
        found = self._known.get(cookie or "")
        if found is None or now >= found[1]:
            return None
        return found[0]

    def end(self, cookie: str | None) -> None:
        """Forget a browser."""
        self._known.pop(cookie or "", None)

    def form_token(self, holder: str) -> str:
        """Return what the forms of a cookie's or a proxy's user carry: another site can't know it."""
        return hmac.new(self._key, holder.encode(), hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A reverse proxy that says who it is. ``peers`` are its addresses or networks, ``most`` the highest role."""

    peers: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    secret: str
    most: Role

    def user(self, peer: str | None, headers: Mapping[str, str]) -> User | None:
        """Return the user that the proxy names, None if this is not the proxy, or it names nobody."""
        if not self._is_peer(peer) or not same(headers.get(SECRET_HEADER, ""), self.secret):
            return None
        name = headers.get(USER_HEADER, "").strip()
        if not name or len(name) > LONGEST_USER or printable(name) != name:
            return None
        return User(
            name, min(self.most, role_named(headers.get(ROLE_HEADER, self.most.name)) or Role.OBSERVER)
        )

    def _is_peer(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self.peers)


def role_named(name: str) -> Role | None:
    """Return the role of that name, in any case; None if there is none."""
    return Role.__members__.get(name.strip().upper())


def same(given: str, expected: str) -> bool:
    """Compare two secrets in a time that does not tell how far they agree."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())
