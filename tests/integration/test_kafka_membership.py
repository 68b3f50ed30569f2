"""Group membership on the real broker: who is to own which partition, through joins, leaves and failures."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.support.timeouts import PATIENCE

from waypost.wire.topics import Topics
from waypost_worker.devserver import Servers
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.topics import create_topics
from waypost_worker.partition.ports import RefusedError, UnavailableError

PARTITIONS = 12
ALL = frozenset(range(PARTITIONS))


class Group:
    """A group on topics of its own."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        self.connection = connection
        self.topics = topics
        self.name = topics.prefix

    @asynccontextmanager
    async def member(
        self, session_timeout: float = 30, instance: str | None = None
    ) -> AsyncIterator[Membership]:
        membership = Membership(
            self.connection,
            self.topics.commands,
            self.name,
            session_timeout=session_timeout,
            group_instance_id=instance,
        )
        try:
            await membership.start()
            yield membership
        finally:
            await membership.leave()

    async def committed(self) -> dict[int, int]:
        async with self._admin() as admin:
            offsets = await admin.list_consumer_group_offsets(self.name)
            return {tp.partition: found.offset for tp, found in offsets.items() if found.offset >= 0}

    async def members(self) -> int:
        async with self._admin() as admin:
            (answer,) = await admin.describe_consumer_groups([self.name])
            return len(answer.groups[0][5])

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.connection.bootstrap_servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


@pytest.fixture
async def group(servers: Servers, topic_prefix: str) -> Group:
    connection = Connection(servers.kafka.bootstrap_servers)
    topics = Topics(topic_prefix)
    await create_topics(connection, topics, PARTITIONS)
    return Group(connection, topics)


async def until(condition: Callable[[], bool], *members: Membership) -> None:
    """Wait for changes of these members until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            changes = [asyncio.ensure_future(member.changed()) for member in members]
            if condition():
                break
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            for change in changes:
                change.cancel()
    for change in changes:
        change.cancel()


def settled(*members: Membership) -> Callable[[], bool]:
    """Together they own all partitions, each partition once, and about equally many each."""

    def condition() -> bool:
        owned = sorted(partition for member in members for partition in member.assigned)
        sizes = {len(member.assigned) for member in members}
        resting = not any(member.rebalancing for member in members)
        return resting and owned == sorted(ALL) and max(sizes) - min(sizes) <= 1

    return condition


async def test_a_single_member_is_to_own_everything(group: Group) -> None:
    async with group.member() as only:
        assert only.rebalancing
        assert only.assigned == frozenset()
        await until(settled(only), only)
        assert only.failed is None


async def test_a_second_member_takes_half_and_the_first_keeps_the_other_half(group: Group) -> None:
    async with group.member() as first:
        await until(settled(first), first)
        async with group.member() as second:
            await until(settled(first, second), first, second)
            kept = first.assigned
            async with group.member() as third:
                await until(settled(first, second, third), first, second, third)
                assert first.assigned < kept
                assert len(third.assigned) == 4


async def test_a_member_that_leaves_is_followed_immediately_by_the_others(group: Group) -> None:
    async with group.member(session_timeout=60) as stays:
        async with group.member(session_timeout=60) as leaves:
            await until(settled(stays, leaves), stays, leaves)
            before = stays.assigned
        async with asyncio.timeout(40):  # far less than the session timeout
            await until(settled(stays), stays)
        assert before < stays.assigned


async def test_owners_are_known_during_a_rebalance(group: Group) -> None:
    async with group.member() as first:
        await until(settled(first), first)
        seen: list[tuple[frozenset[int], bool]] = []

        async def watch() -> None:
            while True:
                await first.changed()
                seen.append((first.assigned, first.rebalancing))

        watching = asyncio.create_task(watch())
        async with group.member() as second:
            await until(settled(first, second), first, second)
        watching.cancel()
        assert (ALL, True) in seen


async def test_a_change_between_looking_and_waiting_is_not_missed(group: Group) -> None:
    async with group.member() as member:
        change = member.changed()
        await until(settled(member), member)
        async with asyncio.timeout(PATIENCE):
            await change


async def test_members_come_and_go_in_any_order(group: Group) -> None:
    async with group.member() as first, group.member() as second:
        async with group.member(), group.member() as fourth:
            await until(lambda: fourth.failed is None and not fourth.rebalancing, fourth)
        await until(settled(first, second), first, second)
        async with group.member() as fifth:
            await until(settled(first, second, fifth), first, second, fifth)
        await until(settled(first, second), first, second)
    async with group.member() as last:
        await until(settled(last), last)


async def test_a_member_that_dies_is_replaced_after_its_session(group: Group) -> None:
    async with group.member(session_timeout=1) as stays, group.member(session_timeout=1) as dies:
        await until(settled(stays, dies), stays, dies)
        fall_silent(dies)
        await until(settled(stays), stays)


async def test_leaving_does_not_wait_for_a_rebalance_that_a_dead_member_holds_up(group: Group) -> None:
    async with group.member(session_timeout=60) as dead:
        await until(settled(dead), dead)
        fall_silent(dead)
        joining = Membership(group.connection, group.topics.commands, group.name, session_timeout=60)
        await joining.start()
        async with asyncio.timeout(PATIENCE):
            while await group.members() < 2:
                pass
        async with asyncio.timeout(40):  # far less than the session timeout
            await joining.leave()
        assert joining.assigned == frozenset()
        assert await group.members() == 1  # so nobody waits for it either


async def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(group: Group) -> None:
    async with group.member() as other:
        async with group.member(instance="worker-1") as before:
            await until(settled(other, before), other, before)
            its = before.assigned
            others = other.assigned
        change = asyncio.ensure_future(other.changed())
        async with group.member(instance="worker-1") as after:
            await until(lambda: not after.rebalancing, after)
            assert after.assigned == its
            assert other.assigned == others
            assert not change.done()
        change.cancel()


async def test_offsets_are_committed_for_lag_monitors(group: Group) -> None:
    async with group.member() as member:
        await until(settled(member), member)
        await member.commit({0: 17, 5: 4})
        assert await group.committed() == {0: 17, 5: 4}


async def test_offsets_of_others_partitions_are_not_committed(group: Group) -> None:
    async with group.member() as member, group.member() as other:
        await until(settled(member, other), member, other)
        (mine, *_), (theirs, *_) = member.assigned, other.assigned
        await member.commit({mine: 3, theirs: 9})
        assert await group.committed() == {mine: 3}


async def test_a_missing_topic_is_reported_immediately(servers: Servers, topic_prefix: str) -> None:
    missing = Membership(
        Connection(servers.kafka.bootstrap_servers), f"{topic_prefix}.commands", topic_prefix
    )
    with pytest.raises(UnavailableError, match="waypost topics create"):
        await missing.start()
    await missing.leave()


async def test_a_session_timeout_that_the_broker_refuses_is_reported(group: Group) -> None:
    async with group.member(session_timeout=0.9) as member:
        await until(lambda: member.failed is not None, member)
        assert "set WAYPOST_SESSION_TIMEOUT between them" in repr(member.failed)


async def test_a_member_whose_instance_id_another_took_refuses_to_continue(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A heartbeat would let the first one replace the second.
    monkeypatch.setattr("waypost_worker.kafka.membership._HEARTBEAT", PATIENCE)
    async with group.member(600, "worker-1") as first:
        await until(settled(first), first)
        async with group.member(600, "worker-1") as second:
            await until(settled(second), second)
            first._member._join_again()
            await until(lambda: first.failed is not None, first)
            assert isinstance(first.failed, RefusedError)
            assert "its own instance id (WAYPOST_GROUP_INSTANCE_ID)" in str(first.failed)
            assert second.failed is None


async def test_an_error_that_nobody_expects_is_noticed(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    async with group.member() as member:
        await until(settled(member), member)
        monkeypatch.setattr(member._member, "_shares", None)
        member._member._join_again()
        await until(lambda: member.failed is not None, member)


async def test_a_rebalance_without_end_is_noticed(group: Group) -> None:
    async with group.member(session_timeout=60) as dead:
        await until(settled(dead), dead)
        fall_silent(dead)
        waits = Membership(group.connection, group.topics.commands, group.name, session_timeout=60)
        waits._longest_rebalance = 0.5
        await waits.start()
        await until(lambda: waits.failed is not None, waits)
        assert "no rebalance ended" in str(waits.failed)
        await waits.leave()


async def test_leaving_leaves_no_task_behind(group: Group) -> None:
    before = asyncio.all_tasks()
    async with group.member() as member:
        await until(settled(member), member)
    assert asyncio.all_tasks() == before


def fall_silent(member: Membership) -> None:
    """What a SIGKILL does to a member: it says nothing more, to anybody."""
    assert member._running is not None
    member._running.cancel()


async def test_group_offsets_are_given_back_and_a_partition_without_one_begins_with_its_log(
    group: Group,
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=group.connection.bootstrap_servers) as producer:
        for _ in range(5):
            await producer.send_and_wait(group.topics.commands, b"x", partition=0)
            await producer.send_and_wait(group.topics.commands, b"x", partition=1)
    async with group._admin() as admin:
        await admin.delete_records(
            {TopicPartition(group.topics.commands, 1): RecordsToDelete(before_offset=3)}
        )
    async with group.member() as member:
        await until(settled(member), member)
        await member.commit({0: 4})
        assert await member.committed({0, 1, 2}) == {0: 4, 1: 3, 2: 0}
        assert await member.committed(set()) == {}


async def test_a_partition_ends_where_an_open_transaction_begins(group: Group) -> None:
    async with group.member() as member:
        await until(settled(member), member)
        agent = AIOKafkaProducer(
            bootstrap_servers=group.connection.bootstrap_servers, transactional_id=f"{group.name}.agent"
        )
        await agent.start()
        try:
            await agent.begin_transaction()
            await agent.send_and_wait(group.topics.commands, b"x", partition=0)
            assert (await member.ends())[0] == 0
            await agent.commit_transaction()
            async with asyncio.timeout(PATIENCE):
                while (await member.ends())[0] != 2:
                    pass
        finally:
            await agent.stop()
