"""A subscriber in a separate process: when each result became visible to it.

A default Kafka consumer, or one of committed records for a system that needs that. Notes arrival times only, and
looks into the results once all are there.
"""

import asyncio
import time
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer
from tests.tools.bench.children import run_child, say, word

from waypost import Topics


async def main(job: dict[str, Any]) -> None:
    """Until ``expected`` results of paced commands came or the parent says a word; latencies by label, in ms."""
    consumer = AIOKafkaConsumer(
        Topics(job["prefix"]).results,
        bootstrap_servers=job["bootstrap"],
        isolation_level=job["isolation_level"],
    )
    await consumer.start()
    for partition in consumer.assignment():
        await consumer.position(partition)  # from here on nothing is missed
    say(state="ready")
    arrivals: list[tuple[int, bytes]] = []

    async def watch() -> None:
        async for record in consumer:
            arrivals.append((time.monotonic_ns(), record.value))
            if len(arrivals) >= job["expected"]:
                return

    watching = asyncio.create_task(watch())
    stop = asyncio.create_task(word())
    await asyncio.wait({watching, stop}, return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    say(state="done", latencies=_latencies(arrivals))
    await consumer.stop()


def _latencies(arrivals: list[tuple[int, bytes]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for arrived, value in arrivals:
        data = orjson.loads(value).get("checkpoint", {}).get("data", {})
        if "due" in data:
            found.setdefault(data["label"], []).append(round((arrived - data["due"]) / 1e6, 3))
    return found


if __name__ == "__main__":
    run_child(main)
