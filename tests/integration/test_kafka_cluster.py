"""The Kafka side on three brokers: replicated topics, and a fence that outlives the leader that took it."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, suppress

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from tests.support.processes import freeze
from tests.support.servers import ServerDirectory, started

from waypost.kafka.cluster_connections import ClusterConnections
from waypost.kafka.group_member import GroupMember, GroupOptions
from waypost.wire.topics import Topics
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fenced_producer import FencedProducer, claim_epoch
from waypost_worker.kafka.fencing_check import zombie_test
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka.topics import Finding, check_topics, create_topics, topic_settings
from waypost_worker.partition.ports import FencedError, ResultRecord, UnavailableError

pytestmark = pytest.mark.servers

PATIENCE = 90


@pytest.fixture(scope="module")
def cluster(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(server_directory("cluster"), ClusterOptions(nodes=3))) as made:
        yield made


@pytest.fixture
def connection(cluster: EmbeddedKafka) -> Connection:
    return Connection(cluster.bootstrap_servers, request_timeout=5.0)


@pytest.fixture
async def topics(connection: Connection, topic_prefix: str) -> Topics:
    topics = Topics(topic_prefix)
    await create_topics(connection, topics, 2)
    return topics


async def leader_of(connection: Connection, topic: str) -> int:
    """The leader of partition 0, asked until a living broker answers that there is one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
            try:
                await admin.start()
                (described,) = await admin.describe_topics([topic])
            except KafkaError:
                continue
            finally:
                await admin.close()
            leader: int = next(one["leader"] for one in described["partitions"] if one["partition"] == 0)
            if leader >= 0:
                return leader


def record(text: str) -> ResultRecord:
    return ResultRecord(b"key", text.encode(), [])


async def append_once_possible(connection: Connection, topics: Topics, text: str) -> KafkaResultsLog:
    """As an owner does while a partition has no leader: claim and append again until it works."""
    async with asyncio.timeout(PATIENCE):
        while True:
            log = KafkaResultsLog(ClusterClient(connection), topics, 0)
            try:
                await log.claim()
                await log.append([record(text)])
            except UnavailableError:
                await log.close()
            else:
                return log


async def checked(connection: Connection, topics: Topics) -> list[Finding]:
    """What is found once every broker that is asked has heard of the topics: to one that has not they do not exist, or
    their settings are not to be had.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(UnavailableError):
                findings = await check_topics(connection, topics)
                if all(found.message != "does not exist" for found in findings):
                    return findings


async def test_topics_get_three_replicas_of_which_two_must_answer(
    connection: Connection, topics: Topics
) -> None:
    findings = await checked(connection, topics)
    assert {found.level for found in findings} == {"ok"}
    messages = {found.message for found in findings if found.subject == topics.results}
    assert {"min.insync.replicas=2", "3 replica(s) on 3 broker(s)"} <= messages
    assert {f"broker {node}" for node in (1, 2, 3)} <= {found.subject for found in findings}


async def test_too_few_replicas_are_found_and_work_all_the_same(
    connection: Connection, topic_prefix: str
) -> None:
    topics = Topics(topic_prefix)
    await create_topics(connection, topics, 1, replicas=1)
    await (await append_once_possible(connection, topics, "taken")).close()
    warnings = [found for found in await checked(connection, topics) if found.level == "warning"]
    assert {(found.subject, found.fix) for found in warnings} >= {
        (topics.commands, "give it 3 replicas"),
        (topics.results, "give it 3 replicas"),
        (topics.results, "set min.insync.replicas=2 on the topic"),
    }


async def test_a_topic_that_can_never_be_written_is_found(connection: Connection, topic_prefix: str) -> None:
    topics = Topics(topic_prefix)
    await create_topics(connection, topics, 1)
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topics.results])
        settings = {**topic_settings(topics, 1)[topics.results], "min.insync.replicas": "2"}
        await admin.create_topics([NewTopic(topics.results, 1, 1, topic_configs=settings)])
    finally:
        await admin.close()
    errors = [found for found in await checked(connection, topics) if found.level == "error"]
    assert [(found.subject, "older brokers write nothing" in found.message) for found in errors] == [
        (topics.results, True)
    ]


async def test_zombies_are_refused(connection: Connection, topic_prefix: str) -> None:
    verdict = await zombie_test(connection, Topics(topic_prefix))
    assert verdict.fenced, verdict.message


async def test_the_fence_holds_after_the_leader_that_took_it_was_killed(
    cluster: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    zombie = KafkaResultsLog(ClusterClient(connection), topics, 0)
    await zombie.claim()
    await zombie.append([record("before")])
    owner = await append_once_possible(connection, topics, "fence")
    killed = await leader_of(connection, topics.results)
    node = next(one for one in cluster.nodes if one.node_id == killed)
    node.kill()
    try:
        async with asyncio.timeout(PATIENCE):
            while await leader_of(connection, topics.results) == killed:
                pass
        with pytest.raises(FencedError):
            await zombie.append([record("zombie")])
        successor = await append_once_possible(connection, topics, "successor")
        _, end = await successor.bounds()
        async with aclosing(successor.read(0, end)) as pieces:
            found = [one.value.decode() async for piece in pieces for one in piece]
        assert [text for text in found if text != "successor"] == ["before", "fence"]
        assert found[-1] == "successor"
        await successor.close()
    finally:
        await asyncio.to_thread(cluster.restart_node, node)
    await zombie.close()
    await owner.close()


async def test_an_owner_appends_on_while_the_brokers_restart_in_turn(
    cluster: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    restart = asyncio.create_task(asyncio.to_thread(cluster.restart))
    log = await append_once_possible(connection, topics, "0")
    written, terms = ["0"], 1
    while not restart.done() or len(written) < 10:
        text = str(len(written))
        try:
            await log.append([record(text)])
        except UnavailableError:
            await log.close()
            log = await append_once_possible(connection, topics, text)
            terms += 1
        written.append(text)
        # Appending as fast as possible would only slow the brokers' start down.
        await asyncio.wait({restart}, timeout=0.02)
    await restart
    _, end = await log.bounds()
    found = [one.value.decode() async for piece in log.read(0, end) for one in piece]
    await log.close()
    # An append without an answer may be there as well as its repetition; nothing else may be doubled or lost.
    assert list(dict.fromkeys(found)) == written
    assert len(found) - len(written) < terms


async def test_a_slow_replica_of_a_partition_holds_up_no_other_for_long(
    cluster: EmbeddedKafka, connection: Connection, topic_prefix: str
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic_prefix, -1, -1, {0: [1, 2], 1: [1, 3]})])
    finally:
        await admin.close()
    client = ClusterClient(connection)
    slow, quick = [
        FencedProducer(client, topic_prefix, number, await claim_epoch(client, f"{topic_prefix}.{number}"))
        for number in range(2)
    ]
    await slow.start()
    await quick.start()
    assert await asyncio.gather(slow.append([record("0")]), quick.append([record("0")])) == [0, 0]
    replica = next(one for one in cluster.nodes if one.node_id == 2)
    freeze(replica)
    try:
        held = asyncio.create_task(slow.append([record("1")]))
        for number in range(1, 6):
            assert await quick.append([record(str(number))]) == number
        assert not held.done()
    finally:
        replica.resume()
        await asyncio.gather(held, return_exceptions=True)
        await asyncio.gather(slow.close(), quick.close())


async def test_a_leader_that_dies_disturbs_only_the_partitions_that_it_led(
    cluster: EmbeddedKafka, connection: Connection, topic_prefix: str
) -> None:
    partitions, before, behind = 6, 20, 20
    topics = Topics(topic_prefix)
    await create_topics(connection, topics, partitions)
    client = ClusterClient(connection)
    logs = [KafkaCommandLog(client, topics.commands, number) for number in range(partitions)]
    found: list[list[int]] = [[] for _ in logs]

    async def publish(count: int) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=connection.bootstrap_servers, enable_idempotence=True
        ) as producer:
            for _ in range(count):
                for number in range(partitions):
                    await (await producer.send(topics.commands, b"value", partition=number))

    async def fetch_up_to(count: int, number: int) -> None:
        while len(found[number]) < count:
            found[number] += [record.offset for record in await logs[number].fetch(7)]

    async def all_fetch_up_to(count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(fetch_up_to(count, number) for number in range(partitions)))

    try:
        for log in logs:
            await log.partitions()
            await log.seek(0)
        await publish(before)
        await all_fetch_up_to(before)
        at_first = [log.disturbances for log in logs]
        leaders = [
            client.known_leader_of(TopicPartition(topics.commands, number)) for number in range(partitions)
        ]
        fetching = asyncio.create_task(all_fetch_up_to(before + behind))
        node = next(one for one in cluster.nodes if one.node_id == leaders[0])
        node.kill()
        try:
            await publish(behind)
            await fetching
        finally:
            await asyncio.to_thread(cluster.restart_node, node)
        assert found == [list(range(before + behind))] * partitions
        disturbed = [log.disturbances > first for log, first in zip(logs, at_first, strict=True)]
        assert disturbed == [leader == leaders[0] for leader in leaders]
    finally:
        for log in logs:
            await log.close()


async def test_a_broker_that_is_frozen_keeps_nobody_from_connecting_to_another(
    cluster: EmbeddedKafka, connection: Connection, topic_prefix: str
) -> None:
    topics, partitions = Topics(topic_prefix), 6
    await create_topics(connection, topics, partitions)
    client = ClusterClient(connection)
    logs = [KafkaCommandLog(client, topics.commands, number) for number in range(partitions)]

    async def first_of(log: KafkaCommandLog) -> int:
        while not (records := await log.fetch(1)):
            pass
        return records[0].offset

    # What the frozen broker does not have yet could not be read.
    async with AIOKafkaProducer(bootstrap_servers=connection.bootstrap_servers, acks="all") as producer:
        for number in range(partitions):
            await producer.send_and_wait(topics.commands, b"value", partition=number)
    try:
        for log in logs:
            await log.partitions()
            await log.seek(0)
        leaders = [
            await client.leader_of(TopicPartition(topics.commands, number)) for number in range(partitions)
        ]
        node = next(one for one in cluster.nodes if one.node_id == leaders[0])
        freeze(node)
        try:
            fetching = [asyncio.create_task(first_of(log)) for log in logs]
            others = [one for one, leader in zip(fetching, leaders, strict=True) if leader != leaders[0]]
            assert others
            async with asyncio.timeout(connection.request_timeout / 2):
                await client.refresh()
                assert await asyncio.gather(*others) == [0] * len(others)
        finally:
            node.resume()
            await asyncio.gather(*fetching, return_exceptions=True)
    finally:
        for log in logs:
            await log.close()


async def test_a_membership_outlives_its_coordinator(
    cluster: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    first = Membership(connection, topics.commands, topics.prefix, session_timeout=30)
    await first.start()
    other = Membership(connection, topics.commands, topics.prefix, session_timeout=30)
    try:
        async with asyncio.timeout(PATIENCE):
            while first.rebalancing:
                await first.changed()
        killed = first._member._coordinator
        node = next(one for one in cluster.nodes if one.node_id == killed)
        node.kill()
        try:
            await other.start()
            async with asyncio.timeout(PATIENCE):
                while sorted([*first.assigned, *other.assigned]) != [0, 1] or first.rebalancing:
                    changes = {asyncio.ensure_future(one.changed()) for one in (first, other)}
                    await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            assert first.failed is None
        finally:
            await asyncio.to_thread(cluster.restart_node, node)
    finally:
        await other.leave()
        await first.leave()


async def test_a_broker_that_does_not_coordinate_a_group_is_not_taken_for_one_without_positions(
    connection: Connection, topics: Topics
) -> None:
    """As for a moment after the coordinator moved. It answers without any partition (OffsetFetch since version 2)."""
    connections = ClusterConnections(**connection.options())
    partitions = [TopicPartition(topics.commands, number) for number in range(2)]

    async def nothing(*_: object) -> None: ...

    options = GroupOptions(topics.commands, (RoundRobinPartitionAssignor,), 10, 10, 0.3)
    member = GroupMember(connections, topics.commands, options, on_revoked=nothing, on_assigned=nothing)
    try:
        await connections.bootstrap()
        await member.commit(dict.fromkeys(partitions, 7))
        coordinator = member._coordinator
        for broker in connections.cluster.brokers():
            member._coordinator = broker.nodeId
            assert await member.committed(partitions) == dict.fromkeys(partitions, 7)
            assert member._coordinator == coordinator
    finally:
        await connections.close()
