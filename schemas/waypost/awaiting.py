"""Waiting for the result of a command that this process publishes: one consumer for all who wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from waypost.errors import ResultTimeoutError
from waypost.topics import Topics


@dataclass(frozen=True, slots=True)
class WaitedResult:
    """The result of a command: its type and parsed body. ``token`` is for ``Reader.wait_for``."""

    type: str
    body: dict[str, Any]

    @property
    def token(self) -> tuple[int, int]:
        """(partition, offset) of the command."""
        command = self.body["command"]
        return command["partition"], command["offset"]

    @property
    def checkpoint_id(self) -> str | None:
        """The id of the checkpoint that the command was about, where there is one."""
        checkpoint = self.body.get("checkpoint")
        return checkpoint["id"] if checkpoint else self.body.get("checkpoint_id")


class ResultWaiter:
    """Reads the results topic from now on and hands each result to whoever waits for its command id."""

    def __init__(self, topics: Topics, options: Mapping[str, Any]) -> None:
        self._topic = topics.results
        names = ("bootstrap_servers", "client_id", "security_protocol", "ssl_context")
        self._options = {
            key: value for key, value in options.items() if key in names or key.startswith("sasl_")
        }
        self._waiting: dict[str, asyncio.Future[WaitedResult]] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @asynccontextmanager
    async def expecting(self, command_id: str, timeout: float) -> AsyncIterator[Awaitable[WaitedResult]]:
        """Wait for this command's result. Enter it before publishing: then no result can be missed."""
        future: asyncio.Future[WaitedResult] = asyncio.get_running_loop().create_future()
        self._waiting[command_id] = future
        try:
            async with asyncio.timeout(timeout):
                await self._started()
                yield future
        except TimeoutError:
            raise ResultTimeoutError(
                command_id,
                f"no result of command {command_id} within {timeout} s. If it was accepted it is kept and may "
                "still be applied; publishing it again with this command id is safe",
            ) from None
        finally:
            self._waiting.pop(command_id, None)
            future.cancel()

    async def stop(self) -> None:
        """End; whoever still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _started(self) -> None:
        async with self._starting:
            if self._consumer is not None and self._task is not None and not self._task.done():
                return
            consumer = AIOKafkaConsumer(
                **self._options, group_id=None, enable_auto_commit=False, auto_offset_reset="latest"
            )
            try:
                await consumer.start()
                partitions = await self._partitions(consumer)
                consumer.assign(partitions)
                await consumer.seek_to_end(*partitions)
                # A position is where reading begins only once it is known, not merely asked for.
                for partition in partitions:
                    await consumer.position(partition)
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
            self._task = asyncio.create_task(self._read(consumer), name="waypost-results")

    async def _partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        # Metadata of a topic comes once it is asked for; a missing topic keeps us here until the time-out.
        while True:
            await consumer._client.add_topic(self._topic)
            found = consumer.partitions_for_topic(self._topic)
            if found:
                return [TopicPartition(self._topic, number) for number in sorted(found)]
            await asyncio.sleep(0.1)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                found = await consumer.getmany(timeout_ms=1000)
            except KafkaError:
                await asyncio.sleep(0.1)
                continue
            for records in found.values():
                for record in records:
                    if self._waiting:
                        self._hand_over(record)

    def _hand_over(self, record: Any) -> None:
        body = orjson.loads(record.value)
        command = body.get("command")
        future = self._waiting.get(command.get("id")) if command else None
        if future is not None and not future.done():
            future.set_result(WaitedResult(dict(record.headers)["ce_type"].decode(), body))
