"""Connections to several brokers: one that is silent holds up nobody but those who want something of it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v1

from waypost.kafka.cluster_connections import ClusterConnections
from waypost_worker.kafka.client import Lane
from waypost_worker.kafka.produce import MAX_BATCH_BYTES, OutgoingBatch, ProduceGroup

FAR = 60.0  # seconds, which nothing here should need


class Brokers:
    """Brokers by port. Those that are ``silent`` take no connection, and those that are ``mute`` answer nothing."""

    def __init__(self) -> None:
        self.silent: set[int] = set()
        self.mute: set[int] = set()
        self.attempts: list[int] = []
        self.links: list[Link] = []
        self.topics: list[set[str]] = []
        self.asked = asyncio.Event()
        self.given_up = asyncio.Event()

    async def connect(self, _: str, port: int, on_close: Any, **options: Any) -> "tuple[Link, Any]":
        self.attempts.append(port)
        if port in self.silent:
            await self.given_up.wait()
            raise KafkaConnectionError("no answer")
        self.links.append(Link(self, port, on_close))
        return self.links[-1], None


class Link:
    """A connection that answers with the port of its broker."""

    def __init__(self, brokers: Brokers, port: int, on_close: Any) -> None:
        self._brokers = brokers
        self._port = port
        self._on_close = on_close
        self._is_open = True

    def connected(self) -> bool:
        return self._is_open

    def close(self, reason: object = None) -> asyncio.Future[None]:
        self._is_open = False
        if self._on_close is not None:
            self._on_close(self, reason)
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed

    async def send(self, request: Any, expect_response: bool = True) -> Any:
        if self._port in self._brokers.mute:
            await asyncio.Event().wait()
        if not isinstance(request, MetadataRequest):
            return self._port
        self._brokers.topics.append(set(request.prepare({3: (0, 5)}).get_item("topics")))
        self._brokers.asked.set()
        return metadata(self._port)


def metadata(leader: int) -> MetadataResponse_v1:
    topic = (0, "topic", False, [(0, 0, leader, [], [])])
    return MetadataResponse_v1(
        brokers=[(port, "broker", port, None) for port in (1, 2, 3)], controller_id=1, topics=[topic]
    )


@pytest.fixture
async def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    brokers = Brokers()
    monkeypatch.setattr("waypost.kafka.cluster_connections.open_connection", brokers.connect)
    return brokers


@pytest.fixture
async def connections(brokers: Brokers) -> AsyncIterator[ClusterConnections]:
    connections = ClusterConnections(bootstrap_servers="broker:1", request_timeout_ms=1000)
    connections.cluster.update_metadata(metadata(1))
    yield connections
    brokers.given_up.set()
    await connections.close()


async def test_a_silent_broker_holds_up_no_connection_to_another(
    brokers: Brokers, connections: ClusterConnections
) -> None:
    brokers.silent = {2}
    waiting = asyncio.create_task(connections.send(2, SimpleNamespace(), group=Lane.FETCH))
    await asyncio.sleep(0)
    async with asyncio.timeout(FAR):
        assert await connections.send(1, SimpleNamespace(), group=Lane.FETCH) == 1
    assert not waiting.done()
    brokers.given_up.set()
    with pytest.raises(NodeNotReadyError):
        await waiting


async def test_all_who_want_a_connection_wait_for_the_same_attempt(
    brokers: Brokers, connections: ClusterConnections
) -> None:
    brokers.silent = {2}
    first = asyncio.create_task(connections.send(2, SimpleNamespace(), group=Lane.FETCH))
    second = asyncio.create_task(connections.send(2, SimpleNamespace(), group=Lane.FETCH))
    beside = asyncio.create_task(connections.send(2, SimpleNamespace(), group=Lane.PRODUCE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    assert brokers.attempts == [2, 2], "one for each lane"
    brokers.given_up.set()
    for waiting in (second, beside):
        with pytest.raises(NodeNotReadyError):
            await waiting
    assert brokers.attempts.count(2) == 2
    brokers.silent = set()
    assert await connections.send(2, SimpleNamespace(), group=Lane.FETCH) == 2


@pytest.mark.parametrize("way", ["silent", "mute"])
async def test_metadata_comes_from_whichever_broker_answers(
    brokers: Brokers, connections: ClusterConnections, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setattr(brokers, way, {1, 3})
    monkeypatch.setattr("waypost.kafka.cluster_connections._PATIENCE", 0)
    async with asyncio.timeout(FAR):
        assert await connections.add_topic("topic")
    assert connections.cluster.leader_for_partition(TopicPartition("topic", 0)) == 2


async def test_metadata_of_nobody_is_not_news(brokers: Brokers, connections: ClusterConnections) -> None:
    brokers.silent = {1, 2, 3}
    brokers.given_up.set()
    assert not await connections.force_metadata_update()
    assert connections.cluster.leader_for_partition(TopicPartition("topic", 0)) == 1


async def test_what_any_broker_can_answer_is_asked_of_one_that_is_in_reach(
    brokers: Brokers, connections: ClusterConnections
) -> None:
    brokers.silent = {1, 3}
    asked = [asyncio.create_task(connections.send(node, SimpleNamespace())) for node in (1, 2, 3)]
    assert await asked[1] == 2
    assert {connections.get_random_node() for _ in range(50)} == {2}
    brokers.given_up.set()
    await asyncio.wait(asked)
    assert [isinstance(one.exception(), NodeNotReadyError) for one in asked] == [True, False, True]
    assert {connections.get_random_node() for _ in range(50)} == {2}
    brokers.silent = {3}
    await connections.send(1, SimpleNamespace())
    assert {connections.get_random_node() for _ in range(50)} == {1, 2}


async def test_if_none_is_in_reach_any_of_them_is_asked(
    brokers: Brokers, connections: ClusterConnections
) -> None:
    brokers.silent = {1, 2, 3}
    brokers.given_up.set()
    for node in (1, 2, 3):
        with pytest.raises(NodeNotReadyError):
            await connections.send(node, SimpleNamespace())
    assert {connections.get_random_node() for _ in range(100)} == {1, 2, 3}


async def test_closing_leaves_no_attempt_behind(brokers: Brokers, connections: ClusterConnections) -> None:
    before = asyncio.all_tasks()
    brokers.silent = {2}
    waiting = asyncio.create_task(connections.send(2, SimpleNamespace(), group=Lane.FETCH))
    await asyncio.sleep(0)
    await connections.close()
    await asyncio.wait({waiting})
    assert asyncio.all_tasks() == before
    brokers.silent = set()
    with pytest.raises(NodeNotReadyError):
        await connections.send(2, SimpleNamespace(), group=Lane.FETCH)


async def test_an_error_of_a_token_provider_passes_like_an_unreachable_broker(
    brokers: Brokers, connections: ClusterConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise LookupError("no token just now")

    with monkeypatch.context() as patch:
        patch.setattr("waypost.kafka.cluster_connections.open_connection", refuse)
        with pytest.raises(NodeNotReadyError, match="no token just now"):
            await connections.send(1, SimpleNamespace())
        await connections.refresh()
        with pytest.raises(LookupError):  # at the start, the error is raised unchanged
            await connections.bootstrap()
    assert await connections.send(1, SimpleNamespace()) == 1


async def test_closing_cancels_nobody_who_waits(brokers: Brokers, connections: ClusterConnections) -> None:
    brokers.silent, brokers.mute = {1, 2}, {3}
    asking: list[asyncio.Task[Any]] = [
        asyncio.create_task(connections.bootstrap()),
        asyncio.create_task(connections.send(2, SimpleNamespace())),
        asyncio.create_task(connections.send(3, SimpleNamespace())),
        asyncio.create_task(connections.refresh()),
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    await connections.close()
    async with asyncio.timeout(FAR):
        await asyncio.wait(asking)
    assert [one.cancelled() for one in asking] == [False] * 4
    assert [type(one.exception()) for one in asking] == [KafkaConnectionError] * 3 + [type(None)]


async def test_bootstrap_servers_are_asked_until_one_answers(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers.silent, brokers.mute = {1}, {2}
    monkeypatch.setattr("waypost.kafka.cluster_connections._PATIENCE", 0)
    before = asyncio.all_tasks()
    connections = ClusterConnections("broker:1,broker:2,broker:3")
    async with asyncio.timeout(FAR):
        await connections.bootstrap()
    assert {broker.nodeId for broker in connections.cluster.brokers()} == {1, 2, 3}
    await connections.close()
    assert asyncio.all_tasks() == before
    brokers.silent, brokers.mute = {1, 2}, set()
    brokers.given_up.set()
    with pytest.raises(KafkaConnectionError, match=r"broker:1, broker:2"):
        await ClusterConnections("broker:1,broker:2").bootstrap()


async def test_a_topic_that_is_added_during_an_update_is_asked_for_as_well(
    brokers: Brokers, connections: ClusterConnections
) -> None:
    brokers.silent = {1, 2, 3}
    first = connections.add_topic("other")
    await asyncio.sleep(0)
    second = connections.add_topic("topic")
    brokers.silent = set()
    brokers.given_up.set()
    await connections.send(1, SimpleNamespace())
    await asyncio.gather(first, second)
    assert await connections.force_metadata_update()
    assert brokers.topics[-1] == {"other", "topic"}


async def test_metadata_is_refreshed_from_time_to_time(brokers: Brokers) -> None:
    connections = ClusterConnections("broker:1", metadata_max_age_ms=1)
    await connections.bootstrap()
    async with asyncio.timeout(FAR):
        for _ in range(3):
            brokers.asked.clear()
            await brokers.asked.wait()
    await connections.close()
    assert not await connections.force_metadata_update()


async def test_a_connection_that_was_closed_is_opened_again(
    brokers: Brokers, connections: ClusterConnections
) -> None:
    assert await connections.send(2, SimpleNamespace()) == 2
    brokers.links[0].close()
    assert await connections.send(2, SimpleNamespace()) == 2
    assert brokers.attempts == [2, 2]


class StoppedBroker:
    """Answers the first request, which asks for versions, and then reads nothing until ``going_on``."""

    def __init__(self) -> None:
        self.going_on = asyncio.Event()
        self.ended = asyncio.Event()
        self.read = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        correlation_id = (await reader.readexactly(size))[4:8]
        versions = struct.pack(">hihhh", 0, 1, 0, 3, 7)
        writer.write(struct.pack(">i", 4 + len(versions)) + correlation_id + versions)
        await self.going_on.wait()
        try:
            while piece := await reader.read(1024 * 1024):
                self.read += len(piece)
        except ConnectionError:
            pass
        writer.close()
        self.ended.set()


async def test_what_a_silent_broker_did_not_take_in_time_is_not_sent_later() -> None:
    broker = StoppedBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    connections = ClusterConnections(bootstrap_servers="unused:1", request_timeout_ms=500)
    connections.cluster.update_metadata(
        MetadataResponse_v1(brokers=[(1, "127.0.0.1", port, None)], controller_id=1, topics=[])
    )
    data = bytearray(MAX_BATCH_BYTES)
    batch = OutgoingBatch(TopicPartition("results", 0), data, FAR)
    with pytest.raises(RequestTimedOutError):
        await connections.send(1, ProduceGroup([batch], 1000), group=Lane.PRODUCE)
    broker.going_on.set()
    async with asyncio.timeout(FAR):
        await broker.ended.wait()
    assert broker.read < len(data)
    await connections.close()
    server.close()


async def test_a_silent_connection_is_closed_although_callers_give_up_before() -> None:
    broker = StoppedBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connections = ClusterConnections(bootstrap_servers="unused:1", request_timeout_ms=500)
    connections.cluster.update_metadata(
        MetadataResponse_v1(brokers=[(1, "127.0.0.1", port, None)], controller_id=1, topics=[])
    )
    broker.going_on.set()
    connection = await connections._connection(1, Lane.PRODUCE)
    batch = OutgoingBatch(TopicPartition("results", 0), bytearray(1), FAR)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await connections.send(1, ProduceGroup([batch], 1000), group=Lane.PRODUCE)
    async with asyncio.timeout(FAR):
        await broker.ended.wait()
    assert not connection.connected()
    await connections.close()
    server.close()
