"""Standard input as lines, without holding up the event loop while none comes."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Final

_CHUNK: Final = 65_536
_CHUNKS_AHEAD: Final = 8


async def lines() -> AsyncIterator[bytes]:
    """The lines of standard input, without their ends, each as soon as it is there.

    A thread reads; it is a daemon, so that Ctrl-C does not wait for input.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(_CHUNKS_AHEAD)
    descriptor = sys.stdin.fileno()

    def read() -> None:
        chunk = b"-"
        while chunk:
            room.acquire()
            chunk = os.read(descriptor, _CHUNK)
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:
                return  # the loop is closed, so nobody waits for lines

    threading.Thread(target=read, name="stdin", daemon=True).start()
    begun: list[bytes] = []
    while chunk := await chunks.get():
        room.release()
        first, *rest = chunk.split(b"\n")
        begun.append(first)
        for line in rest:
            yield b"".join(begun)
            begun = [line]
    if last := b"".join(begun):
        yield last
