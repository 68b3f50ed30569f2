"""First and last offsets of partitions, and the offset of a time (ListOffsets).

One request per broker carries what all users of a client ask at the same time: an owner asks four times when it
acquires its partition, and a worker acquires many at the same time. Asks again while leaders change, for as long as an
answer may take. Stands on the shared connections.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, StaleMetadata

from waypost.kafka.log_offsets import offset_request, offsets_in
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.partition.grouping import Grouper

_PAUSE: Final = 0.1
_MOST_ASKED: Final = 2000


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
    lookup = client.shared(OffsetLookup)
    asking = (lookup.offset_at(partition, time, isolation) for partition, time in wanted.items())
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    problem = None
    for partition, outcome in zip(wanted, outcomes, strict=True):
        if not isinstance(outcome, BaseException):
            found[partition] = outcome
        elif isinstance(outcome, KafkaError) and outcome.retriable:
            problem = outcome
        else:
            raise outcome
    return problem


class _Asked(NamedTuple):
    partition: TopicPartition
    time: int


class OffsetLookup:
    """The ListOffsets requests of all users of one client: one per broker for what is asked at the same time."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._groups: dict[tuple[int, int], Grouper[_Asked, int]] = {}

    async def offset_at(self, partition: TopicPartition, time: int, isolation: int) -> int:
        """Ask the leader of a partition once. Raise what aiokafka raises."""
        node = await self._client.leader_of(partition)
        group = self._groups.get((node, isolation))
        if group is None:
            group = self._groups[node, isolation] = Grouper(
                partial(self._send, node, isolation),
                most_items=_MOST_ASKED,
                most_weight=_MOST_ASKED,
                heavy=_MOST_ASKED + 1,
            )
        return await group.submit(_Asked(partition, time))

    async def _send(self, node: int, isolation: int, group: Sequence[_Asked]) -> Sequence[int | Exception]:
        requests = _requests(group)
        answers = await asyncio.gather(
            *(self._client.send(node, offset_request(wanted, isolation)) for wanted in requests)
        )
        found = {
            _Asked(partition, wanted[partition]): outcome
            for wanted, answer in zip(requests, answers, strict=True)
            for partition, outcome in offsets_in(answer).items()
        }
        return [found.get(asked, _unanswered(asked)) for asked in group]


def _requests(group: Sequence[_Asked]) -> list[dict[TopicPartition, int]]:
    """Return the fewest requests in which no partition is named twice: brokers reject those that do."""
    requests: list[dict[TopicPartition, int]] = []
    for partition, time in dict.fromkeys(group):
        room = next((one for one in requests if partition not in one), None)
        if room is None:
            requests.append(room := {})
        room[partition] = time
    return requests


def _unanswered(asked: _Asked) -> KafkaError:
    topic, number = asked.partition
    return StaleMetadata(f"the broker did not answer for {topic}/{number}")
