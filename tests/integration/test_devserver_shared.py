"""What the fixtures promise to every other test."""

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from waypost_worker.devserver import Servers


async def test_kafka_takes_and_gives_back_records(servers: Servers, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.commands"
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=servers.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(topic, b"hello", partition=1)
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers.kafka.bootstrap_servers,
        group_id=topic_prefix,
        auto_offset_reset="earliest",
    ) as consumer:
        record = await consumer.getone()
    assert (record.value, record.partition) == (b"hello", 1)


async def test_a_transactional_producer_can_start_immediately(servers: Servers, topic_prefix: str) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=servers.kafka.bootstrap_servers, transactional_id=f"{topic_prefix}.0"
    ) as producer:
        assert producer._txn_manager.producer_id >= 0


async def test_topics_are_not_created_by_asking_for_them(servers: Servers, topic_prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.describe_topics([topic_prefix])
        assert topic_prefix not in await admin.list_topics()
    finally:
        await admin.close()


async def test_each_test_has_its_own_database(database: str, servers: Servers) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("CREATE TABLE mine (n int)")
        assert await connection.fetchval("SELECT current_database()") != "waypost"
    finally:
        await connection.close()
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        assert await connection.fetchval("SELECT to_regclass('mine')") is None
    finally:
        await connection.close()
