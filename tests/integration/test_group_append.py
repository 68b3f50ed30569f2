"""Batches of several partitions in one Produce request, on the real broker: each is judged by itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition

from waypost.kafka.cluster_connections import ClusterConnections
from waypost.wire.topics import Topics
from waypost_worker.devserver import Servers
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fenced_producer import FencedProducer, claim_epoch
from waypost_worker.kafka.produce import ProduceGroup
from waypost_worker.kafka.topics import create_topics
from waypost_worker.partition.ports import FencedError, ResultRecord, UnavailableError

PARTITIONS = 4
UNKNOWN = 99


@pytest.fixture
async def client(servers: Servers) -> AsyncIterator[ClusterClient]:
    client = ClusterClient(Connection(servers.kafka.bootstrap_servers, request_timeout=2.0))
    await client.use("test")
    yield client
    await client.release("test")


@pytest.fixture
async def topic(client: ClusterClient, topic_prefix: str) -> str:
    topics = Topics(topic_prefix)
    await create_topics(client.connection, topics, PARTITIONS)
    return topics.results


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The partitions of each Produce request that goes out."""
    sent: list[list[int]] = []
    build = ProduceGroup.build

    def noted(self: ProduceGroup, struct: Any) -> Any:
        request = build(self, struct)
        ((_, pairs),) = request.get_item("topics")
        sent.append(sorted(partition for partition, _ in pairs))
        return request

    monkeypatch.setattr(ProduceGroup, "build", noted)
    return sent


def records(count: int) -> list[ResultRecord]:
    return [ResultRecord(b"key", b"%d" % n, []) for n in range(count)]


async def claimed(client: ClusterClient, topic: str, partition: int) -> FencedProducer:
    fence = await claim_epoch(client, f"{topic}.{partition}")
    return FencedProducer(client, topic, partition, fence)


async def test_each_partition_of_a_request_is_judged_by_itself(
    client: ClusterClient, topic: str, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    producers = [await claimed(client, topic, partition) for partition in range(PARTITIONS)]
    for partition, producer in enumerate(producers):
        assert await producer.append(records(10 * partition + 1)) == 0
    newer = await claimed(client, topic, 2)
    assert await newer.append(records(3)) == 21

    leader = await client.leader_of(TopicPartition(topic, 0))
    looked_up = ClusterClient.leader_of

    async def leader_of(self: ClusterClient, partition: TopicPartition) -> int:
        return leader if partition.partition == UNKNOWN else await looked_up(self, partition)

    monkeypatch.setattr(ClusterClient, "leader_of", leader_of)
    groups.clear()
    astray = await claimed(client, topic, UNKNOWN)
    outcomes = await asyncio.gather(
        *(producer.append(records(2)) for producer in (*producers, astray)), return_exceptions=True
    )
    assert groups[0] == [0, 1, 2, 3, UNKNOWN]
    assert all(group == [UNKNOWN] for group in groups[1:])
    assert outcomes[:2] == [1, 11]
    assert isinstance(outcomes[2], FencedError)
    assert outcomes[3] == 31
    with pytest.raises(UnavailableError, match="UnknownTopicOrPartition"):
        raise outcomes[4]  # type: ignore[misc]
    assert await asyncio.gather(*(one.append(records(1)) for one in (producers[0], producers[3], newer))) == [
        3,
        33,
        24,
    ]


async def test_a_request_whose_reply_is_lost_is_sent_again_and_nothing_is_doubled(
    client: ClusterClient, topic: str, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    producers = [await claimed(client, topic, partition) for partition in range(PARTITIONS)]
    send = ClusterConnections.send
    lost: list[object] = []

    async def lossy(self: ClusterConnections, node: int, request: Any, *, group: Any = None) -> Any:
        answer = await send(self, node, request, group=group)
        if isinstance(request, ProduceGroup) and not lost:
            lost.append(answer)
            raise OSError("the reply was lost")
        return answer

    monkeypatch.setattr(ClusterConnections, "send", lossy)
    assert await asyncio.gather(*(one.append(records(5)) for one in producers)) == [0] * PARTITIONS
    assert lost
    assert groups == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert await asyncio.gather(*(one.append(records(1)) for one in producers)) == [5] * PARTITIONS
