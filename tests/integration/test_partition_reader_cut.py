"""A reader of a real broker is told that the log was cut: its position lies behind what that leader wrote."""

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import Servers
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.kafka.topics import create_scratch_topic
from waypost_worker.partition.ports import RefusedError


async def test_a_position_behind_the_end_of_its_leader_is_refused_as_cut(
    servers: Servers, topic_prefix: str
) -> None:
    connection = Connection(servers.kafka.bootstrap_servers)
    await create_scratch_topic(connection, topic_prefix)
    async with AIOKafkaProducer(**connection.options()) as producer:
        for number in range(3):
            await producer.send_and_wait(topic_prefix, b"%d" % number)
    reader = PartitionReader(ClusterClient(connection), TopicPartition(topic_prefix, 0), "read_committed")
    try:
        await reader.seek(3, last_epoch=0)
        assert await reader.get(10, 10) == []
        await reader.seek(5, last_epoch=0)
        with pytest.raises(
            RefusedError, match=r"was truncated at offset 3 .* and 5 is the next offset to read"
        ):
            await reader.get(int(PATIENCE * 1000), 10)
    finally:
        await reader.close()
