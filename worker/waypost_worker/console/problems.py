"""Errors as pages and as JSON: what happened, what was kept, what to do."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from waypost.errors import (
    AccessDeniedError,
    BufferFullError,
    DatabaseUnavailableError,
    DeliveryError,
    EncryptionError,
    InvalidArgumentError,
    InvalidCommandError,
    KafkaUnavailableError,
    KeyErasedError,
    PublisherClosedError,
    ReaderTimeoutError,
    ResultTimeoutError,
    UnauthenticDataError,
    WaypostError,
)
from waypost_worker.console.render import render


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a page can't be shown. ``link`` is an address with its text."""

    status: int
    title: str
    happened: str
    todo: str = ""
    link: tuple[str, str] | None = None


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title)
        self.problem = problem


def not_found(what: str, todo: str = "It may have been removed, or never existed.") -> ProblemError:
    """Return the error for something that does not exist."""
    return ProblemError(Problem(404, "There is no such thing", f"{what} is not known.", todo))


def answer(scope: Scope, problem: Problem) -> Response:
    """Return a problem as a page, or as JSON for the API."""
    if str(scope["path"]).startswith("/api/"):
        body = {
            "title": problem.title,
            "status": problem.status,
            "detail": f"{problem.happened} {problem.todo}".strip(),
        }
        return JSONResponse(body, problem.status, media_type="application/problem+json")
    return render(Request(scope), "problem.html", problem.status, problem=problem, title=problem.title)


def problem_of(error: Exception) -> Problem | None:
    """Return what an error of the library means to somebody who looks at a page; None for an unexpected one."""
    said = str(error)
    match error:
        case DatabaseUnavailableError():
            return Problem(
                503, "Postgres is not reachable", said, "Sessions are safe. Try again when it is back."
            )
        case ReaderTimeoutError():
            return Problem(504, "Postgres did not answer in time", said)
        case KafkaUnavailableError():
            return Problem(
                503, "Kafka is not reachable", said, "Nothing was published. Try again when it is back."
            )
        case ResultTimeoutError():
            return Problem(504, "No result yet", said, "See the tail for its result before you try again.")
        case DeliveryError() | BufferFullError() | PublisherClosedError():
            return Problem(503, "The command was not published", said, "Try again.")
        case InvalidCommandError():
            return Problem(400, "This can't be a command", error.message, "Nothing was published.")
        case InvalidArgumentError():
            return Problem(400, "This can't be asked", said)
        case AccessDeniedError():
            return Problem(
                502, "The console was refused", said, "See docs/console.md for the rights that it needs."
            )
        case KeyErasedError():
            return Problem(410, "This session was erased", said)
        case UnauthenticDataError():
            return Problem(
                502, "This data can't be trusted", said, "See docs/encryption.md for what it may mean."
            )
        case EncryptionError():
            return Problem(503, "This can't be decrypted or encrypted now", said)
        case WaypostError():
            return Problem(500, "This can't be read", said)
    return None


def number_of(text: str, what: str) -> int:
    """Return a number from an address. Raise ProblemError if it is not a number."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise not_found(f"{what} {text!r}", "A number belongs there.")
    return int(text)
