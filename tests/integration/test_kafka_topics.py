"""Making and checking the two topics."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.support.timeouts import PATIENCE

from waypost.wire.topics import Topics
from waypost_worker.devserver import Servers
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import (
    Finding,
    Update,
    check_topics,
    create_topics,
    topic_settings,
    update_topics,
)
from waypost_worker.partition.ports import RefusedError, UnavailableError


@pytest.fixture
def connection(servers: Servers) -> Connection:
    return Connection(servers.kafka.bootstrap_servers)


@pytest.fixture
def topics(topic_prefix: str) -> Topics:
    return Topics(topic_prefix)


async def make(connection: Connection, name: str, partitions: int, settings: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        await until_described(admin, name)
    finally:
        await admin.close()


async def until_described(admin: AIOKafkaAdminClient, name: str) -> None:
    """A topic is made before every broker knows of it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if not (await admin.describe_topics([name]))[0]["error_code"]:
                return
            await asyncio.sleep(0.02)


async def settings_of(connection: Connection, name: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


def about(findings: list[Finding], setting: str) -> Finding:
    (found,) = [one for one in findings if one.message.startswith(f"{setting}=")]
    return found


async def test_topics_are_made_as_the_contract_says(connection: Connection, topics: Topics) -> None:
    assert await create_topics(connection, topics, 3) == [topics.commands, topics.results]
    commands = await settings_of(connection, topics.commands)
    results = await settings_of(connection, topics.results)
    assert {commands["message.timestamp.type"], results["message.timestamp.type"]} == {"LogAppendTime"}
    assert (commands["retention.ms"], commands["retention.bytes"]) == ("-1", "-1")
    assert results["retention.bytes"] == "-1"
    assert int(commands["max.message.bytes"]) == 1_048_588
    assert int(results["max.message.bytes"]) == 16 * 1024 * 1024
    assert int(results["retention.ms"]) == 7 * 24 * 3600 * 1000
    assert {commands["cleanup.policy"], results["cleanup.policy"]} == {"delete"}


async def test_a_broker_that_does_not_know_itself_yet_is_waited_for(
    connection: Connection, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one answers that has just started again."""
    described = AIOKafkaAdminClient.describe_cluster
    left = 2

    async def described_late(admin: AIOKafkaAdminClient) -> dict[str, object]:
        nonlocal left
        left -= 1
        found: dict[str, object] = await described(admin)
        return {**found, "brokers": []} if left >= 0 else found

    monkeypatch.setattr(AIOKafkaAdminClient, "describe_cluster", described_late)
    assert await create_topics(connection, topics, 1) == [topics.commands, topics.results]
    assert left < 0


async def test_making_them_again_changes_nothing(connection: Connection, topics: Topics) -> None:
    await create_topics(connection, topics, 3)
    assert await create_topics(connection, topics, 3) == []
    assert await create_topics(connection, topics, 5, commands_retention_ms=1000) == []
    findings = await check_topics(connection, topics)
    assert {found.level for found in findings} == {"ok"}
    assert any(found.message == "3 partitions, as many as the results" for found in findings)


async def test_a_missing_topic_is_created_only_with_as_many_partitions_as_the_other(
    connection: Connection, topics: Topics
) -> None:
    await make(connection, topics.commands, 3, {})
    with pytest.raises(RefusedError, match="exists with 3 partitions"):
        await create_topics(connection, topics, 4)
    assert await create_topics(connection, topics, 3) == [topics.results]


async def test_retention_is_for_the_operator_to_choose(connection: Connection, topics: Topics) -> None:
    await create_topics(
        connection, topics, 1, commands_retention_ms=3_600_000, results_retention_ms=86_400_000
    )
    assert (await settings_of(connection, topics.commands))["retention.ms"] == "3600000"
    assert (await settings_of(connection, topics.results))["retention.ms"] == "86400000"


async def test_results_are_kept_as_long_as_the_fence_must_last(
    connection: Connection, topics: Topics
) -> None:
    with pytest.raises(RefusedError, match=r"at least 24 hours, not 23.*Nothing was created"):
        await create_topics(connection, topics, 1, results_retention_ms=23 * 3_600_000)
    assert {found.message for found in await check_topics(connection, topics)} >= {"does not exist"}


async def test_topics_of_an_earlier_version_are_updated_and_keep_other_settings(
    connection: Connection, topics: Topics
) -> None:
    settings = topic_settings(topics, 1)
    results = settings[topics.results]
    del results["message.timestamp.type"]
    results |= {"retention.bytes": "1000000000", "retention.ms": "172800000", "segment.ms": "600000"}
    settings[topics.commands] |= {"cleanup.policy": "compact"}
    for one, its_settings in settings.items():
        await make(connection, one, 1, its_settings)
    expected = [
        Update(topics.commands, "cleanup.policy", "compact", "delete"),
        Update(topics.results, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        Update(topics.results, "retention.bytes", "1000000000", "-1"),
    ]
    assert await update_topics(connection, topics, dry_run=True) == expected
    assert await update_topics(connection, topics) == expected
    assert await update_topics(connection, topics) == []
    after = await settings_of(connection, topics.results)
    assert (after["retention.ms"], after["segment.ms"]) == ("172800000", "600000")
    assert "error" not in {found.level for found in await check_topics(connection, topics)}


async def test_kafkas_own_reason_is_reported_when_it_refuses(connection: Connection, topics: Topics) -> None:
    with pytest.raises(UnavailableError, match="replication factor of 3"):
        await create_topics(connection, topics, 1, replicas=3)


async def test_missing_topics_are_found(connection: Connection, topics: Topics) -> None:
    missing = [found for found in await check_topics(connection, topics) if found.level == "error"]
    assert [(found.subject, found.message) for found in missing] == [
        (topics.commands, "does not exist"),
        (topics.results, "does not exist"),
    ]
    assert {found.fix for found in missing} == {"run 'waypost topics create'"}


async def test_unequal_partition_counts_are_found(connection: Connection, topics: Topics) -> None:
    settings = topic_settings(topics, 1)
    await make(connection, topics.commands, 3, settings[topics.commands])
    await make(connection, topics.results, 2, settings[topics.results])
    (found,) = [one for one in await check_topics(connection, topics) if one.level != "ok"]
    assert (found.level, found.subject) == ("error", topics.results)
    assert "has 2 partitions" in found.message
    assert "has 3" in found.message


@pytest.mark.parametrize(
    ("topic", "setting", "value", "level"),
    [
        ("commands", "message.timestamp.type", "CreateTime", "error"),
        ("results", "message.timestamp.type", "CreateTime", "error"),
        ("commands", "cleanup.policy", "compact", "error"),
        ("results", "cleanup.policy", "compact,delete", "error"),
        ("commands", "max.message.bytes", "100000", "error"),
        ("results", "max.message.bytes", "1048588", "error"),
        ("commands", "max.message.bytes", "2000000", "ok"),
        ("commands", "retention.ms", "604800000", "warning"),
        ("commands", "retention.bytes", "1000000000", "warning"),
        ("results", "retention.ms", "86400000", "warning"),
        ("results", "retention.ms", "86399999", "error"),
        ("results", "retention.bytes", "1000000000", "error"),
        ("results", "retention.ms", "-1", "ok"),
        ("results", "unclean.leader.election.enable", "true", "warning"),
    ],
)
async def test_a_setting_is_found(
    connection: Connection, topics: Topics, topic: str, setting: str, value: str, level: str
) -> None:
    settings = topic_settings(topics, 1)
    name = topics.commands if topic == "commands" else topics.results
    settings[name][setting] = value
    for one, its_settings in settings.items():
        await make(connection, one, 1, its_settings)
    findings = await check_topics(connection, topics)
    found = about([one for one in findings if one.subject == name], setting)
    assert (found.level, found.message) == (level, f"{setting}={value}")
    assert f"set {setting}=" in found.fix or level == "ok"
    assert ("waypost topics update" in found.fix) is (level == "error")
    assert {one.level for one in findings if one is not found} == {"ok"}


async def test_the_brokers_memory_of_producers_is_checked(connection: Connection, topics: Topics) -> None:
    findings = await check_topics(connection, topics)
    assert about(findings, "producer.id.expiration.ms").level == "ok"
    assert about(findings, "transactional.id.expiration.ms").level == "ok"
