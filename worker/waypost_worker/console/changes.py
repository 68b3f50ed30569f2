"""Handlers of the pages that change a session: a preview first, the command only if it is still true."""

import asyncio
import time

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from waypost.errors import ReaderTimeoutError, ResultTimeoutError
from waypost.model.checkpoint import checkpoint_id
from waypost.publisher.stamps import new_id
from waypost.publisher.waiter import CommandResult
from waypost.wire.encode import check_session_id
from waypost_worker.console import urls
from waypost_worker.console.access import Role, User
from waypost_worker.console.forms import read_form
from waypost_worker.console.pages.changes import KINDS, Change, change_of, policy_fields, preview_page
from waypost_worker.console.pages.sessions import Difference, difference
from waypost_worker.console.problems import Problem, ProblemError, not_found
from waypost_worker.console.render import render
from waypost_worker.console.services import require, services
from waypost_worker.console.sessions import session_id
from waypost_worker.operations.copying import CopyPlan
from waypost_worker.operations.errors import OperationError
from waypost_worker.operations.results import about, short
from waypost_worker.operations.stored_session import StoredSession
from waypost_worker.operations.transfer import Transfer

_BARRIER_SECONDS = 5.0
_FORK_SECONDS = 30.0
_MOST_CHANGES = 200


async def show(request: Request) -> Response:
    """Show what a change would do."""
    require(request, Role.OPERATOR)
    kind, identifier = _kind(request), session_id(request)
    stored = await stored_of(request, identifier)
    fields = dict(request.query_params)
    if kind == "policy" and not fields:
        return render(
            request, "policy.html", title="Policy", session=stored, fields=policy_fields(stored.policy)
        )
    return await _preview(request, stored, change_of(kind, identifier, fields), moved=False)


async def confirm(request: Request) -> Response:
    """Publish a change, unless the session moved on since its preview."""
    user = require(request, Role.OPERATOR)
    kind, identifier = _kind(request), session_id(request)
    form = await read_form(request)
    change = change_of(kind, identifier, form)
    command_id = _command_id(form)
    stored = await current(request, identifier)
    if form.get("position") != str(stored.last_position):
        return await _preview(request, stored, change, moved=True)
    await publish(request, user, identifier, change, command_id)
    return RedirectResponse(urls.session(identifier, f"done/{command_id}"), 303)


async def current(request: Request, identifier: str) -> StoredSession:
    """Return a session once all that Kafka has of it is applied."""
    await _applied(request, identifier)
    return await stored_of(request, identifier)


async def publish(
    request: Request, user: User, identifier: str, change: Change, command_id: str
) -> CommandResult:
    """Publish a change, and return its result. Raise ProblemError if there is none in time."""
    try:
        return await services(request).publishing.send(user, identifier, change.type, change.body, command_id)
    except ResultTimeoutError as error:
        raise ProblemError(_no_result(error, identifier)) from None


async def done(request: Request) -> Response:
    """Show the result of a change."""
    require(request, Role.OPERATOR)
    identifier, command_id = session_id(request), request.path_params["command"]
    result = services(request).publishing.result(identifier, command_id)
    if result is None:
        raise not_found(
            f"The result of command {command_id!r}",
            "The console keeps the latest 200; the session shows what is so.",
        )
    kind = short(result.type)
    return render(
        request,
        "done.html",
        title=f"{kind.replace('_', ' ').capitalize()}: {identifier}",
        session=identifier,
        result=result,
        kind=kind,
        about=about(result.type, result.body),
    )


async def fork(request: Request) -> Response:
    """Show what a fork would hold, and ask for its name."""
    require(request, Role.OPERATOR)
    identifier = session_id(request)
    stored = await stored_of(request, identifier)
    fields = dict(request.query_params)
    number = fields.get("checkpoint", str(stored.entries[-1].number) if stored.entries else "")
    included = [entry for entry in stored.entries if number.isdigit() and entry.number <= int(number)]
    known = bool(included) and str(included[-1].number) == number
    name = fields.get("name", f"{identifier}-retry"[:200])
    return render(
        request,
        "fork.html",
        title=f"Fork {identifier}",
        session=stored,
        number=number,
        count=len(included),
        known=known,
        name=name,
    )


async def confirm_fork(request: Request) -> Response:
    """Make a new session of another one's checkpoints."""
    user = require(request, Role.OPERATOR)
    identifier = session_id(request)
    form = await read_form(request)
    name = check_session_id(form.get("name", ""))
    if name == identifier:
        raise ProblemError(Problem(400, "A fork needs a different name", f"{name!r} is the session itself."))
    scope = services(request).about.scope
    if not scope.holds(name):
        happened = f"{name!r} does not begin with '{scope.tenant}/'. Nothing was published."
        raise ProblemError(Problem(403, "A fork stays in its tenant", happened, "Choose another name."))
    checkpoint = checkpoint_id(identifier, int(form.get("checkpoint", "0") or 0))
    await _applied(request, identifier)
    plan = CopyPlan(
        identifier, name, transfer=f"fork {checkpoint!r} of {identifier!r} as {name!r}", last=checkpoint
    )
    made = services(request)
    try:
        await plan.prepare(made.reads.reader, made.reads.reader.codec)
        publisher = await made.publishing.publisher(user)
        totals = await Transfer(plan.transfer, _FORK_SECONDS).run(publisher, plan.steps(made.reads.reader))
    except OperationError as error:
        raise ProblemError(Problem(409, "The fork was not made", str(error))) from None
    return render(
        request, "forked.html", title=f"Forked {identifier}", session=identifier, name=name, totals=totals
    )


async def _preview(request: Request, stored: StoredSession, change: Change, *, moved: bool) -> Response:
    foreseen = stored.preview(change.action, time.time_ns() // 1000)
    page = preview_page(stored, change, foreseen, moved)
    compared = None
    if change.kind == "rollback" and foreseen.rejected is None and stored.entries:
        compared = await _compared(request, stored, change)
    return render(
        request,
        "change.html",
        409 if moved else 200,
        title=change.question,
        page=page,
        compared=compared,
        command_id=new_id(),
    )


async def _compared(request: Request, stored: StoredSession, change: Change) -> Difference | None:
    """Return the data from which an agent would continue, next to its current data."""
    reads = services(request).reads
    newest = await reads.get(checkpoint_id(stored.session_id, stored.entries[-1].number))
    target = await reads.get(checkpoint_id(stored.session_id, change.number or 0))
    if newest is None or target is None or newest.number == target.number:
        return None
    return await asyncio.to_thread(difference, newest, target, _MOST_CHANGES)


async def _applied(request: Request, identifier: str) -> None:
    """Wait for the commands before this one: a preview without them would not be true."""
    try:
        await services(request).reads.barrier(identifier, _BARRIER_SECONDS)
    except ReaderTimeoutError as error:
        raise ProblemError(
            Problem(
                503,
                "Commands of this session are waiting to be applied",
                f"{error} Nothing was published.",
                "Start a worker, or wait until it has caught up, and look at a new preview.",
                (urls.session(identifier), "The session"),
            )
        ) from None


async def stored_of(request: Request, identifier: str) -> StoredSession:
    """Return a session as Postgres has it. Raise ProblemError if it is unknown."""
    stored = await services(request).reads.stored(identifier)
    if stored is None:
        raise not_found(f"The session {identifier!r}")
    return stored


def _kind(request: Request) -> str:
    kind: str = request.path_params["kind"]
    if kind not in KINDS:
        raise not_found("This address")
    return kind


def _command_id(form: dict[str, str]) -> str:
    """The form's own, so that a form that is sent twice is one command."""
    given = form.get("command_id", "")
    if not (given.isascii() and given.replace("-", "").isalnum() and len(given) <= 64):
        raise ProblemError(Problem(400, "This form is not one of the console's", "Nothing was published."))
    return given


def _no_result(error: ResultTimeoutError, identifier: str) -> Problem:
    link = (urls.session(identifier), "The session")
    if error.reached == "acknowledged":
        happened = (
            f"Kafka has the command, at {error.partition}/{error.offset}, and no worker answered in time."
        )
        return Problem(504, "No result yet", f"{happened} It will be applied.", "Is a worker running?", link)
    if error.reached == "sent":
        happened = "The command was sent, and Kafka did not answer. It may be applied."
        return Problem(
            504, "It is not known whether this was published", happened, "Look at the session.", link
        )
    happened = "Kafka did not accept the command, and it will not be sent. Nothing was changed."
    return Problem(503, "The command was not published", happened, "Try again when Kafka is back.", link)
