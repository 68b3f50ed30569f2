"""A member of a consumer group: joins, shows that it lives, commits positions, and leaves (Kafka's classic protocol).

Owns the member's id and generation, and when it joins again. Which partitions a member gets is up to aiokafka's
assignors, so that a group may also have members that use aiokafka. Fetches nothing, and knows nothing about Waypost.

aiokafka's own member is part of its consumer. It can't be ended while it waits for other members or for a broker, and
then its heartbeats continue in the name of a member that does nothing.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaError,
    MemberIdRequired,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
)

from waypost.kafka.cluster_connections import ClusterConnections

log = logging.getLogger("waypost")
_T = TypeVar("_T")
_BACKOFF: Final = 0.1
_NO_OFFSET: Final = -1
_OUTDATED: Final = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)


class FencedInstanceIdError(KafkaError):
    """Another member has joined the group with the instance id of this one. aiokafka does not know this error."""

    errno = 82


class _Lane(Enum):
    """A broker does not read the next request of a connection while a join waits for other members. Until then,
    nothing but leaving makes sense.
    """

    GROUP = "group"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """Options of a member. All times are in seconds.

    A member whose application asks for nothing for ``max_poll_interval`` leaves until it asks again.
    """

    group_id: str
    assignors: Sequence[type[AbstractPartitionAssignor]]
    session_timeout: float
    rebalance_timeout: float
    heartbeat_interval: float
    instance_id: str | None = None
    max_poll_interval: float = float("inf")


class GroupMember:
    """A member that wants partitions of one topic.

    ``on_revoked`` is awaited before the member joins again, and ``on_assigned`` with its partitions after that.
    Heartbeats continue during both. ``connections`` must know the topic already.
    """

    def __init__(
        self,
        connections: ClusterConnections,
        topic: str,
        options: GroupOptions,
        *,
        on_revoked: Callable[[], Awaitable[None]],
        on_assigned: Callable[[list[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._connections = connections
        self._topic = topic
        self._options = options
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID
        self._generation = OffsetCommitRequest.DEFAULT_GENERATION_ID
        self._coordinator: int | None = None
        self._partition_count: int | None = None
        self._must_join: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._polls = 0
        self._polled_at = asyncio.get_running_loop().time()
        self._polled = asyncio.Event()

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Note that the application asks for records, which is what keeps a member in the group."""
        self._polls += 1
        self._polled.set()
        try:
            yield
        finally:
            self._polls -= 1
            self._polled_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Be a member until canceled. Then call :meth:`leave`.

        Raises:
            KafkaError: The group does not accept this member, and waiting does not help.
        """
        heartbeats: asyncio.Task[None] | None = None
        self._connections.cluster.add_listener(self._look_at_partitions)
        try:
            while True:
                await self._on_revoked()
                await _ended(heartbeats)
                while heartbeats is not None and self._is_idle():
                    self._polled.clear()
                    await self._polled.wait()
                partitions = await self._join()
                heartbeats = asyncio.create_task(self._beat())
                await self._on_assigned(partitions)
                await asyncio.wait({heartbeats, self._must_join}, return_when=asyncio.FIRST_COMPLETED)
                if heartbeats.done():
                    heartbeats.result()
        finally:
            self._connections.cluster.remove_listener(self._look_at_partitions)
            await _ended(heartbeats)

    async def leave(self) -> None:
        """Tell the group that this member is gone, unless it is a static one.

        Raises:
            KafkaError: The coordinator can't be reached.
        """
        if self._member_id and self._options.instance_id is None:
            member_id, self._member_id = self._member_id, JoinGroupRequest.UNKNOWN_MEMBER_ID
            await self._ask(LeaveGroupRequest(self._options.group_id, member_id), _Lane.LEAVE)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit positions. Try until the coordinator answers.

        Raises:
            CommitFailedError: The group has given the partitions to others.
            KafkaError: The group or topic may not be used.
        """
        by_topic: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for partition, offset in offsets.items():
            by_topic[partition.topic].append((partition.partition, offset, ""))
        # For all tries: a position of this generation must not replace one that a later owner has committed.
        request = OffsetCommitRequest(
            self._options.group_id,
            self._generation,
            self._member_id,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(by_topic.items()),
        )

        async def once() -> None:
            answer = await self._ask(request)
            for topic, partitions in answer.topics:
                for _, code in partitions:
                    self._check(code, topic)

        try:
            await self._until_answered(once)
        except _OUTDATED as error:
            raise CommitFailedError("the group has given the partitions to others meanwhile") from error

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the committed positions of those partitions that have one. Raises as :meth:`commit`."""
        by_topic: dict[str, list[int]] = defaultdict(list)
        for partition in partitions:
            by_topic[partition.topic].append(partition.partition)

        async def once() -> dict[TopicPartition, int]:
            answer = await self._ask(OffsetFetchRequest(self._options.group_id, list(by_topic.items())))
            # Since version 2, an answer with an error of the group lists no partitions.
            self._check(getattr(answer, "error_code", 0))
            found: dict[TopicPartition, int] = {}
            for topic, numbers in answer.topics:
                for number, offset, _, code in numbers:
                    if code != UnknownTopicOrPartitionError.errno:
                        self._check(code, topic)
                    if offset != _NO_OFFSET:
                        found[TopicPartition(topic, number)] = offset
            return found

        return await self._until_answered(once) if by_topic else {}

    async def _join(self) -> list[TopicPartition]:
        while True:
            try:
                return await self._until_answered(self._join_once)
            except _OUTDATED:
                await asyncio.sleep(_BACKOFF)

    async def _join_once(self) -> list[TopicPartition]:
        options = self._options
        self._must_join = asyncio.get_running_loop().create_future()
        assignors = {str(assignor.name): assignor for assignor in options.assignors}
        protocols = [
            (name, assignor.metadata([self._topic]).encode()) for name, assignor in assignors.items()
        ]
        answer = await self._ask_to_join(protocols)
        self._member_id, self._generation = answer.member_id, answer.generation_id
        assignor = assignors[answer.group_protocol]
        shares = await self._shares(assignor, answer) if answer.leader_id == answer.member_id else []
        known = self._connections.cluster.partitions_for_topic(self._topic)
        self._partition_count = None if known is None else len(known)
        request: Any = SyncGroupRequest(
            options.group_id, self._generation, self._member_id, _untyped(options.instance_id), shares
        )
        answer = await self._ask(request)
        self._check(answer.error_code)
        if not answer.member_assignment:  # a leader of another make left this member out
            return []
        assignment: Any = ConsumerProtocol.ASSIGNMENT.decode(answer.member_assignment)
        assignor.on_assignment(assignment)
        partitions: list[TopicPartition] = assignment.partitions()
        return partitions

    async def _ask_to_join(self, protocols: list[tuple[str, bytes]]) -> Any:
        options = self._options
        while True:
            request = JoinGroupRequest(
                options.group_id,
                int(options.session_timeout * 1000),
                int(options.rebalance_timeout * 1000),
                self._member_id,
                _untyped(options.instance_id),
                ConsumerProtocol.PROTOCOL_TYPE,
                protocols,
            )
            answer = await self._ask(request)
            if answer.error_code != MemberIdRequired.errno:
                self._check(answer.error_code)
                return answer
            self._member_id = (
                answer.member_id
            )  # the group counts a member only once it knows its id (KIP-394)

    async def _shares(
        self, assignor: type[AbstractPartitionAssignor], answer: Any
    ) -> list[tuple[str, bytes]]:
        """Return the share of each member, which its leader decides."""
        members: dict[str, Any] = {
            member[0]: ConsumerProtocol.METADATA.decode(member[-1]) for member in answer.members
        }
        for topic in {topic for member in members.values() for topic in member.subscription}:
            await self._connections.add_topic(topic)
        # Another member may have found new partitions already.
        await self._connections.force_metadata_update()
        if not self._connections.cluster.partitions_for_topic(self._topic):
            raise UnknownTopicOrPartitionError(self._topic)
        shares = assignor.assign(self._connections.cluster, members)
        return [(member, share.encode()) for member, share in shares.items()]

    async def _beat(self) -> None:
        """Show that this member lives, until it must join again."""
        while True:
            await asyncio.sleep(self._options.heartbeat_interval)
            if self._is_idle():
                with suppress(KafkaError):
                    await self.leave()
                self._join_again()
                return
            request = HeartbeatRequest(self._options.group_id, self._generation, self._member_id)

            async def once(request: HeartbeatRequest = request) -> None:
                try:
                    async with asyncio.timeout(self._options.session_timeout):
                        answer = await self._ask(request)
                except TimeoutError as error:
                    self._coordinator = (
                        None  # it is silent, and another broker may coordinate the group by now
                    )
                    raise RequestTimedOutError from error
                self._check(answer.error_code)

            try:
                await self._until_answered(once)
            except RebalanceInProgressError:
                self._join_again()  # heartbeats continue until it does
            except _OUTDATED:
                self._join_again()
                return

    def _is_idle(self) -> bool:
        idle = asyncio.get_running_loop().time() - self._polled_at
        return not self._polls and idle >= self._options.max_poll_interval

    def _join_again(self) -> None:
        if not self._must_join.done():
            self._must_join.set_result(None)

    def _look_at_partitions(self, cluster: Any) -> None:
        found = cluster.partitions_for_topic(self._topic)
        if found is not None and self._partition_count not in (None, len(found)):
            self._join_again()

    async def _until_answered(self, once: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            try:
                return await once()
            except KafkaError as error:
                if not error.retriable:
                    raise
                log.debug("the group %r does not answer: %r", self._options.group_id, error)
                await asyncio.sleep(_BACKOFF)
                if self._coordinator is None:
                    await self._connections.refresh()

    async def _ask(self, request: Any, lane: _Lane = _Lane.GROUP) -> Any:
        group_id = self._options.group_id
        if self._coordinator is None:
            try:
                self._coordinator = await self._connections.coordinator_lookup(
                    CoordinationType.GROUP, group_id
                )
            except GroupAuthorizationFailedError:
                raise GroupAuthorizationFailedError(group_id) from None
        try:
            return await self._connections.send(self._coordinator, request, group=lane)
        except KafkaError:
            self._coordinator = None
            raise

    def _check(self, code: int, topic: str = "") -> None:
        if code == 0:
            return
        error = for_code(code)
        if issubclass(error, GroupCoordinatorNotAvailableError | NotCoordinatorForGroupError):
            self._coordinator = None
        elif error is UnknownMemberIdError:
            self._member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID
        elif code == FencedInstanceIdError.errno:
            raise FencedInstanceIdError(
                f"Another member joined the group {self._options.group_id!r} with the instance id "
                f"{self._options.instance_id!r}, so Kafka removed this one. Committed positions are kept. Stop one of "
                "the two, or give each its own instance id"
            )
        raise error(topic if error is TopicAuthorizationFailedError else self._options.group_id)


async def _ended(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _untyped(untyped: Any) -> Any:
    """Return what aiokafka accepts although its types forbid it."""
    return untyped
