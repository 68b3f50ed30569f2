"""One set of connections to a cluster, shared by all partitions of a process.

A broker serves the requests of a connection one at a time, so requests that may wait there for long have a separate
connection (a lane). The number of sockets depends on brokers and lanes, not on partitions.

Connections know brokers only by the metadata of those they know: if all of them are gone, they would ask them forever.
So connections that can't refresh their metadata are replaced by ones that start from the bootstrap servers again
(KIP-899).
"""

import asyncio
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import KafkaConnectionError, LeaderNotAvailableError

from waypost.kafka.cluster_connections import ClusterConnections
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import UnavailableError

_T = TypeVar("_T")
_CLOSE_SECONDS: Final = 1.0


class Lane(IntEnum):
    """The purpose of a connection to a broker. Requests in one lane wait for each other."""

    CONTROL = 0
    COORDINATION = 1
    FETCH = 2
    FETCH_BESIDE = 3
    PRODUCE = 4
    READ = 5
    PRODUCE_BESIDE = 6


class ClusterClient:
    """Connections to one cluster, opened at the first request and closed once nobody uses them.

    Call :meth:`use` before the first request and :meth:`release` after the last one. All calls must come from one event
    loop. Methods raise what aiokafka raises; see ``kafka.connection.kafka_errors``.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: How often it started from the bootstrap servers. After the first time, another cluster may answer.
        self.starts = 0
        self._users: set[object] = set()
        self._client: ClusterConnections | None = None
        self._opening: asyncio.Task[ClusterConnections] | None = None
        self._sending: set[asyncio.Future[Any]] = set()
        self._shared: dict[Any, Any] = {}

    async def use(self, user: object) -> None:
        """Count a user in, and connect if nobody has yet.

        Raises:
            UnavailableError: The cluster can't be reached. The user is not counted.
        """
        self._users.add(user)
        try:
            await self._opened()
        except BaseException:
            await self.release(user)
            raise

    async def release(self, user: object) -> None:
        """Count a user out; the last one closes the connections. Never raises."""
        self._users.discard(user)
        if not self._users:
            await self._retire()

    def shared(self, make: "Callable[[ClusterClient], _T]") -> _T:
        """Return what ``make`` gives for this client, made once for all of its users."""
        if make not in self._shared:
            self._shared[make] = make(self)
        made: _T = self._shared[make]
        return made

    async def send(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> Any:
        """Send a request to a broker, and return its answer.

        A caller that gives up does not end the request: see :meth:`begin`.
        """
        return await answer_to(await self.begin(node, request, lane))

    async def begin(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> asyncio.Task[Any]:
        """Begin to send a request, and return the task that ends with its answer (see :func:`answer_to`).

        The task ends after the connection's time limit at the latest, and with the last user. Only that limit closes a
        connection that has gone silent. Callers whose limits are shorter would cancel, and leave it to each other.
        """
        client = await self._opened()
        sending = asyncio.create_task(client.send(node, request, group=lane))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return sending

    async def leader_of(self, partition: TopicPartition) -> int:
        """Return the id of the broker that leads a partition.

        Raises:
            Raise LeaderNotAvailableError if it currently has none, as far as metadata shows.
        """
        client = await self._opened()
        node = client.cluster.leader_for_partition(partition)
        if node is None:
            client = await self._tracking(partition.topic)
            node = client.cluster.leader_for_partition(partition)
        if node is None or node < 0:
            raise LeaderNotAvailableError(f"{partition.topic}/{partition.partition} has no leader just now")
        return int(node)

    def known_leader_of(self, partition: TopicPartition) -> int | None:
        """Return the id of the broker that leads a partition, as far as is known without asking."""
        node = None if self._client is None else self._client.cluster.leader_for_partition(partition)
        return None if node is None or node < 0 else int(node)

    async def partitions_of(self, topic: str) -> int:
        """Return how many partitions a topic has; 0 if it does not exist."""
        client = await self._tracking(topic)
        return len(client.cluster.partitions_for_topic(topic) or ())

    async def any_node(self) -> int:
        """Return the id of some broker."""
        client = await self._opened()
        node = client.get_random_node()
        if node is None:
            raise LeaderNotAvailableError("no broker is known")
        return node

    async def transaction_coordinator(self, transactional_id: str) -> int:
        """Return the id of the broker that hands out epochs for a transactional id."""
        client = await self._opened()
        return await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)

    async def refresh(self) -> None:
        """Ask for metadata again. If no known broker answers, the next request starts from the bootstrap servers."""
        client = await self._opened()
        if not await self._told(client.force_metadata_update()) and self._client is client:
            await self._retire()

    async def _tracking(self, topic: str) -> ClusterConnections:
        client = await self._opened()
        known = await self._told(client.add_topic(topic))
        if not known and self._client is client:
            await self._retire()
            raise LeaderNotAvailableError(f"no broker knows the leader of {topic}")
        return client

    async def _told(self, asking: asyncio.Future[bool]) -> bool:
        """Wait for metadata, of which a client that is closed meanwhile would never tell."""
        self._sending.add(asking)
        asking.add_done_callback(self._sending.discard)
        return bool(await answer_to(asking))

    async def _opened(self) -> ClusterConnections:
        if self._client is not None:
            return self._client
        if not self._users:
            raise UnavailableError("the connections to Kafka were closed")
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="kafka-client")
        opened: ClusterConnections = await answer_to(self._opening)
        return opened

    async def _open(self) -> ClusterConnections:
        client = ClusterConnections(**self.connection.options())
        try:
            async with kafka_errors("connecting"):
                async with asyncio.timeout(self.connection.start_timeout):
                    await client.bootstrap()
        except BaseException:
            await quietly(client.close(), _CLOSE_SECONDS)
            raise
        finally:
            self._opening = None
        self._client = client
        self.starts += 1
        return client

    async def _retire(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        client, self._client = self._client, None
        sending = set(self._sending)
        if client is not None:
            await quietly(client.close(), _CLOSE_SECONDS)
        for request in sending:  # what is still connecting does not notice that the client was closed
            request.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def answer_to(sending: asyncio.Future[Any]) -> Any:
    """Wait for the answer to a request that continues if this caller is canceled.

    KafkaConnectionError if the request was canceled instead, with the connections.
    """
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        caller = asyncio.current_task()
        if sending.cancelled() and caller is not None and not caller.cancelling():
            raise KafkaConnectionError("the connections to Kafka were closed") from None
        raise
