"""Appends of all partitions of a process: one Produce request per broker carries what waits for that broker.

Decides which batches are sent together, and over which connection. The producer decides what an answer means, and when
to try again.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from waypost_worker.kafka.client import ClusterClient, Lane, answer_to
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.produce import MAX_BATCH_BYTES, Answer, OutgoingBatch, ProduceGroup
from waypost_worker.partition.grouping import Grouper

_MOST_BATCHES: Final = 1000
_LONGEST_HOLD: Final = 1.0


def hold_seconds(connection: Connection) -> float:
    """Return how long a request may wait for the replicas of its slowest partition.

    A leader answers when the in-sync replicas have the batches of all partitions in a request (acks=all), and serves no
    other request of that connection until then. So one slow replica delays all partitions of the broker. When this time
    is up, the leader answers REQUEST_TIMED_OUT for the slow partition, and returns the offsets of the others. The slow
    partition's batch is in the log by then. It is sent again with the same sequence: the leader recognizes it, and a
    new leader that lacks it accepts it.
    """
    return min(_LONGEST_HOLD, connection.request_timeout / 4)


class GroupAppender:
    """The appends of all users of one client.

    Partitions with a slow replica have a connection of their own (``beside``), where they hold up only each other.
    """

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._groups: dict[tuple[int, Lane], Grouper[OutgoingBatch, Answer]] = {}
        self._under_way: dict[tuple[int, Lane], asyncio.Task[Any]] = {}

    async def append(self, batch: OutgoingBatch, *, beside: bool = False) -> Answer:
        """Send a batch to the leader of its partition, once, and return the answer.

        Raise what aiokafka raises, even if the request failed as a whole; the batch may be in the log then.
        """
        node = await self._client.leader_of(batch.partition)
        return await self._group(node, beside).submit(batch, len(batch.data))

    def _group(self, node: int, beside: bool) -> Grouper[OutgoingBatch, Answer]:
        lane = Lane.PRODUCE_BESIDE if beside else Lane.PRODUCE
        group = self._groups.get((node, lane))
        if group is None:
            # No request is larger than one with the largest batch alone, which brokers must take anyway.
            group = self._groups[node, lane] = Grouper(
                partial(self._send, node, lane),
                most_items=_MOST_BATCHES,
                most_weight=MAX_BATCH_BYTES,
                heavy=MAX_BATCH_BYTES,
            )
        return group

    async def _send(
        self, node: int, lane: Lane, batches: Sequence[OutgoingBatch]
    ) -> Sequence[Answer | Exception]:
        # One whose callers have all given up is under way until it is answered. Behind it, the next one would wait at
        # the broker, and could take effect long after its own callers gave up.
        former = self._under_way.get((node, lane))
        if former is not None and not former.done():
            await asyncio.wait({former})
        connection = self._client.connection
        # Sent separately, the leader still answers before the connection's own time limit, which would close it.
        hold = hold_seconds(connection) if lane is Lane.PRODUCE else connection.request_timeout / 2
        request = ProduceGroup(batches, int(hold * 1000))
        sending = self._under_way[node, lane] = await self._client.begin(node, request, lane)
        return request.outcomes(await answer_to(sending))
