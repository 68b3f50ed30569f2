"""Membership of the consumer group: which partitions this worker is to own. It fetches no data.

A revocation is not the end of ownership here. Owners go on during a rebalance and end when the new assignment
lacks their partition: the fence makes an overlap harmless, and a partition that stays is not disturbed.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from waypost_worker.kafka.connection import Connection, kafka_errors, quietly

# How soon a member notices that another one left: a takeover after a drain takes about this long.
_HEARTBEAT_MS: Final = 300
_POLL_MS: Final = 500


class Membership:
    """This worker as a member of the group. ``assigned`` is the last assignment that is known."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        group_id: str,
        *,
        session_timeout: float = 10,
        group_instance_id: str | None = None,
    ) -> None:
        self.assigned: frozenset[int] = frozenset()
        self.rebalancing = True
        self.failed: BaseException | None = None
        self._topic = topic
        self._timeout = connection.request_timeout
        self._change = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._consumer = AIOKafkaConsumer(
            **connection.options(),
            group_id=group_id,
            group_instance_id=group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            # Sticky assignment keeps its state in a class attribute; round robin is plain and even.
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            session_timeout_ms=int(session_timeout * 1000),
            heartbeat_interval_ms=min(_HEARTBEAT_MS, int(session_timeout * 1000 / 3)),
            rebalance_timeout_ms=max(10_000, int(session_timeout * 1000)),
            max_poll_interval_ms=24 * 3600 * 1000,
            # What is fetched before the pause takes effect is thrown away: let it be little.
            max_partition_fetch_bytes=4096,
        )

    async def start(self) -> None:
        """Connect and join. UnavailableError if the cluster can't be reached."""
        async with kafka_errors("joining the worker group"):
            await asyncio.wait_for(self._consumer.start(), 2 * self._timeout)
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        self._polling = asyncio.create_task(self._poll())

    async def changed(self) -> None:
        """Wait for the next change of ``assigned``, ``rebalancing`` or ``failed``."""
        change = self._change
        await change.wait()

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit group offsets, for lag monitors only; that it may fail is harmless."""
        owned = {
            TopicPartition(self._topic, partition): offset
            for partition, offset in offsets.items()
            if partition in self.assigned
        }
        if owned and not self.rebalancing:
            try:
                await asyncio.wait_for(self._consumer.commit(owned), self._timeout)
            except (KafkaError, OSError, TimeoutError):
                return

    async def leave(self) -> None:
        """Leave the group, so that others take over at once (a static member only goes silent)."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        await quietly(self._consumer.stop(), self._timeout)

    async def _poll(self) -> None:
        # Nothing ever comes, for all partitions are paused; polling keeps the membership and shows its errors.
        try:
            while True:
                await self._consumer.getmany(timeout_ms=_POLL_MS)
                coordination = getattr(self._consumer._coordinator, "_coordination_task", None)
                if coordination is not None and coordination.done():
                    raise RuntimeError("the group coordination of the Kafka client has ended")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.failed = error
            self._tell()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


class _Listener(ConsumerRebalanceListener):
    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._membership.rebalancing = True
        self._membership._tell()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._membership._consumer.pause(*assigned)
        self._membership.assigned = frozenset(partition.partition for partition in assigned)
        self._membership.rebalancing = False
        self._membership._tell()
