"""Connections to the brokers of a cluster, and what they say about its topics.

Owns which connections are open, which brokers are asked, and when metadata is refreshed. Stands on aiokafka's
connection, which speaks the protocol, and on its ``ClusterMetadata``, which reads answers. aiokafka's own client opens
one connection at a time, and asks one broker at a time for metadata. A broker that is silent, rather than down, takes
the whole time limit. Until then, nobody gets a connection to another broker, or learns of new leaders.
"""

import asyncio
import inspect
import logging
import random
import socket
import struct
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from aiokafka import __version__
from aiokafka.client import CoordinationType
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from waypost.kafka.addresses import broker_addresses

log = logging.getLogger("waypost")
_T = TypeVar("_T")
# How long a broker may take to answer before the next one is asked as well.
_PATIENCE: Final = 0.5
_METADATA_MS: Final = 300_000
_IDLE_MS: Final = 540_000
_CLOSE_SECONDS: Final = 1.0
_CONTROL: Final = 0
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
_UNREACHABLE: Final = (OSError, TimeoutError, KafkaError)
_OPTIONS: Final = frozenset(inspect.signature(AIOKafkaConnection).parameters) - {"host", "port", "on_close"}


async def open_connection(
    host: str, port: int, on_close: Callable[[Any, Any], None] | None, **options: Any
) -> tuple[AIOKafkaConnection, asyncio.WriteTransport]:
    """Return a connection that is ready for requests, and the transport beneath it.

    Raises:
        OSError: The broker can't be reached.
        TimeoutError: It does not answer.
        KafkaError: It closes the connection, or refuses the login.
    """
    connection = AIOKafkaConnection(host, port, on_close=on_close, **options)
    _, writer = await connection.connect()
    return connection, writer.transport


class ClusterConnections:
    """Connections to several brokers, each opened by one attempt that all who want it wait for.

    An attempt continues if those who wait for it give up, because only its own time limit shows that a broker is
    silent. ``options`` are those of an aiokafka client, of which only access and limits are used. ``on_unreachable``
    gets a text each time a broker can't be reached. ``cluster`` is what was last heard of brokers, topics and leaders.
    Call :meth:`bootstrap` first.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        on_unreachable: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        self.cluster = ClusterMetadata()
        self._on_unreachable = on_unreachable
        # Connections log in the context in which they are opened (see waypost.kafka.quiet).
        self._context = copy_context()
        self._servers = broker_addresses(bootstrap_servers)
        self._options = {
            "client_id": f"aiokafka-{__version__}",
            "sasl_mechanism": "PLAIN",
            "max_idle_ms": options.get("connections_max_idle_ms", _IDLE_MS),
            **{name: value for name, value in options.items() if name in _OPTIONS},
        }
        self._metadata_seconds = options.get("metadata_max_age_ms", _METADATA_MS) / 1000
        self._topics: set[str] = set()
        self._connections: dict[tuple[int, Hashable], AIOKafkaConnection] = {}
        self._transports: dict[AIOKafkaConnection, asyncio.WriteTransport] = {}
        self._attempts: dict[tuple[int, Hashable], asyncio.Task[AIOKafkaConnection]] = {}
        self._out_of_reach: set[int] = set()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._update: asyncio.Task[bool] | None = None
        self._next_update: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def bootstrap(self) -> None:
        """Learn from a bootstrap server which brokers there are.

        Raises:
            KafkaConnectionError: None of them answers.
        """
        servers = random.sample(self._servers, len(self._servers))
        answer = await self._first_answer(partial(self._server_metadata, *server) for server in servers)
        if answer is None:
            named = ", ".join(f"{host}:{port}" for host, port in self._servers)
            raise KafkaConnectionError(f"no bootstrap server answers: {named}")
        self.cluster.update_metadata(answer)
        self._schedule_update()

    async def send(self, node: int, request: Any, *, group: Hashable = _CONTROL) -> Any:
        """Send a request to a broker over its connection for this ``group`` of requests, and return the answer.

        Raises:
            NodeNotReadyError: The broker can't be reached. Nothing was sent.
            RequestTimedOutError: It did not answer in time. The connection was closed.
            KafkaConnectionError: The connection was closed before an answer came.
        """
        connection = await self._connection(node, group)
        # It continues if the caller gives up: only its own time limit closes a connection that has gone silent. Callers
        # with shorter limits would leave that to each other.
        answering = self._begin(_answer(connection, request))
        answering.add_done_callback(_look_at)
        return await self._result_of(answering)

    def get_random_node(self) -> int | None:
        """Return the id of some broker, if possible of one that was reached at the last attempt."""
        known = [broker.nodeId for broker in self.cluster.brokers()]
        in_reach = [node for node in known if node not in self._out_of_reach]
        return random.choice(in_reach or known) if known else None

    async def coordinator_lookup(self, kind: CoordinationType, key: str) -> int:
        """Return the id of the broker that coordinates a group or transactional id. Raises as :meth:`send`."""
        node = self.get_random_node()
        if node is None:
            raise NodeNotReadyError("no broker is known")
        answer = await self.send(node, FindCoordinatorRequest(key, kind))
        error = for_code(answer.error_code)
        if error is not NoError:
            raise error
        return int(answer.coordinator_id)

    def add_topic(self, topic: str) -> "asyncio.Future[bool]":
        """Include a topic in metadata from now on. Return a future as :meth:`force_metadata_update` does."""
        known = topic in self._topics and self.cluster.partitions_for_topic(topic) is not None
        self._topics.add(topic)
        return _result(True) if known else self.force_metadata_update()

    def force_metadata_update(self) -> "asyncio.Future[bool]":
        """Ask for metadata of all topics added so far. Return a future: whether a broker answered."""
        if self._is_closed:
            return _result(False)
        if self._update is None:
            self._update = self._begin(self._update_metadata())
            self._update.add_done_callback(self._updated)
        return asyncio.shield(self._update)

    async def refresh(self) -> None:
        """Ask for metadata; if no known broker answers, ask the bootstrap servers. If those don't either, change
        nothing.
        """
        if not await self.force_metadata_update() and not self._is_closed:
            with suppress(Exception):  # as in _connect
                await self.bootstrap()

    async def close(self) -> None:
        """Close all connections. Requests end with an error. Takes seconds at most."""
        self._is_closed = True
        if self._next_update is not None:
            self._next_update.cancel()
        under_way = set(self._under_way)
        for one in under_way:
            one.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        transports = dict(self._transports)
        closed = {one.close(reason=CloseReason.SHUTDOWN) for one in transports}
        if not closed:
            return
        _, late = await asyncio.wait(closed, timeout=_CLOSE_SECONDS)
        if late:  # the end of TLS waits for a broker, which may be silent
            for transport in transports.values():
                transport.abort()
            await asyncio.wait(late, timeout=_CLOSE_SECONDS)

    async def _connection(self, node: int, group: Hashable) -> AIOKafkaConnection:
        wanted = node, group
        connection = self._connections.get(wanted)
        if connection is not None and connection.connected():
            return connection
        attempt = self._attempts.get(wanted)
        if attempt is None:
            if self._is_closed:
                raise NodeNotReadyError("the connections were closed")
            attempt = self._attempts[wanted] = self._begin(self._connect(node, group))
            self._out_of_reach.add(node)  # as long as it does not answer
            attempt.add_done_callback(partial(self._attempted, wanted))
        return await self._result_of(attempt)

    async def _result_of(self, work: asyncio.Task[_T]) -> _T:
        """Wait for work that continues if this caller is canceled."""
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._is_closed and work.cancelled() and caller is not None and not caller.cancelling():
                raise KafkaConnectionError("the connections were closed") from None
            raise

    async def _connect(self, node: int, group: Hashable) -> AIOKafkaConnection:
        broker = self.cluster.broker_metadata(node)
        try:
            if broker is None:
                raise NodeNotReadyError("it is not in the metadata")
            connection, transport = await open_connection(
                broker.host, broker.port, self._on_connection_closed, **self._options
            )
        except Exception as error:  # a provider of tokens raises anything
            self.force_metadata_update()  # the broker may have another address by now
            text = f"broker {node} can't be reached: {error!r}"
            log.debug(text)
            if self._on_unreachable is not None:
                self._on_unreachable(text)
            raise NodeNotReadyError(text) from error
        self._connections[node, group] = connection
        self._transports[connection] = transport
        self._out_of_reach.discard(node)
        return connection

    def _attempted(self, wanted: tuple[int, Hashable], attempt: asyncio.Task[Any]) -> None:
        del self._attempts[wanted]
        _look_at(attempt)

    def _on_connection_closed(self, connection: AIOKafkaConnection, reason: CloseReason | None) -> None:
        transport = self._transports.pop(connection, None)
        if transport is not None and (
            reason is CloseReason.CONNECTION_TIMEOUT or transport.get_write_buffer_size()
        ):
            # Otherwise, data that a silent broker did not accept would be sent once the broker continues, minutes after
            # everybody has given up. If the socket is closed without lingering, the system discards the data as well.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            transport.abort()
        if reason in (CloseReason.CONNECTION_BROKEN, CloseReason.CONNECTION_TIMEOUT):
            self.force_metadata_update()

    async def _update_metadata(self) -> bool:
        try:
            return await self._metadata_came()
        except asyncio.CancelledError:
            if self._is_closed:  # which cancels it, and not those who wait for it
                return False
            raise

    async def _metadata_came(self) -> bool:
        while True:
            topics = frozenset(self._topics)
            request = MetadataRequest(list(topics))
            nodes = [broker.nodeId for broker in self.cluster.brokers()]
            random.shuffle(nodes)
            nodes.sort(key=lambda node: node in self._out_of_reach)  # those are asked last
            answer = await self._first_answer(partial(self._broker_metadata, node, request) for node in nodes)
            if answer is None:
                return False
            self.cluster.update_metadata(answer)
            if topics == self._topics:
                return True

    def _updated(self, _: "asyncio.Task[bool]") -> None:
        self._update = None
        self._schedule_update()

    def _schedule_update(self) -> None:
        if self._next_update is not None:
            self._next_update.cancel()
        if not self._is_closed:
            loop = asyncio.get_running_loop()
            self._next_update = loop.call_later(self._metadata_seconds, self.force_metadata_update)

    async def _first_answer(self, ways: Iterable[Callable[[], Coroutine[Any, Any, Any]]]) -> Any:
        """Ask in several ways, one after another, and return the first answer that is not None."""
        left = list(ways)[::-1]
        asking: set[asyncio.Task[Any]] = set()
        while (left or asking) and not self._is_closed:
            if left:
                asking.add(self._begin(left.pop()()))
            done, asking = await asyncio.wait(
                asking, timeout=_PATIENCE if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                if not one.cancelled() and (answer := one.result()) is not None:
                    return answer
        return None

    async def _server_metadata(self, host: str, port: int) -> Any:
        try:
            connection, _ = await open_connection(host, port, None, **self._options)
            try:
                answer = await connection.send(MetadataRequest([]))
            finally:
                connection.close()
        except _UNREACHABLE as error:
            log.debug("%s:%s does not answer: %r", host, port, error)
            return None
        # Brokers answer without any broker if they reject a token in a form that aiokafka does not read.
        return answer if answer.brokers else None

    async def _broker_metadata(self, node: int, request: MetadataRequest) -> Any:
        try:
            answer = await self.send(node, request)
        except Exception:  # on any error, another broker may answer
            return None
        return answer if answer.brokers else None

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, context=self._context.copy())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


async def _answer(connection: AIOKafkaConnection, request: Any) -> Any:
    try:
        return await connection.send(request)
    except TimeoutError as error:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        raise RequestTimedOutError from error


def _look_at(task: asyncio.Task[Any]) -> None:
    """Look at how a task ended, for which nobody may be waiting by now."""
    if not task.cancelled():
        task.exception()


def _result(value: bool) -> "asyncio.Future[bool]":
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future
