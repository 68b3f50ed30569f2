"""First and last offsets of partitions, and the offset of a time: one request per broker (ListOffsets).

Asks again while leaders change, for as long as an answer may take. Stands on the shared connections.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.offset import OffsetRequest

from waypost_worker.kafka.client import ClusterClient

READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1

_EARLIEST: Final = -2
_LATEST: Final = -1
_PAUSE: Final = 0.1
_NO_REPLICA: Final = -1


async def first_offsets(
    client: ClusterClient, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the offset of the first record of each partition. Raises as :func:`offsets_at`."""
    return await offsets_at(client, dict.fromkeys(partitions, _EARLIEST), READ_UNCOMMITTED)


async def end_offsets(
    client: ClusterClient, partitions: Iterable[TopicPartition], isolation: int
) -> dict[TopicPartition, int]:
    """Return the offset after the last record of each partition that such a reader may see. Raises as
    :func:`offsets_at`.
    """
    return await offsets_at(client, dict.fromkeys(partitions, _LATEST), isolation)


async def offsets_at(
    client: ClusterClient, wanted: Mapping[TopicPartition, int], isolation: int
) -> dict[TopicPartition, int]:
    """Return the offset of the first record with this timestamp (ms since 1970) or a later one; -1 if none has.

    Raises:
        KafkaError: A broker answers with an error that does not pass, or the last error if none of them passed in time.
        TimeoutError: No answer came in time.
        UnavailableError: The cluster can't be reached.
    """
    found: dict[TopicPartition, int] = {}
    problem: KafkaError | None = None
    try:
        async with asyncio.timeout(client.connection.request_timeout):
            while True:
                left = {partition: time for partition, time in wanted.items() if partition not in found}
                problem = await _ask(client, left, isolation, found)
                if problem is None:
                    return found
                await client.refresh()
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        if problem is not None:
            raise problem from None
        raise


async def _ask(
    client: ClusterClient,
    wanted: Mapping[TopicPartition, int],
    isolation: int,
    found: dict[TopicPartition, int],
) -> KafkaError | None:
    """Note the offsets that are found; return an error that may pass if some are not."""
    by_node: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    try:
        for partition, time in wanted.items():
            node = await client.leader_of(partition)
            by_node[node][partition.topic].append((partition.partition, time))
    except KafkaError as error:
        return _passing(error)

    async def ask(node: int, topics: dict[str, list[tuple[int, int]]]) -> KafkaError | None:
        try:
            request: Any = OffsetRequest(_NO_REPLICA, isolation, list(topics.items()))
            answer = await client.send(node, request)
        except KafkaError as error:
            return _passing(error)
        problem = None
        for topic, partitions in answer.topics:
            for number, code, *rest in partitions:
                if code:
                    problem = _passing(for_code(code)(f"asking for offsets of {topic}/{number}"))
                else:
                    found[TopicPartition(topic, number)] = rest[1]
        return problem

    problems = await asyncio.gather(*(ask(node, topics) for node, topics in by_node.items()))
    return next((problem for problem in problems if problem is not None), None)


def _passing(error: KafkaError) -> KafkaError:
    if not error.retriable:
        raise error
    return error
