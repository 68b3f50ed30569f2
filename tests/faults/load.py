"""Agents that go on publishing whatever breaks, and write down what Kafka acknowledged."""

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from tests.oracle.ledger import Ledger, fingerprint
from tests.simulation.agents import Agents, Message

from waypost.wire.topics import Topics

MAX_GROUP = 8
SESSIONS = 6


class Load:
    """One publisher, and for each partition one task that sends small groups of commands of every kind."""

    def __init__(
        self, bootstrap_servers: str, topics: Topics, partitions: int, seed: str, per_second: float
    ) -> None:
        self.ledger = Ledger()
        self.partitions = partitions
        self._bootstrap_servers = bootstrap_servers
        self._topic = topics.commands
        self._pause = MAX_GROUP / 2 * partitions / per_second
        self._random = Random(seed)
        self.agents = [
            Agents(Random(f"{seed}/{partition}"), partition, partitions, SESSIONS)
            for partition in range(partitions)
        ]
        self._producer: Any = None
        self._renewing = asyncio.Lock()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._producer = await self._connected()
        self._tasks = [asyncio.create_task(self._publish(partition)) for partition in range(self.partitions)]

    async def stop(self) -> None:
        """Stop publishing; returns once everything that was sent is acknowledged or refused."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            await _give_up(self._producer)

    async def mark(self, partition: int) -> int:
        """Publish one more command; its offset, once Kafka has it."""
        while True:
            (offset,) = await self.send(partition, [self.agents[partition].next(_now_ms())])
            if offset is not None:
                return offset

    async def burst(self, partition: int, messages: Sequence[Message]) -> None:
        """Publish these at once."""
        for first in range(0, len(messages), 200):
            await self.send(partition, messages[first : first + 200])

    async def send(self, partition: int, messages: Sequence[Message]) -> list[int | None]:
        """Publish in order; the offset of each, None where it was not acknowledged."""
        producer = self._producer
        try:
            futures = [
                await producer.send(self._topic, value, key=key, headers=headers, partition=partition)
                for key, value, headers in messages
            ]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
        except KafkaError as error:
            outcomes = [error] * len(messages)
        offsets: list[int | None] = []
        for (key, value, headers), outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                self.ledger.refused += 1
                offsets.append(None)
                continue
            self.ledger.note(partition, outcome.offset, fingerprint(key, value, headers))
            offsets.append(outcome.offset)
        if None in offsets:
            await self._renew(producer)
        return offsets

    async def _publish(self, partition: int) -> None:
        agents = self.agents[partition]
        while not self._stop.is_set():
            group = self._random.randrange(1, MAX_GROUP)
            await self.send(partition, [agents.next(_now_ms()) for _ in range(group)])
            try:
                async with asyncio.timeout(self._pause * (0.5 + self._random.random())):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _renew(self, failed: Any) -> None:
        """A producer that failed once may fail for ever: go on with another."""
        async with self._renewing:
            if self._producer is failed:
                self._producer = await self._connected()
                await _give_up(failed)

    async def _connected(self) -> Any:
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap_servers,
                enable_idempotence=True,
                request_timeout_ms=5000,
                max_request_size=2 * 1024 * 1024,
            )
            try:
                await producer.start()
            except KafkaError:
                await producer.stop()
                await asyncio.sleep(0.2)
            else:
                return producer


async def _give_up(producer: Any) -> None:
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=2)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
