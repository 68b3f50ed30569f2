"""The zombie test: it passes where old owners are fenced, and fails where the cluster forgets them."""

from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.support.servers import unavailable

from waypost.wire.topics import Topics
from waypost_worker.devserver import ClusterOptions, DevServerError, EmbeddedKafka, Servers
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fencing_check import zombie_test
from waypost_worker.kafka.topics import check_topics
from waypost_worker.partition.ports import UnavailableError


async def topics_of(connection: Connection, prefix: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
    await admin.start()
    try:
        return [name for name in await admin.list_topics() if name.startswith(prefix)]
    finally:
        await admin.close()


async def test_kafka_refuses_zombies_and_the_test_cleans_up(servers: Servers, topic_prefix: str) -> None:
    connection = Connection(servers.kafka.bootstrap_servers)
    verdict = await zombie_test(connection, Topics(topic_prefix))
    assert verdict.fenced, verdict.message
    assert 0 < verdict.seconds < 60
    assert await topics_of(connection, topic_prefix) == []


@pytest.mark.servers
async def test_a_cluster_that_forgets_epochs_is_found_out(tmp_path: Path) -> None:
    # A stand-in for a broker without the check: this one forgets the owner's epoch as soon as it was used.
    forgetful = {
        "producer.id.expiration.ms": "1",
        "producer.id.expiration.check.interval.ms": "1",
        "transactional.id.expiration.ms": "3600000",
    }
    try:
        kafka = EmbeddedKafka(tmp_path, ClusterOptions(properties=forgetful))
        kafka.start()
    except DevServerError as error:
        unavailable(str(error))
    try:
        connection = Connection(kafka.bootstrap_servers)
        topics = Topics("forgotten")
        verdict = await zombie_test(connection, topics)
        assert not verdict.fenced
        assert "the old producer and a new producer with the old epoch" in verdict.message
        assert await topics_of(connection, "forgotten") == []
        errors = {found.message.partition("=")[0] for found in await check_topics(connection, topics)}
        assert {"producer.id.expiration.ms", "transactional.id.expiration.ms"} <= errors
    finally:
        kafka.stop()


async def test_without_a_cluster_there_is_no_verdict(topic_prefix: str) -> None:
    with pytest.raises(UnavailableError):
        await zombie_test(Connection("127.0.0.1:1", request_timeout=0.5), Topics(topic_prefix))
