"""One of several processes that write checkpoints of one LangGraph thread at once.

Usage: concurrent_writer.py NAME COUNT BOOTSTRAP DSN PREFIX. Each checkpoint follows this process's own last one.
"""

import asyncio
import sys
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from waypost.adapters import Backend
from waypost.adapters.langgraph import WaypostSaver


async def main(name: str, count: int, bootstrap: str, dsn: str, prefix: str) -> None:
    async with Backend(bootstrap, dsn, topic_prefix=prefix) as backend:
        saver = WaypostSaver(backend)
        config: Any = {"configurable": {"thread_id": "shared", "checkpoint_ns": ""}}
        version = None
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for step in range(count):
            version = saver.get_next_version(version, None)
            checkpoint = {
                **empty_checkpoint(),
                "id": str(uuid6()),
                "channel_values": {"state": f"{name}-{step}"},
                "channel_versions": {"state": version},
            }
            metadata: Any = {"source": "loop", "step": step, "writer": name}
            config = await saver.aput(config, checkpoint, metadata, {"state": version})
            await saver.aput_writes(config, [("state", f"{name}-{step}-next")], f"task-{name}-{step}")


asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
