"""An HTTP server inside the worker's event loop. That it answers shows that the loop turns."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from typing_extensions import override

from waypost.errors import WaypostError
from waypost_worker.web.bounded import bounded_protocol, limits

_CLOSE_SECONDS: Final = 1.0


class ListenError(WaypostError):
    """The HTTP port can't be had; the message is one line."""


class _Server(uvicorn.Server):
    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker, which drains first."""
        yield


@asynccontextmanager
async def serving(
    app: Any,
    host: str,
    port: int,
    tell: Callable[[str, int], None] | None = None,
    protocol: type[asyncio.Protocol] | None = None,
) -> AsyncIterator[int]:
    """Serve the ASGI application ``app``; yields the port, which the system chooses where ``port`` is 0.

    ``tell`` is called with host and port once the server listens; without it, the log reports them. ``protocol`` is
    HTTP with unusual limits.

    ListenError if the address is taken or none of this machine's.
    """
    try:
        listening = socket.create_server((host, port), family=_family(host))
    except (OSError, OverflowError) as error:
        raise ListenError(
            f"can't listen on {host}:{port}: {error}; see WAYPOST_HTTP_HOST and WAYPOST_HTTP_PORT"
        ) from None
    # asyncio sets this only on sockets that name their protocol, which those of create_server don't. Without it, an
    # answer's body waits 40 ms for the client's delayed acknowledgment of its head. Connections inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        http=protocol or bounded_protocol(),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # A request comes from the peer of the connection, no matter what a header says: so the console knows its proxy.
        proxy_headers=False,
        **limits(),
    )
    server = _Server(config)
    # uvicorn warns about each request that is not HTTP, so anyone who can reach the port could fill the log.
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.ERROR)
    task = asyncio.create_task(server.serve([listening]), name="http")
    try:
        bound: int = listening.getsockname()[1]
        (tell or _log)(host, bound)
        yield bound
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listening.close()
        logger.setLevel(level)


def _log(host: str, port: int) -> None:
    # Here and not above: the console does without it, and without the 50 ms that it takes to load it.
    import structlog

    structlog.get_logger("waypost.worker").info("http_listening", host=host, port=port)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
