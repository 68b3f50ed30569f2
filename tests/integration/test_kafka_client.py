"""The shared connections to a cluster, on the real broker."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.metadata import MetadataResponse_v1

from waypost.wire.topics import Topics
from waypost_worker.devserver import Servers
from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fetch_by_id import TopicIdRequest, topic_id_in
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka.topics import create_scratch_topic, create_topics
from waypost_worker.partition.ports import UnavailableError


@pytest.fixture
def client(servers: Servers) -> ClusterClient:
    return ClusterClient(Connection(servers.kafka.bootstrap_servers))


async def test_users_share_connections_until_the_last_one_leaves(
    client: ClusterClient, topic_prefix: str
) -> None:
    await create_scratch_topic(client.connection, topic_prefix)
    await asyncio.gather(client.use("a"), client.use("b"))
    opened = client._client
    node = await client.leader_of(TopicPartition(topic_prefix, 0))
    await client.release("a")
    assert topic_id_in(await client.send(node, TopicIdRequest(topic_prefix))) is not None
    assert client._client is opened
    await client.release("b")
    with pytest.raises(UnavailableError, match="closed"):
        await client.send(node, TopicIdRequest(topic_prefix))


async def test_a_client_whose_brokers_are_all_gone_starts_from_the_bootstrap_servers(
    client: ClusterClient, topic_prefix: str
) -> None:
    await create_scratch_topic(client.connection, topic_prefix)
    await client.use("a")
    try:
        first = client._client
        assert first is not None
        nobody = [(broker.nodeId, "127.0.0.1", 1, None) for broker in first.cluster.brokers()]
        first.cluster.update_metadata(MetadataResponse_v1(brokers=nobody, controller_id=1, topics=[]))
        for connection in list(first._transports):
            connection.close()
        await client.refresh()
        assert await client.leader_of(TopicPartition(topic_prefix, 0)) >= 0
        assert client._client is not first
    finally:
        await client.release("a")


async def test_a_cluster_that_cannot_be_reached_is_tried_again_by_the_next_user() -> None:
    nowhere = ClusterClient(Connection("127.0.0.1:1", request_timeout=0.5))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="connecting"):
            await nowhere.use("a")
    assert nowhere._opening is None


async def test_all_who_ask_for_a_new_topic_together_get_its_leader(
    client: ClusterClient, topic_prefix: str
) -> None:
    await create_scratch_topic(client.connection, topic_prefix)
    await client.use("a")
    try:
        asked = (client.leader_of(TopicPartition(topic_prefix, 0)) for _ in range(3))
        assert len(set(await asyncio.gather(*asked))) == 1
    finally:
        await client.release("a")


async def test_readers_of_many_partitions_share_a_connection_for_each_lane(
    client: ClusterClient, topic_prefix: str
) -> None:
    partitions = 24
    topics = Topics(topic_prefix)
    await create_topics(client.connection, topics, partitions)
    logs = [KafkaCommandLog(client, topics.commands, number) for number in range(partitions)]
    results = [KafkaResultsLog(client, topics, number) for number in range(partitions)]
    try:
        for log in logs:
            await log.seek(0)
        await asyncio.gather(*(log.fetch(10) for log in logs))
        await asyncio.gather(*(one.bounds() for one in (*logs, *results)))
        opened = client._client
        assert opened is not None
        lanes = [lane for _, lane in opened._connections]
        assert set(lanes) <= set(Lane), lanes
        assert len(lanes) == len(set(lanes))
    finally:
        await asyncio.gather(*(one.close() for one in (*logs, *results)))
