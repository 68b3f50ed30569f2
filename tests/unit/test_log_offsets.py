"""Offsets that a client asks for: each leader once, and again until all partitions have an answer."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, NotLeaderForPartitionError, TopicAuthorizationFailedError
from tests.support.scripted_connections import ScriptedConnections

from waypost.kafka import log_offsets
from waypost.kafka.log_offsets import END, offsets_at

TOPIC = "results"
WANTED = {TopicPartition(TOPIC, number): END for number in range(4)}
FOUND = {partition: 100 + partition.partition for partition in WANTED}
LEFT_OUT = None


class Cluster(ScriptedConnections):
    """Partition p ends at 100 + p. ``scripts`` are the next answers for a partition: an error code, or LEFT_OUT, or an
    exception for the whole request.
    """

    def __init__(self, *leaders: int) -> None:
        super().__init__(TOPIC, *leaders)
        self.scripts: dict[int, list[int | Exception | None]] = defaultdict(list)
        self.asked: list[tuple[int, list[int]]] = []  # broker and partitions

    async def send(self, node: int, request: Any) -> Any:
        ((_, wanted),) = request.prepare({2: (1, 3)}).get_item("topics")
        self.asked.append((node, [number for number, _ in wanted]))
        scripts = {number: self.scripts[number].pop(0) if self.scripts[number] else 0 for number, _ in wanted}
        for script in scripts.values():
            if isinstance(script, Exception):
                raise script
        answers = [
            (number, code, -1, -1 if code else 100 + number)
            for number, code in scripts.items()
            if code is not LEFT_OUT
        ]
        return SimpleNamespace(topics=[(TOPIC, answers)])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_offsets, "_PAUSE", 0)


async def offsets(cluster: Cluster) -> dict[TopicPartition, int]:
    return await offsets_at(cluster, WANTED)  # type: ignore[arg-type]


async def test_each_leader_is_asked_once() -> None:
    cluster = Cluster(1, 2, 1, 2)
    assert await offsets(cluster) == FOUND
    assert sorted(cluster.asked) == [(1, [0, 2]), (2, [1, 3])]
    assert not cluster.refreshed


@pytest.mark.parametrize("script", [NotLeaderForPartitionError.errno, LEFT_OUT])
async def test_a_partition_without_an_offset_is_asked_for_again(script: int | None) -> None:
    cluster = Cluster(1, 1, 1, 1)
    cluster.scripts[2] = [script] * 2
    assert await offsets(cluster) == FOUND
    assert cluster.asked == [(1, [0, 1, 2, 3]), (1, [2]), (1, [2])]
    assert cluster.refreshed == 2


async def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    cluster = Cluster(1, 2, 1, 2)
    cluster.scripts[0] = [KafkaConnectionError("closed")]
    assert await offsets(cluster) == FOUND
    assert sorted(cluster.asked) == [(1, [0, 2]), (1, [0, 2]), (2, [1, 3])]


async def test_a_partition_without_a_leader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(-1, 2, 2, 2)

    async def refresh() -> None:
        cluster.lead(1, 2, 2, 2)

    monkeypatch.setattr(cluster, "refresh", refresh)
    assert await offsets(cluster) == FOUND
    assert cluster.asked == [(2, [1, 2, 3]), (1, [0])]


async def test_a_denial_is_raised() -> None:
    cluster = Cluster(1, 1, 1, 1)
    cluster.scripts[3] = [TopicAuthorizationFailedError.errno]
    with pytest.raises(TopicAuthorizationFailedError, match="results/3"):
        await offsets(cluster)
