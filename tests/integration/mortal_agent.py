"""An agent for the tests of durability, to be killed: it puts checkpoints, and tells each that it was promised.

Arguments: brokers, DSN, prefix, mode, directory of the spool or nothing.
"""

import asyncio
import sys
from typing import Any

from tests.integration.langgraph_threads import put_all, thread

from waypost.adapters import Backend
from waypost.adapters.backend import Durability
from waypost.adapters.langgraph import WaypostSaver


async def main(servers: str, dsn: str, prefix: str, mode: Durability, spool: str) -> None:
    options: dict[str, Any] = {"spool": spool} if spool else {}
    async with Backend(servers, dsn, topic_prefix=prefix, publisher_options=options) as backend:
        saver = WaypostSaver(backend, durability=mode)
        config = None
        step = 0
        while True:
            step += 1
            large = {"large": "x" * 20_000} if step % 7 == 0 else {}
            config = await put_all(saver, {"step": step, **large}, config or thread("mortal"))
            await saver.aput_writes(config, [("step", step)], f"task-{step}")
            print(step, flush=True)
            await asyncio.sleep(0)


asyncio.run(main(*sys.argv[1:]))  # type: ignore[arg-type]
