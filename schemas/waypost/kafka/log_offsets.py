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
        if await _ask(connections, left, isolation, found):
            return found
        await asyncio.sleep(_PAUSE)
        await connections.refresh()


async def _ask(
    connections: ClusterConnections,
    wanted: Mapping[TopicPartition, int],
    isolation: int,
    found: dict[TopicPartition, int],
) -> bool:
    """Note the offsets that are found; return whether they all are."""
    by_node: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for topic in {partition.topic for partition in wanted}:
        await connections.add_topic(topic)
    complete = True
    for partition, time in wanted.items():
        node = connections.cluster.leader_for_partition(partition)
        if node is None or node < 0:
            complete = False
        else:
            by_node[node][partition.topic].append((partition.partition, time))

    async def ask(node: int, topics: dict[str, list[tuple[int, int]]]) -> bool:
        try:
            request: Any = OffsetRequest(_NO_REPLICA, isolation, list(topics.items()))
            answer = await connections.send(node, request)
            passing = [
                _note(TopicPartition(topic, number), code, rest, found)
                for topic, partitions in answer.topics
                for number, code, *rest in partitions
            ]
        except KafkaError as error:
            if not error.retriable:
                raise
            return False
        return not any(passing)

    answers = await asyncio.gather(*(ask(node, topics) for node, topics in by_node.items()))
    return complete and all(answers)


def _note(
    partition: TopicPartition, code: int, rest: list[Any], found: dict[TopicPartition, int]
) -> KafkaError | None:
    """Note the offset, or return an error that may pass."""
    if not code:
        found[partition] = rest[1]
        return None
    error: KafkaError = for_code(code)(f"asking for offsets of {partition.topic}/{partition.partition}")
    if not error.retriable:
        raise error
    return error
