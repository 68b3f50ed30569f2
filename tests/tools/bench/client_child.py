"""One measurement of the client in a separate process, on asyncio's own event loop, as agents have it.

``calls``: the time of each ``create``, in small bursts between which the event loop runs. ``publish`` and ``bare``: the
time until Kafka has acknowledged a given number, through the publisher and through ``AIOKafkaProducer.send`` alone.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaProducer
from tests.tools.bench.children import run_child, say, word
from tests.tools.bench.load import NAMES
from tests.tools.bench.plan import DATA_BYTES, SESSIONS
from tests.tools.bench.states import session_name, states

from waypost import Publisher, SyncPublisher, Topics

_BURST: Final = 20
_WARM_UP: Final = 2_000


def one_call(publisher: Publisher | SyncPublisher) -> Callable[[int], None]:
    """Publishes the create of this number."""
    made = states(DATA_BYTES)

    def create(number: int) -> None:
        publisher.create(
            session_name(number % SESSIONS), NAMES[number % len(NAMES)], made[number % len(made)]
        )

    return create


async def calls(job: dict[str, Any]) -> None:
    """Say ``ready`` once Kafka has taken the warm-up; after each ``go``, the nanoseconds of each call."""
    options = {"topic_prefix": job["prefix"], **job["options"]}
    if job["threads"]:
        with SyncPublisher(job["bootstrap"], **options) as publisher:
            await asyncio.to_thread(_warm_up, publisher)
            say(state="ready")
            while await word() == "go":
                share = job["calls"] // job["threads"]
                measured = await asyncio.gather(
                    *(
                        asyncio.to_thread(_measure_in_a_thread, publisher, share)
                        for _ in range(job["threads"])
                    )
                )
                sum(measured[1:], measured[0]).say()
            await asyncio.to_thread(publisher.close, 0)
        return
    async with Publisher(job["bootstrap"], **options) as looping:
        create = one_call(looping)
        for number in range(_WARM_UP):
            create(number)
        assert await looping.flush(60) == 0
        say(state="ready")
        while await word() == "go":
            (await _measure_on_the_loop(create, job["calls"])).say()
        await looping.close(0)


class Times:
    """Nanoseconds of each call by the clock, and of all together by the processor time of this thread."""

    def __init__(self, create: Callable[[int], None]) -> None:
        self.clock: list[int] = []
        self.processor = 0
        self._create = create

    def burst(self) -> None:
        """A few calls in a row."""
        began = time.thread_time_ns()
        for _ in range(_BURST):
            start = time.perf_counter_ns()
            self._create(len(self.clock))
            self.clock.append(time.perf_counter_ns() - start)
        self.processor += time.thread_time_ns() - began

    def __add__(self, other: "Times") -> "Times":
        self.clock += other.clock
        self.processor += other.processor
        return self

    def say(self) -> None:
        """For the parent."""
        say(times=self.clock, cpu_us=self.processor / 1000 / len(self.clock))


async def _measure_on_the_loop(create: Callable[[int], None], count: int) -> Times:
    gc.collect()
    times = Times(create)
    while len(times.clock) < count:
        times.burst()
        await asyncio.sleep(0)
    return times


def _warm_up(publisher: SyncPublisher) -> None:
    create = one_call(publisher)
    for number in range(_WARM_UP):
        create(number)
    assert publisher.flush(60) == 0


def _measure_in_a_thread(publisher: SyncPublisher, count: int) -> Times:
    times = Times(one_call(publisher))
    gc.collect()
    while len(times.clock) < count:
        times.burst()
        time.sleep(0.0005)
    return times


async def publish(job: dict[str, Any]) -> None:
    """Seconds from the first call until Kafka has all."""
    async with Publisher(job["bootstrap"], topic_prefix=job["prefix"], **job["options"]) as publisher:
        create = one_call(publisher)
        create(0)
        assert await publisher.flush(60) == 0
        began = time.perf_counter()
        for number in range(job["calls"]):
            if number % _BURST == 0:
                await asyncio.sleep(0)
                await publisher.drain()
            create(number)
        assert await publisher.flush(120) == 0
        say(seconds=time.perf_counter() - began)


async def bare(job: dict[str, Any]) -> None:
    """The same with nothing but the Kafka client: JSON, key, send; no id, no time, no checks, no headers."""
    topic, made = Topics(job["prefix"]).commands, states(DATA_BYTES)
    producer = AIOKafkaProducer(bootstrap_servers=job["bootstrap"], enable_idempotence=True, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(topic, b"{}", key=b"first")
        began = time.perf_counter()
        sent = []
        for number in range(job["calls"]):
            body = {"name": NAMES[number % len(NAMES)], "data": made[number % len(made)]}
            key = session_name(number % SESSIONS).encode()
            sent.append(await producer.send(topic, orjson.dumps(body), key=key))
        for future in sent:
            await future
        say(seconds=time.perf_counter() - began)
    finally:
        await producer.stop()


async def main(job: dict[str, Any]) -> None:
    """One of the three, as the job says."""
    await {"calls": calls, "publish": publish, "bare": bare}[job["kind"]](job)


if __name__ == "__main__":
    logging.disable()  # the Kafka client logs each attempt to reconnect
    run_child(main, asyncio.run)
