"""Handlers of the page that proves that a session in Postgres is what the log says."""

import asyncpg
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from waypost_worker.console import urls
from waypost_worker.console.access import Role
from waypost_worker.console.forms import read_form
from waypost_worker.console.problems import Problem, ProblemError
from waypost_worker.console.render import render
from waypost_worker.console.services import require, require_every_tenant, services
from waypost_worker.console.sessions import session_id, session_of
from waypost_worker.partition.ports import OwnerError


async def show(request: Request) -> Response:
    """Show what a comparison found, and offer a new one."""
    require_every_tenant(request)
    require(request, Role.VIEWER)
    identifier = session_id(request)
    page = await session_of(request, identifier)
    verified = services(request).verifier.found(identifier)
    return render(request, "verify.html", title=f"Proof: {identifier}", page=page, verified=verified)


async def run(request: Request) -> Response:
    """Compare a session with the log."""
    require_every_tenant(request)
    require(request, Role.VIEWER)
    identifier = session_id(request)
    await read_form(request)
    page = await session_of(request, identifier)
    link = (urls.session(identifier, "verify"), "Back")
    try:
        await services(request).verifier.verify(identifier, page.position)
    except TimeoutError:
        raise ProblemError(
            Problem(
                504,
                "The log is too long for a page",
                f"Partition {page.partition} could not be folded within a minute. Nothing was changed.",
                f"Run it by itself: waypost verify --partition {page.partition}",
                link,
            )
        ) from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ProblemError(
            Problem(503, "Postgres is not reachable", f"{error}.", "Try again.", link)
        ) from None
    except OwnerError as error:
        raise ProblemError(
            Problem(409, "This can't be compared", f"{error}.", "Nothing was changed.", link)
        ) from None
    return RedirectResponse(urls.session(identifier, "verify"), 303)
