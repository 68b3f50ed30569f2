"""Ends of a topic's partitions, as Kafka knows them: with acks=all, after everything that it has acknowledged."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import TopicPartition

from waypost.backoff import Backoff
from waypost.errors import KafkaUnavailableError
from waypost.kafka.client_options import rejecting_options, require_access_options
from waypost.kafka.cluster_connections import ClusterConnections
from waypost.kafka.diagnosis import unreachable
from waypost.kafka.log_offsets import END, offsets_at
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import quiet
from waypost.kafka.short_reads import PASSING, access_options
from waypost.kafka.topic_reader import TopicReader
from waypost.sharing import SharedRequests

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
_POLL_SECONDS: Final = 0.1


class LogEnds:
    """A connection that asks where partitions end, on the event loop that uses it first.

    ``options`` are those of a Kafka client, of which only addresses and access are used. ``timeout`` is how many
    seconds one answer may take.
    """

    def __init__(self, topic: str, options: Mapping[str, Any], timeout: float) -> None:
        self._topic = topic
        self._options = access_options(options)
        self._timeout = timeout
        self._connections: ClusterConnections | None = None
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: SharedRequests[int, int] = SharedRequests(self._ask)

    async def partition_count(self) -> int:
        """Return how many partitions the topic has.

        Raises:
            KafkaUnavailableError: No broker answered in time.
        """
        connections = self._connections if self._loop is asyncio.get_running_loop() else None
        known = None if connections is None else connections.cluster.partitions_for_topic(self._topic)
        if known:
            return len(known)
        try:
            async with asyncio.timeout(self._timeout):
                return len(await partitions_of(await self._connected(), self._topic))
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
        with quiet():
            reader = TopicReader(self._topic, {**self._options, "isolation_level": "read_committed"})
        try:
            async with asyncio.timeout(self._timeout):
                with quiet():
                    await reader.start()
                reader.seek(at, start)
                while reader.position(at) < end:
                    if await reader.take(_POLL_SECONDS, 1):
                        return False
                return True
        except PASSING as error:
            raise self._unavailable(error) from error
        finally:
            await reader.stop()

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
                        ends = await offsets_at(await self._connected(), dict.fromkeys(wanted, END))
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

    async def _connected(self) -> ClusterConnections:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._connections, self._opening = loop, None, asyncio.Lock()
        async with self._opening:
            if self._connections is None:
                with quiet(), rejecting_options():
                    require_access_options(self._options)
                    connections = ClusterConnections(**self._options)
                try:
                    await connections.bootstrap()
                except BaseException:
                    await connections.close()
                    raise
                self._connections = connections
            return self._connections

    async def _drop(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None and self._loop is asyncio.get_running_loop():
            await connections.close()
