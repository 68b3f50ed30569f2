"""HTTP/1.1 whose connections, requests and headers are bounded, no matter which client is at the other end.

uvicorn limits neither how long a request's head may take nor how many connections wait for one. Probes answer within
milliseconds, so a longer request is not a probe.
"""

import asyncio
from typing import Any, Final

from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS: Final = 10.0
"""From the connection, or the first byte of a later request, to the end of the answer."""
KEEP_ALIVE_SECONDS: Final = 30
MOST_CONNECTIONS: Final = 64
HEAD_BYTES: Final = 16 * 1024


def bounded_protocol(
    most: int = MOST_CONNECTIONS, request_seconds: float = REQUEST_SECONDS
) -> type[asyncio.Protocol]:
    """Return the protocol of one server: its connections are counted together."""
    opened: dict[BoundedProtocol, None] = {}  # in the order of their arrival

    class Protocol(BoundedProtocol):
        _opened = opened
        _most = most
        _seconds = request_seconds

    return Protocol


class BoundedProtocol(H11Protocol):
    """A connection that ends if a request is not answered in time, or if it is the oldest of too many.

    The oldest goes, not the newest: a flood of connections then can't keep a probe out.
    """

    _opened: "dict[BoundedProtocol, None]"
    _most: int
    _seconds: float
    _deadline: asyncio.TimerHandle | None = None
    _idle = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._opened[self] = None
        self._expect_answer()
        while len(self._opened) > self._most:
            oldest = next(iter(self._opened))
            del self._opened[oldest]
            oldest.transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._expect_answer()
        super().data_received(data)

    @override
    def on_response_complete(self) -> None:
        # Also for an answer that nobody reads: it is complete once it is in the buffer.
        self._idle = True
        self._set_deadline(KEEP_ALIVE_SECONDS + self._seconds)
        super().on_response_complete()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _expect_answer(self) -> None:
        self._idle = False
        self._set_deadline(self._seconds)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)


def limits() -> dict[str, Any]:
    """The other limits, as uvicorn calls them."""
    return {
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "h11_max_incomplete_event_size": HEAD_BYTES,
        "ws": "none",
    }
