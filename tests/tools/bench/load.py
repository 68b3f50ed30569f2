"""Load generators, each in a separate process.

``fill`` publishes creates as fast as Kafka accepts them: all batches are encoded before the signal to start, so that
the load costs little while it runs. ``pace`` publishes at fixed rates in an open loop, through the library's Publisher:
every command has an intended time and carries it, even if it is sent late, so that nothing is hidden by coordinated
omission.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from tests.support.commands import create_body
from tests.tools.bench.children import run_child, say, word
from tests.tools.bench.plan import DATA_BYTES, SESSIONS
from tests.tools.bench.states import session_name, states

from waypost import Publisher, Topics
from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of

NAMES = ("task_started", "plan_made", "tool_called", "observation", "decision", "draft", "task_done")
CREATE = EventType.CREATE.wire
DEFAULTS = EventType.CONFIGURE_DEFAULTS.wire
_BATCH_COMMANDS = 500
_BATCH_BYTES = 1_000_000


async def fill(job: dict[str, Any]) -> None:
    """Encode, say ``ready``, wait for a word, publish all, say how long that took."""
    # For a topic with many partitions, a broker answers a little later for some, and logs it once for each of them.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    topic = Topics(job["prefix"]).commands
    producer = AIOKafkaProducer(
        bootstrap_servers=job["bootstrap"],
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES,
        max_request_size=2 * _BATCH_BYTES,
    )
    await producer.start()
    try:
        lanes = _encode(producer, job)
        say(state="ready")
        await word()
        began = time.monotonic()
        await asyncio.gather(*(_send(producer, topic, lane, batches) for lane, batches in lanes.items()))
        say(state="done", seconds=time.monotonic() - began)
    finally:
        await producer.stop()


def _encode(producer: AIOKafkaProducer, job: dict[str, Any]) -> dict[int, list[Any]]:
    """Batches by partition. ``sessions``, ``data_bytes`` and ``defaults`` (a policy) may be left out."""
    partitions, sessions = job["partitions"], job.get("sessions", SESSIONS)
    made = states(job.get("data_bytes", DATA_BYTES))
    bodies = [create_body(NAMES[step % len(NAMES)], state) for step, state in enumerate(made)]
    lanes: dict[int, list[Any]] = {partition: [] for partition in range(partitions)}
    at = format_micros(time.time_ns() // 1000).encode()
    token = os.urandom(8).hex()

    def add(partition: int, key: bytes | None, value: bytes, headers: Any) -> None:
        batches = lanes[partition]
        record = {"key": key, "value": value, "headers": headers}
        full = not batches or batches[-1].record_count() >= _BATCH_COMMANDS
        if full or batches[-1].append(timestamp=None, **record) is None:
            if batches:
                batches[-1].close()
            batches.append(producer.create_batch())
            batches[-1].append(timestamp=None, **record)

    if policy := job.get("defaults"):
        for partition in lanes:
            headers = command_headers(f"{token}-defaults-{partition}", b"/bench/load", DEFAULTS, at)
            add(partition, None, json.dumps(policy).encode(), headers)
    for number in range(job["commands"]):
        session_id = session_name(number % sessions)
        headers = command_headers(f"{token}-{number:019d}", b"/bench/load", CREATE, at)
        partition = partition_of(session_id, partitions)
        add(partition, session_id.encode(), bodies[number % len(bodies)], headers)
    for batches in lanes.values():
        if batches:
            batches[-1].close()
    return lanes


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, batches: list[Any]) -> None:
    for batch in batches:
        await (await producer.send_batch(batch, topic, partition=partition))


async def pace(job: dict[str, Any]) -> None:
    """For each (label, rate, seconds): publish in an open loop; says ``ended`` after each, and per label how late the
    sends were.

    The intended time is in the data as ``due``, in nanoseconds of the machine's monotonic clock.
    """
    made = states(DATA_BYTES)
    told: list[dict[str, Any]] = []
    async with Publisher(job["bootstrap"], topic_prefix=job["prefix"], source="/bench/load") as publisher:
        publisher.create(session_name(0), "connect", {"label": "connect", "due": 0})
        await publisher.flush(30)
        say(state="ready")
        await word()
        for label, rate, seconds in job["phases"]:
            late: list[int] = []

            def send(number: int, due: int, label: str = label, late: list[int] = late) -> None:
                late.append(time.monotonic_ns() - due)
                state = {**made[number % len(made)], "label": label, "due": due}
                publisher.create(session_name(number % SESSIONS), NAMES[number % len(NAMES)], state)

            # A thread that sleeps is on time within a tenth of a millisecond; an event loop's timers count
            # whole ones.
            await asyncio.to_thread(_tick, asyncio.get_running_loop(), int(rate * seconds), rate, send)
            left = await publisher.flush(30)
            late.sort()
            told.append(
                {
                    "label": label,
                    "sent": len(late) - left,
                    "late_ms_p50": round(late[len(late) // 2] / 1e6, 3),
                    "late_ms_p99": round(late[int(len(late) * 0.99)] / 1e6, 3),
                }
            )
            say(state="ended", label=label)
    say(state="done", phases=told)


def _tick(loop: asyncio.AbstractEventLoop, count: int, rate: float, send: Callable[[int, int], None]) -> None:
    began = time.monotonic_ns() + 20_000_000
    for number in range(count):
        due = began + int(number * 1_000_000_000 / rate)
        if (ahead := due - time.monotonic_ns()) > 0:
            time.sleep(ahead / 1e9)
        loop.call_soon_threadsafe(send, number, due)


async def main(job: dict[str, Any]) -> None:
    """One of the two, as the job says."""
    await (fill if job["kind"] == "fill" else pace)(job)


if __name__ == "__main__":
    run_child(main)
