"""An HTTP server inside the worker's event loop. That it answers shows that the loop turns."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import structlog
import uvicorn
from typing_extensions import override

from waypost.errors import WaypostError

log = structlog.get_logger("waypost.worker")
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
    app: Any, host: str, port: int, tell: Callable[[str, int], None] | None = None
) -> AsyncIterator[int]:
    """Serve the ASGI application ``app``; yields the port, which the system chooses where ``port`` is 0.

    ``tell`` is called with host and port once it listens; without it the log says so.

    ListenError if the address is taken or none of this machine's.
    """
    try:
        listening = socket.create_server((host, port), family=_family(host))
    except (OSError, OverflowError) as error:
        raise ListenError(
            f"can't listen on {host}:{port}: {error}; see WAYPOST_HTTP_HOST and WAYPOST_HTTP_PORT"
        ) from None
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, server_header=False, timeout_keep_alive=30
    )
    server = _Server(config)
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


def _log(host: str, port: int) -> None:
    log.info("http_listening", host=host, port=port)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
