"""First and last offsets of partitions, and the offset of a time: one request per broker (ListOffsets)."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.offset import OffsetRequest

from waypost.kafka.cluster_connections import ClusterConnections

READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1
ISOLATION: Final = {"read_uncommitted": READ_UNCOMMITTED, "read_committed": READ_COMMITTED}
FIRST: Final = -2
"""In place of a time: the first offset."""
END: Final = -1
"""In place of a time: the offset after the last record."""
_PAUSE: Final = 0.1
_NO_REPLICA: Final = -1


async def offsets_at(
    connections: ClusterConnections, wanted: Mapping[TopicPartition, int], isolation: int = READ_UNCOMMITTED
) -> dict[TopicPartition, int]:
    """Return the offset of the first record with this timestamp (ms since 1970) or a later one; -1 if none has.

    :data:`FIRST` and :data:`END` are accepted as timestamps. Asks until brokers answer for all partitions.

    Raises:
        KafkaError: A broker answers with an error that does not pass.
    """
    found: dict[TopicPartition, int] = {}
    while True:
        left = {partition: time for partition, time in wanted.items() if partition not in found}
        await _ask(connections, left, isolation, found)
        if len(found) == len(wanted):
            return found
        await asyncio.sleep(_PAUSE)
        await connections.refresh()


def offset_request(wanted: Mapping[TopicPartition, int], isolation: int) -> Any:
    """Return the request to the leader of these partitions. No partition can be in it twice: brokers reject that."""
    topics: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (topic, number), time in wanted.items():
        topics[topic].append((number, time))
    request: Any = OffsetRequest
    return request(_NO_REPLICA, isolation, list(topics.items()))


def offsets_in(answer: Any) -> dict[TopicPartition, int | KafkaError]:
    """Return the offset or the error of each partition in an answer."""
    return {
        TopicPartition(topic, number): for_code(code)(f"asking for offsets of {topic}/{number}")
        if code
        else rest[1]
        for topic, partitions in answer.topics
        for number, code, *rest in partitions
    }


async def _ask(
    connections: ClusterConnections,
    wanted: Mapping[TopicPartition, int],
    isolation: int,
    found: dict[TopicPartition, int],
) -> None:
    """Ask each leader once, and note the offsets that are found."""
    for topic in {partition.topic for partition in wanted}:
        await connections.add_topic(topic)
    by_node: dict[int, dict[TopicPartition, int]] = defaultdict(dict)
    for partition, time in wanted.items():
        node = connections.cluster.leader_for_partition(partition)
        if node is not None and node >= 0:
            by_node[node][partition] = time

    async def ask(node: int, led: dict[TopicPartition, int]) -> None:
        try:
            outcomes = offsets_in(await connections.send(node, offset_request(led, isolation)))
        except KafkaError as error:
            outcomes = dict.fromkeys(led, error)
        for partition, outcome in outcomes.items():
            if not isinstance(outcome, KafkaError):
                found[partition] = outcome
            elif not outcome.retriable:
                raise outcome

    await asyncio.gather(*(ask(node, led) for node, led in by_node.items()))
