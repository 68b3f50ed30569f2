"""Ends of a topic's partitions, as Kafka knows them: with acks=all, after everything that it has acknowledged."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from waypost.backoff import Backoff
from waypost.errors import KafkaUnavailableError
from waypost.kafka.diagnosis import unreachable
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import quiet
from waypost.kafka.short_reads import PASSING, access_options, close_soon
from waypost.sharing import SharedRequests

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
_POLL_MS: Final = 100


class LogEnds:
    """A connection that asks where partitions end, on the event loop that uses it first.

    ``options`` are those of a Kafka client, of which only addresses and access are used. ``timeout`` is how many
    seconds one answer may take.
    """

    def __init__(self, topic: str, options: Mapping[str, Any], timeout: float) -> None:
        self._topic = topic
        self._options = access_options(options)
        self._timeout = timeout
        self._consumer: AIOKafkaConsumer | None = None
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: SharedRequests[int, int] = SharedRequests(self._ask)

    async def partition_count(self) -> int:
        """Return how many partitions the topic has.

        Raises:
            KafkaUnavailableError: No broker answered in time.
        """
        consumer = self._consumer if self._loop is asyncio.get_running_loop() else None
        known = None if consumer is None else consumer._client.cluster.partitions_for_topic(self._topic)
        if known:
            return len(known)
        try:
            async with asyncio.timeout(self._timeout):
                consumer = await self._connected()
                return len(await partitions_of(consumer._client, self._topic))
        except PASSING as error:
            raise self._unavailable(error) from error

    async def end_of(self, partition: int) -> int:
        """Return the offset after the last record that a partition had during this call.

        Raises:
            KafkaUnavailableError: No broker answered in time.
        """
        return await self._requests.get(partition)

    async def is_empty(self, partition: int, start: int, end: int) -> bool:
        """Tell whether there is no committed record from ``start`` to ``end``: only markers of transactions, say.

        Raises:
            KafkaUnavailableError: No broker answered in time.
        """
        at = TopicPartition(self._topic, partition)
        consumer = AIOKafkaConsumer(
            **self._options, group_id=None, enable_auto_commit=False, isolation_level="read_committed"
        )
        try:
            async with asyncio.timeout(self._timeout):
                with quiet():
                    await consumer.start()
                consumer.assign([at])
                consumer.seek(at, start)
                while await consumer.position(at) < end:
                    if any((await consumer.getmany(at, timeout_ms=_POLL_MS, max_records=1)).values()):
                        return False
                return True
        except PASSING as error:
            raise self._unavailable(error) from error
        finally:
            await close_soon(consumer)

    async def close(self) -> None:
        """Close the connection."""
        await self._requests.stop()
        await self._drop()

    async def _ask(self, partitions: list[int]) -> dict[int, int]:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        last: Exception = TimeoutError()
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        consumer = await self._connected()
                        ends = await consumer.end_offsets(wanted)
                        return {each.partition: ends[each] for each in wanted}
                    except PASSING as error:
                        last = error
                        await self._drop()
                        await asyncio.sleep(backoff.next_wait())
        except TimeoutError:
            raise self._unavailable(last) from last

    def _unavailable(self, error: Exception) -> KafkaUnavailableError:
        return KafkaUnavailableError(
            f"Kafka did not say within {self._timeout:g} s how far topic {self._topic!r} goes, so a read could miss "
            f"what others wrote. Nothing was read. {unreachable(self._options)} The last error was {error!r}."
        )

    async def _connected(self) -> AIOKafkaConsumer:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._consumer, self._opening = loop, None, asyncio.Lock()
        async with self._opening:
            if self._consumer is None:
                consumer = AIOKafkaConsumer(**self._options, group_id=None, enable_auto_commit=False)
                try:
                    with quiet():
                        await consumer.start()
                except BaseException:
                    await close_soon(consumer)
                    raise
                self._consumer = consumer
            return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None and self._loop is asyncio.get_running_loop():
            await close_soon(consumer)
