"""Whom an OpenID Connect provider names: logins under way, what their claims mean here, and roles of groups. Pure."""

import csv
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from waypost.errors import printable
from waypost_worker.console.access import LONGEST_USER, Role, User, is_loopback, same
from waypost_worker.console.urls import own_page

PENDING_SECONDS: Final = 600
EVERYBODY: Final = "*"
_MOST_ENDED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Pending:
    """A login that left for the provider: what its answer must match, and the page that was asked for."""

    state: str
    nonce: str
    verifier: str
    page: str


class PendingLogins:
    """Logins under way. All that belongs to one is in its browser's cookie, so that nobody can fill this up.

    Times are in seconds, of any clock.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, page: str, now: float) -> tuple[str, Pending]:
        """Return a new login, and the value of the cookie that makes it the browser's."""
        content = f"{now + PENDING_SECONDS:.0f} {secrets.token_urlsafe(32)} {page}"
        sealed = urlsafe_b64encode(content.encode()).decode()
        return f"{sealed}.{self._derive('seal', content)}", self._pending(content)

    def end(self, cookie: str | None, state: str, now: float) -> Pending | None:
        """Return the login that a browser began and that has this state; None if there is none.

        A login ends once: its cookie and state are worth nothing afterwards.
        """
        content = self._unsealed(cookie or "")
        if content is None or now >= float(content.partition(" ")[0]):
            return None
        pending = self._pending(content)
        if not same(state, pending.state) or pending.state in self._ended:
            return None
        self._ended[pending.state] = None
        while len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)
        return pending

    def _unsealed(self, cookie: str) -> str | None:
        sealed, _, seal = cookie.partition(".")
        try:
            content = urlsafe_b64decode(sealed).decode()
        except ValueError:
            return None
        return content if same(seal, self._derive("seal", content)) else None

    def _pending(self, content: str) -> Pending:
        state, nonce, verifier = (self._derive(what, content) for what in ("state", "nonce", "verifier"))
        return Pending(state, nonce, verifier, own_page(content.split(" ", 2)[2]))

    def _derive(self, what: str, content: str) -> str:
        return hmac.new(self._key, f"{what} {content}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class GroupRoles:
    """Which role each group has. ``*`` is a group that everybody is in."""

    groups: Mapping[Role, frozenset[str]]

    @property
    def let_somebody_in(self) -> bool:
        """Tell whether any group has a role."""
        return any(self.groups.values())

    def role(self, groups: frozenset[str], most: Role) -> Role | None:
        """Return the highest role of somebody in these groups, at most ``most``; None if they have none."""
        having = [role for role, named in self.groups.items() if named & (groups | {EVERYBODY})]
        return min(max(having), most) if having else None


def groups_named(text: str) -> frozenset[str]:
    """Return the groups of a comma-separated list. Quotes hold together a name that has a comma."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return frozenset(name.strip() for row in rows for name in row if name.strip())


def groups_in(claims: Mapping[str, Any], claim: str) -> frozenset[str] | None:
    """Return the groups that claims name; None if the claim is missing.

    ``claim`` is a name, or the way to it with dots, such as ``realm_access.roles``.
    """
    found = claim_at(claims, claim)
    if found is None:
        return None
    listed = found if isinstance(found, list) else [found]
    return frozenset(each for each in listed if isinstance(each, str))


def claim_at(claims: Mapping[str, Any], claim: str) -> Any:
    """Return the value of a claim, None if it is missing. A name that has dots itself comes first."""
    if claim in claims:
        return claims[claim]
    found: Any = claims
    for part in claim.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def user_name(claims: Mapping[str, Any], claim: str) -> str | None:
    """Return by which name the log will know somebody: that claim, or else the subject; None if neither is usable.

    An address of email counts only if the provider has verified it: anybody can claim another's.
    """
    named = claim_at(claims, claim)
    if claim == "email" and claims.get("email_verified") is not True:
        named = None
    for name in (named, claims.get("sub")):
        if isinstance(name, str) and name.strip() and len(name) <= LONGEST_USER and printable(name) == name:
            return name.strip()
    return None


def user_named(
    claims: Mapping[str, Any], groups: frozenset[str], claim: str, roles: GroupRoles, most: Role
) -> User | None:
    """Return the user that claims and groups make; None if they may not use the console."""
    name, role = user_name(claims, claim), roles.role(groups, most)
    return None if name is None or role is None else User(name, role)


def is_safe_address(url: str) -> bool:
    """Tell whether nobody on the way can read or change what is sent there: https, or this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or "")))
