"""Forms as they come: bounded, and with the token that only a page of the console knows."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from waypost_worker.console.access import same
from waypost_worker.console.problems import Problem, ProblemError

_LARGEST: Final = 256 * 1024
_MOST_FIELDS: Final = 100


async def body_of(request: Request, largest: int = _LARGEST) -> bytes:
    """Return the body of a request. Raise ProblemError if it is too large."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > largest:
            raise ProblemError(
                Problem(
                    413, "This form is too large", f"More than {largest:,} bytes came. Nothing was changed."
                )
            )
        parts.append(part)
    return b"".join(parts)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raise ProblemError if it is not a form, or not one that this console created."""
    raw = await body_of(request)
    try:
        fields = dict(
            parse_qsl(
                raw.decode(), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=_MOST_FIELDS
            )
        )
    except ValueError:
        raise ProblemError(
            Problem(400, "This is not a form", "It could not be read. Nothing was changed.")
        ) from None
    if not same(fields.pop("form_token", ""), request.state.form_token):
        raise ProblemError(
            Problem(
                403,
                "This form is too old",
                "It was made before you logged in, or by another page. Nothing was changed.",
                "Go back, reload the page and send it again.",
            )
        )
    return fields
