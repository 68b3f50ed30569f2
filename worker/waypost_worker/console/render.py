"""Templates as pages. Everything that a template prints is escaped: tags, and characters that hide or reorder text."""

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from waypost.errors import printable
from waypost_worker.console import text, urls
from waypost_worker.console.access import Role

_PACKAGE: Final = "waypost_worker.console"


@cache
def environment() -> Environment:
    """Return the templates with what they may call."""
    made = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_visible,
    )
    made.globals.update(urls=urls, Role=Role, counted=text.counted)
    made.filters.update(
        grouped=text.grouped,
        size=text.size,
        span=text.span,
        clock=text.clock,
        full=text.full,
        iso=lambda moment: moment.isoformat().replace("+00:00", "Z"),
        json=lambda value: orjson.dumps(value).decode(),
        cut=_cut,
        pairs=_pairs,
        lines=lambda value: value.split("\n"),
    )
    return made


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Return a page."""
    now = datetime.now(UTC)
    state = request.state
    page = environment().get_template(template)
    body = page.render(
        user=getattr(state, "user", None),
        form_token=getattr(state, "form_token", ""),
        path=request.url.path,
        console=getattr(request.scope.get("app"), "state", None),
        now=now,
        ago=lambda moment: text.ago(moment, now),
        **context,
    )
    return Response(body, status, media_type="text/html; charset=utf-8")


def _visible(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    return printable(value, keep="\n") if isinstance(value, str) else value


def _cut(value: str, most: int) -> str:
    return value if len(value) <= most else f"{value[: most - 1]}…"


def _pairs(metadata: dict[str, Any]) -> str:
    """Return metadata in one line."""
    return ", ".join(
        f"{key}={value if isinstance(value, str) else orjson.dumps(value).decode()}"
        for key, value in metadata.items()
    )
