"""aiokafka's client, without its habit of waiting for one broker after the other, and for those that are silent.

aiokafka's client opens one connection at a time, and asks one broker at a time for metadata. A broker that is silent,
rather than down, takes the whole time limit. Until then, nobody gets a connection to another broker, or learns of new
leaders.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.protocol.metadata import MetadataRequest
from typing_extensions import override

# How long a broker may take to answer before the next one is asked as well.
_PATIENCE: Final = 0.5
_CONTROL: Final = 0
_NO_LINGERING: Final = struct.pack("ii", 1, 0)


class ClusterConnections(AIOKafkaClient):
    """Connections to several brokers, each opened by one attempt that all who want it wait for.

    An attempt continues if those who wait for it give up, because only its own time limit shows that a broker is
    silent.
    """

    def __init__(self, **options: Any) -> None:
        _untyped(super()).__init__(**options)
        self._attempts: dict[tuple[Any, Any], asyncio.Task[Any]] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._out_of_reach: set[Any] = set()
        self._transports: dict[Any, asyncio.WriteTransport] = {}
        self._is_closed = False

    @property
    @override
    def _get_conn_lock(self) -> Any:
        return nullcontext()  # there is one attempt for each connection

    @override
    async def _get_conn(self, node_id: Any, *, group: Any = _CONTROL, no_hint: bool = False) -> Any:
        wanted = node_id, group
        connection = self._conns.get(wanted)
        if connection is not None and connection.connected():
            return connection
        attempt = self._attempts.get(wanted)
        if attempt is None:
            if self._is_closed:
                return None  # as if the broker could not be reached
            attempt = self._attempts[wanted] = self._begin(_untyped(super())._get_conn(node_id, group=group))
            self._out_of_reach.add(node_id)  # as long as it does not answer
            attempt.add_done_callback(partial(self._attempted, wanted))
        return await asyncio.shield(attempt)

    @override
    def get_random_node(self) -> Any:
        known = [broker.nodeId for broker in self.cluster.brokers()]
        in_reach = [node for node in known if node not in self._out_of_reach]
        return random.choice(in_reach or known) if known else None

    @override
    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        if not nodes:
            return bool(await _untyped(super())._metadata_update(cluster_metadata, topics))
        request = MetadataRequest(list(topics) if topics else None)
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node not in self._out_of_reach)  # those are asked last
        asking: set[asyncio.Task[Any]] = set()
        while nodes or asking:
            if nodes:
                asking.add(self._begin(self._metadata_of(nodes.pop(), request)))
            done, asking = await asyncio.wait(
                asking, timeout=_PATIENCE if nodes else None, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                if (answer := one.result()) is not None:
                    cluster_metadata.update_metadata(answer)
                    return True
        cluster_metadata.failed_update(None)
        return False

    @override
    async def close(self) -> None:
        self._is_closed = True
        under_way = set(self._under_way)
        for one in under_way:
            one.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await _untyped(super()).close()

    def _attempted(self, wanted: tuple[Any, Any], attempt: asyncio.Task[Any]) -> None:
        del self._attempts[wanted]
        connection = None if attempt.cancelled() or attempt.exception() is not None else attempt.result()
        if connection is not None:
            self._out_of_reach.discard(wanted[0])
            if connection._writer is not None:
                self._transports[connection] = connection._writer.transport

    @override
    def _on_connection_closed(self, conn: Any, reason: Any) -> None:
        transport = self._transports.pop(conn, None)
        if transport is not None and (
            reason is CloseReason.CONNECTION_TIMEOUT or transport.get_write_buffer_size()
        ):
            # Otherwise, data that a silent broker did not accept would be sent once the broker continues, minutes after
            # everybody has given up. If the socket is closed without lingering, the system discards the data as well.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            transport.abort()
        _untyped(super())._on_connection_closed(conn, reason)

    async def _metadata_of(self, node: Any, request: Any) -> Any:
        try:
            answer = await _untyped(self).send(node, request)
        except Exception:  # on any error, another broker may answer
            return None
        return answer if answer.brokers else None

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


def _untyped(untyped: Any) -> Any:
    """Return what aiokafka has no types for."""
    return untyped
