"""Membership of the consumer group: which partitions this worker is to own. It fetches no data.

A revocation does not end ownership here. Owners continue during a rebalance and end when the new assignment lacks their
partition: the fence makes an overlap harmless, and a partition that stays is not disturbed.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import InvalidSessionTimeoutError

from waypost import __version__
from waypost.kafka.cluster_connections import ClusterConnections
from waypost.kafka.diagnosis import require_access
from waypost.kafka.group_member import FencedInstanceIdError, GroupMember, GroupOptions
from waypost.kafka.log_offsets import END, FIRST, READ_COMMITTED, offsets_at
from waypost_worker.kafka.connection import PASSING, Connection, kafka_errors, quietly
from waypost_worker.kafka.group_members import member_client_id
from waypost_worker.partition.ports import RefusedError, UnavailableError

# How soon a member notices that another one left: a takeover after a drain takes about this long.
_HEARTBEAT: Final = 0.3
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
        self._session_timeout = session_timeout
        self._change = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._overdue: asyncio.TimerHandle | None = None
        rebalance = max(10, session_timeout)
        # No rebalance takes longer than this, unless the cluster is unreachable or a member is stuck.
        self._longest_rebalance = 2 * (rebalance + session_timeout) + 2 * connection.request_timeout
        self._connections = ClusterConnections(
            **{**connection.options(), "client_id": member_client_id(__version__)}
        )
        self._member = GroupMember(
            self._connections,
            topic,
            GroupOptions(
                group_id,
                (_own_assignor(),),
                session_timeout,
                rebalance,
                min(_HEARTBEAT, session_timeout / 3),
                group_instance_id,
            ),
            on_revoked=self._revoked,
            on_assigned=self._assigned,
        )

    async def start(self) -> None:
        """Connect and join. UnavailableError if the cluster can't be reached or lacks the topic."""
        async with kafka_errors("joining the worker group"):
            async with asyncio.timeout(self._connection.start_timeout):
                await require_access(self._connection.options())
                await self._connections.bootstrap()
                # A group that wants a missing topic would notice only minutes later that it is there.
                await self._connections.add_topic(self._topic)
        if self._topic in self._connections.cluster.unauthorized_topics:
            raise UnavailableError(
                f"Kafka does not let this worker see the topic {self._topic!r}: give its principal the ACLs that "
                "'waypost topics acls worker' prints"
            )
        if not self._connections.cluster.partitions_for_topic(self._topic):
            raise UnavailableError(
                f"the topic {self._topic!r} does not exist yet: create it with 'waypost topics create'"
            )
        self._running = asyncio.create_task(self._run(), name="membership")

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
                    await self._member.commit(owned)
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
                found = await offsets_at(self._connections, dict.fromkeys(partitions, END), READ_COMMITTED)
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
                starts = await offsets_at(self._connections, dict.fromkeys(wanted, FIRST))
                found = await self._member.committed(wanted)
        except PASSING:
            return {}
        return {each.partition: max(start, found.get(each, start)) for each, start in starts.items()}

    async def leave(self) -> None:
        """Leave the group, so that others take over immediately (a static member only goes silent).

        Never raises, and takes a few seconds at most.
        """
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._end_wait()
        await quietly(self._member.leave(), _LEAVE_SECONDS)
        await quietly(self._connections.close(), _LEAVE_SECONDS)

    async def _run(self) -> None:
        try:
            await self._member.run()
        except InvalidSessionTimeoutError:
            self._fail(
                RefusedError(
                    f"Kafka does not accept a session timeout of {self._session_timeout:g} s: its brokers allow "
                    "group.min.session.timeout.ms (6 s unless set otherwise) to group.max.session.timeout.ms. "
                    "Nothing was changed; set WAYPOST_SESSION_TIMEOUT between them"
                )
            )
        except FencedInstanceIdError as error:
            self._fail(RefusedError(f"{error.args[0]} (WAYPOST_GROUP_INSTANCE_ID)"))
        except Exception as error:
            self._fail(error)

    async def _revoked(self) -> None:
        self.rebalancing = True
        self._end_wait()
        self._overdue = asyncio.get_running_loop().call_later(self._longest_rebalance, self._give_up)
        self._tell()

    async def _assigned(self, partitions: list[TopicPartition]) -> None:
        self._end_wait()
        self.assigned = frozenset(partition.partition for partition in partitions)
        self.rebalancing = False
        self._tell()

    def _end_wait(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()

    def _give_up(self) -> None:
        self._fail(UnavailableError(f"no rebalance ended for {self._longest_rebalance:.0f} s"))

    def _fail(self, error: Exception) -> None:
        self.failed = error
        self._tell()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


def _own_assignor() -> type[StickyPartitionAssignor]:
    """aiokafka's sticky assignor keeps a member's last assignment in a class attribute: a class for each."""

    class StickyAssignor(StickyPartitionAssignor):
        member_assignment = None

    return StickyAssignor
