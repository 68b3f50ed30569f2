"""Resources for the console's pages, opened once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from waypost.model.tenants import TenantScope
from waypost_worker.console.access import Role, User
from waypost_worker.console.live import LiveResults
from waypost_worker.console.problems import Problem, ProblemError
from waypost_worker.console.publishing import Publishing
from waypost_worker.console.reads import Reads

if TYPE_CHECKING:
    from waypost_worker.console.cluster import Cluster
    from waypost_worker.console.rejected_commands import RejectedCommands
    from waypost_worker.console.verifier import Verifier
    from waypost_worker.kafka.client import ClusterClient


@dataclass(frozen=True, slots=True)
class About:
    """Which deployment this is, for every page."""

    servers: str
    topic_prefix: str
    version: str
    trace_url: str | None
    scope: TenantScope


@dataclass
class Services:
    """Everything a handler may use."""

    about: About
    reads: Reads
    publishing: Publishing
    live: LiveResults
    client: "ClusterClient"
    cluster: "Cluster"
    verifier: "Verifier"
    rejected: "RejectedCommands"


def services(request: Request) -> Services:
    """Return the services of the console that a request came to."""
    found: Services = request.app.state.services
    return found


def require_every_tenant(request: Request) -> None:
    """Raise ProblemError if this is a console of one tenant, which lacks what concerns all sessions."""
    tenant = services(request).about.scope.tenant
    if tenant is not None:
        raise ProblemError(
            Problem(
                404,
                "A console of one tenant has no such page",
                f"It would show or change more than the sessions of {tenant!r}.",
                "Ask the operator of the deployment.",
                ("/", "Sessions"),
            )
        )


def user_of(request: Request) -> User:
    """Return who sent a request: the guard lets nobody else in."""
    user: User | None = request.state.user
    if user is None:
        raise AssertionError("the guard lets nobody in without a user")
    return user


def require(request: Request, role: Role) -> User:
    """Return who sent a request. Raise ProblemError if that role is not enough."""
    user = user_of(request)
    if user.role < role:
        wanted = "see data" if role is Role.VIEWER else "change anything"
        raise ProblemError(
            Problem(
                403,
                f"You may not {wanted} here",
                f"You are {user.role.name.lower()}, and this needs {role.name.lower()}. Nothing was changed.",
                "Ask the operator of this console.",
            )
        )
    return user
