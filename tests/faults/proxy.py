"""A loopback TCP proxy between workers and a server: cuts connections, delays, swallows one direction, loses replies.

Knows bytes and connections; what a request or a reply is, it is told by a Wire (wire.py).
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Literal, Protocol

HOST: Final = "127.0.0.1"
_CHUNK: Final = 64 * 1024
Direction = Literal["to server", "to client"]


class Wire(Protocol):
    """Watches one connection."""

    def sent(self, data: bytes) -> None:
        """The client sent this; it goes on to the server in any case."""
        ...

    def answered(self, data: bytes) -> bytes | None:
        """What the client gets of what the server sent; None cuts the connection instead."""
        ...


class Open:
    """A Wire that lets everything through."""

    def sent(self, data: bytes) -> None:
        """See the protocol."""

    def answered(self, data: bytes) -> bytes | None:
        """See the protocol."""
        return data


class Proxy:
    """One listening port before one server port. Every switch acts on open connections too."""

    def __init__(self, target: int, wire: Callable[[], Wire] = Open) -> None:
        self.port = 0
        self.delay = 0.0  # seconds for each piece of data, in both directions
        self.refusing = False
        self.swallowed: set[Direction] = set()
        self.cuts = 0
        self.target = target  # of new connections
        self._wire = wire
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections; new ones are welcome unless ``refusing``."""
        self.cuts += len(self._open) // 2
        for writer in list(self._open):
            writer.transport.abort()

    def heal(self) -> None:
        """No fault any more. What was swallowed is gone, so connections that lost data are cut."""
        self.delay = 0.0
        self.refusing = False
        if self.swallowed:
            self.swallowed.clear()
            self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, to_server = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        wire = self._wire()
        self._open |= {writer, to_server}
        pumps = [
            asyncio.create_task(self._pump(reader, to_server, "to server", wire)),
            asyncio.create_task(self._pump(there, writer, "to client", wire)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (writer, to_server):
                one.transport.abort()
                self._open.discard(one)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, wire: Wire
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if direction in self.swallowed:
                    continue
                if direction == "to server":
                    wire.sent(data)
                else:
                    passed = wire.answered(data)
                    if passed is None:
                        return
                    data = passed
                if data:
                    writer.write(data)
                    await writer.drain()
