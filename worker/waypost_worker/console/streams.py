"""Server-Sent Events: the tail's rows, and the news that a page has changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from waypost.subscriber.events import Event
from waypost_worker.console.access import Role
from waypost_worker.console.live import LiveResults
from waypost_worker.console.pages.tail import KINDS, TailFilter, place_of, tail_row
from waypost_worker.console.render import environment, render
from waypost_worker.console.services import services, user_of
from waypost_worker.console.sessions import session_id

#: Then the browser connects again and says where it stopped.
_STREAM_SECONDS: Final = 90.0
_HEARTBEAT_SECONDS: Final = 15.0
_ROWS_A_TURN: Final = 10
_TURN_SECONDS: Final = 0.5  # with the above: 20 rows per second in a tab
_CHANGED_SECONDS: Final = 1.0
_SHOWN: Final = 100
_Wanted = Callable[[Event], bool]


async def tail(request: Request) -> Response:
    """Show the latest results; new ones come by a stream."""
    wanted = _filter(request)
    live = services(request).live
    with_data = user_of(request).role >= Role.VIEWER
    rows = [tail_row(event, with_data) for event in live.latest(_shown(request, wanted.wants), _SHOWN)]
    query = request.url.query
    return render(
        request,
        "tail.html",
        title="Tail",
        rows=rows,
        wanted=wanted,
        kinds=KINDS,
        error=live.error,
        stream=f"/tail/events?{query}" if query else "/tail/events",
    )


async def tail_events(request: Request) -> Response:
    """Stream the rows of results as they arrive, at most 20 per second."""
    wanted = _filter(request)
    with_data = user_of(request).role >= Role.VIEWER
    row = environment().get_template("row.html")

    async def stream() -> AsyncIterator[str]:
        async for events in _turns(request, _shown(request, wanted.wants), _TURN_SECONDS):
            shown = events[-_ROWS_A_TURN:]
            left_out = len(events) - len(shown)
            lines = [row.render(row=tail_row(event, with_data)) for event in shown]
            if left_out:
                lines.insert(0, row.render(row=None, left_out=left_out))
            yield _message("\n".join(reversed(lines)), place_of(events[-1]), "rows")

    return _answer(stream())


async def home_events(request: Request) -> Response:
    """Say whenever anything happened."""
    return _answer(_changes(request, _shown(request, lambda _: True)))


async def session_events(request: Request) -> Response:
    """Say whenever a session changed."""
    identifier = session_id(request)
    return _answer(_changes(request, lambda event: event.session_id == identifier))


async def _changes(request: Request, wanted: _Wanted) -> AsyncIterator[str]:
    async for events in _turns(request, wanted, _CHANGED_SECONDS):
        yield _message("", place_of(events[-1]), "changed")


async def _turns(request: Request, wanted: _Wanted, seconds: float) -> AsyncIterator[list[Event]]:
    """Wanted results, those of a turn together; an empty one is a heartbeat and comes out as a comment."""
    live = services(request).live
    number = _start(request, live)
    loop = asyncio.get_running_loop()
    end = loop.time() + _STREAM_SECONDS
    while (left := end - loop.time()) > 0:
        found = await live.after(number, min(left, _HEARTBEAT_SECONDS))
        number = found[-1].number if found else number
        events = [each.event for each in found if wanted(each.event)]
        if events:
            yield events
        # Slower for everybody is better than faster than anybody reads.
        await asyncio.sleep(seconds if found else 0)


def _shown(request: Request, wanted: _Wanted) -> _Wanted:
    """Which events are wanted and may be shown: those of the console's tenant, if it has one."""
    scope = services(request).about.scope
    return lambda event: scope.holds(event.session_id) and wanted(event)


def _start(request: Request, live: LiveResults) -> int:
    last = request.headers.get("last-event-id") or request.query_params.get("last")
    known = None if not last else live.number_of(last)
    return live.count if known is None else known


def _answer(messages: AsyncIterator[str]) -> Response:
    async def stream() -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        pending: asyncio.Future[str] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(messages))
                done, _ = await asyncio.wait({pending}, timeout=_HEARTBEAT_SECONDS)
                if not done:
                    yield ": still here\n\n"
                    continue
                try:
                    message = pending.result()
                except StopAsyncIteration:
                    return
                pending = None
                yield message
        finally:
            if pending is not None:
                pending.cancel()

    return StreamingResponse(stream(), media_type="text/event-stream")


def _message(data: str, identifier: str, kind: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {kind}\nid: {identifier}\n{lines}\n"


def _filter(request: Request) -> TailFilter:
    given = request.query_params
    return TailFilter(given.get("session", ""), given.get("name", ""), given.get("type", ""))
