"""Another process for the tests of durability: it reads a thread again and again, and tells what it saw and when.

Lines of "start end value" go to stdout until stdin ends. Times are those of the machine's monotonic clock.
"""

import asyncio
import random
import sys
import time

from waypost.adapters import Backend
from waypost.adapters.langgraph import WaypostSaver


async def main(servers: str, dsn: str, prefix: str, thread_id: str) -> None:
    config = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with Backend(servers, dsn, topic_prefix=prefix) as backend:
        saver = WaypostSaver(backend)
        await saver.aget_tuple(config)  # type: ignore[arg-type]
        print("ready", flush=True)
        while not ended.done():
            start = time.monotonic()
            found = await saver.aget_tuple(config)  # type: ignore[arg-type]
            end = time.monotonic()
            value = None if found is None else found.checkpoint["channel_values"]["step"]
            print(start, end, value, flush=True)
            await asyncio.wait({ended}, timeout=random.random() * 0.01)


asyncio.run(main(*sys.argv[1:]))
