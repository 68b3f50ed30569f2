"""Membership of the consumer group: which partitions this worker is to own. It fetches no data.

A revocation does not end ownership here. Owners continue during a rebalance and end when the new assignment lacks their
partition: the fence makes an overlap harmless, and a partition that stays is not disturbed.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import InvalidSessionTimeoutError
from aiokafka.protocol.group import LeaveGroupRequest
from typing_extensions import override

from waypost import __version__
from waypost.kafka.diagnosis import require_access
from waypost_worker.kafka.connection import PASSING, Connection, kafka_errors, quietly
from waypost_worker.kafka.group_members import member_client_id
from waypost_worker.partition.ports import RefusedError, UnavailableError

# How soon a member notices that another one left: a takeover after a drain takes about this long.
_HEARTBEAT_MS: Final = 300
_POLL_MS: Final = 500
_LEAVE_SECONDS: Final = 1.0


class Membership:
    """This worker as a member of the group.

    ``assigned`` is the last known assignment, even while ``rebalancing``. ``failed`` is set when this membership can no
    longer be used: :meth:`leave` it and create a new one.
    """

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
        self._connection = connection
        self._topic = topic
        self._group_id = group_id
        self._static = group_instance_id is not None
        self._session_timeout = session_timeout
        self._change = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        session_ms = int(session_timeout * 1000)
        rebalance_ms = max(10_000, session_ms)
        # No rebalance takes longer than this, unless the cluster is unreachable or the client is stuck.
        self._longest_rebalance = 2 * (rebalance_ms + session_ms) / 1000 + 2 * connection.request_timeout
        self._consumer = AIOKafkaConsumer(
            **{**connection.options(), "client_id": member_client_id(__version__)},
            group_id=group_id,
            group_instance_id=group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            isolation_level="read_committed",  # lag counts up to what owners may read
            partition_assignment_strategy=(_own_assignor(),),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(_HEARTBEAT_MS, session_ms // 3),
            rebalance_timeout_ms=rebalance_ms,
            max_poll_interval_ms=24 * 3600 * 1000,
        )

    async def start(self) -> None:
        """Connect and join. UnavailableError if the cluster can't be reached or lacks the topic."""
        async with kafka_errors("joining the worker group"):
            async with asyncio.timeout(self._connection.start_timeout):
                await require_access(self._connection.options())
                await self._consumer.start()
                # A group that subscribes to a missing topic would notice only minutes later that it is there.
                await self._consumer._client.add_topic(self._topic)
        if self._topic in self._consumer._client.cluster.unauthorized_topics:
            raise UnavailableError(
                f"Kafka does not let this worker see the topic {self._topic!r}: give its principal the ACLs that "
                "'waypost topics acls worker' prints"
            )
        if not self._consumer.partitions_for_topic(self._topic):
            raise UnavailableError(
                f"the topic {self._topic!r} does not exist yet: create it with 'waypost topics create'"
            )
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        self._polling = asyncio.create_task(self._poll(), name="membership")

    def changed(self) -> Coroutine[Any, Any, object]:
        """Await it to wait for a change of ``assigned``, ``rebalancing`` or ``failed`` after this call."""
        return self._change.wait()

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit group offsets, for lag monitors only; that it may fail is harmless."""
        owned = {
            TopicPartition(self._topic, partition): offset
            for partition, offset in offsets.items()
            if partition in self.assigned
        }
        if owned and not self.rebalancing:
            try:
                async with asyncio.timeout(self._connection.request_timeout):
                    await self._consumer.commit(owned)
            except PASSING:
                return

    async def ends(self) -> dict[int, int]:
        """Return up to where the assigned partitions can be read; empty if Kafka does not answer in time.

        A partition ends where the oldest open transaction of a client begins.
        """
        partitions = [TopicPartition(self._topic, partition) for partition in sorted(self.assigned)]
        if not partitions or self.rebalancing:
            return {}
        try:
            async with asyncio.timeout(self._connection.request_timeout):
                found = await self._consumer.end_offsets(partitions)
        except PASSING:
            return {}
        return {partition.partition: offset for partition, offset in found.items()}

    async def committed(self, partitions: Collection[int]) -> dict[int, int]:
        """The group offsets of partitions, or where their logs begin; empty if Kafka does not tell in time."""
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            async with asyncio.timeout(self._connection.request_timeout):
                starts = await self._consumer.beginning_offsets(wanted)
                found = [await self._consumer.committed(partition) for partition in wanted]
        except PASSING:
            return {}
        return {
            partition.partition: starts[partition] if offset is None else max(offset, starts[partition])
            for partition, offset in zip(wanted, found, strict=True)
        }

    async def leave(self) -> None:
        """Leave the group, so that others take over immediately (a static member only goes silent).

        Never raises, and takes a few seconds at most.
        """
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        consumer: Any = self._consumer
        stopping = asyncio.ensure_future(consumer.stop())
        await asyncio.wait({stopping}, timeout=_LEAVE_SECONDS)
        if stopping.done():
            await asyncio.gather(stopping, return_exceptions=True)
            return
        # A join that waits for other members, or an unreachable coordinator, blocks stop().
        if not self._static:
            await quietly(self._say_goodbye(), _LEAVE_SECONDS)
        await quietly(stopping, _LEAVE_SECONDS)
        await quietly(consumer._coordinator._stop_heartbeat_task(), _LEAVE_SECONDS)
        await quietly(consumer._fetcher.close(), _LEAVE_SECONDS)
        await quietly(consumer._client.close(), _LEAVE_SECONDS)

    async def _say_goodbye(self) -> None:
        """Leave over another connection: on its own, the coordinator would first answer the join."""
        coordinator: Any = self._consumer._coordinator
        if coordinator.coordinator_id is not None and coordinator.member_id:
            request: Any = LeaveGroupRequest(self._group_id, coordinator.member_id)
            await self._consumer._client.send(coordinator.coordinator_id, request)

    async def _poll(self) -> None:
        # Nothing ever comes, because all partitions are paused; polling keeps the membership and shows its errors,
        # including the end of the client's coordination task.
        try:
            while True:
                async with asyncio.timeout(self._longest_rebalance):
                    await self._consumer.getmany(timeout_ms=_POLL_MS)
        except TimeoutError:
            self._fail(UnavailableError(f"no rebalance ended for {self._longest_rebalance:.0f} s"))
        except InvalidSessionTimeoutError:
            self._fail(
                RefusedError(
                    f"Kafka does not accept a session timeout of {self._session_timeout:g} s: its brokers allow "
                    "group.min.session.timeout.ms (6 s unless set otherwise) to group.max.session.timeout.ms. "
                    "Nothing was changed; set WAYPOST_SESSION_TIMEOUT between them"
                )
            )
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = error
        self._tell()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


class _Listener(ConsumerRebalanceListener):
    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @override
    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._membership.rebalancing = True
        self._membership._tell()

    @override
    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        # Before the first position is known, so nothing is ever fetched.
        self._membership._consumer.pause(*assigned)
        self._membership.assigned = frozenset(partition.partition for partition in assigned)
        self._membership.rebalancing = False
        self._membership._tell()


def _own_assignor() -> type[StickyPartitionAssignor]:
    """aiokafka's sticky assignor keeps a member's last assignment in a class attribute: a class for each."""

    class StickyAssignor(StickyPartitionAssignor):
        member_assignment = None

    return StickyAssignor
