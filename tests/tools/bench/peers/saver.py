"""LangGraph's AsyncPostgresSaver: puts by many concurrent tasks, as fast as it accepts them, in a separate process.

No Kafka and no results: what an agent waits for is the put itself. Set up as its documentation says (a psycopg
pool in autocommit mode, nothing prepared ahead); the channel holds the same 1 KB state as the other systems get.
"""

import asyncio
import time
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from tests.tools.bench.children import run_child, say
from tests.tools.bench.states import session_name, states


async def main(job: dict[str, Any]) -> None:
    """``puts`` over ``sessions`` threads by ``tasks`` tasks over ``pool`` connections; says rate and p50."""
    made = states(job["data_bytes"])
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = AsyncConnectionPool(
        job["dsn"], min_size=job["pool"], max_size=job["pool"], open=False, kwargs=settings
    )
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        numbers = iter(range(job["puts"]))
        latencies: list[float] = []

        async def agent() -> None:
            for number in numbers:
                began = time.monotonic()
                await _put(saver, number, job["sessions"], made[number % len(made)])
                latencies.append(time.monotonic() - began)

        began = time.monotonic()
        await asyncio.gather(*(agent() for _ in range(job["tasks"])))
        seconds = time.monotonic() - began
    latencies.sort()
    say(per_second=job["puts"] / seconds, p50_ms=1000 * latencies[len(latencies) // 2])


async def _put(saver: AsyncPostgresSaver, number: int, sessions: int, state: dict[str, Any]) -> None:
    version = f"{number // sessions + 1:032}.0"
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"state": state}
    checkpoint["channel_versions"] = {"state": version}
    config: Any = {"configurable": {"thread_id": session_name(number % sessions), "checkpoint_ns": ""}}
    metadata: Any = {"source": "loop", "step": number // sessions}
    await saver.aput(config, checkpoint, metadata, {"state": version})


if __name__ == "__main__":
    run_child(main)
