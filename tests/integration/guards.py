"""What tests of the protocol's guards do to topics and tables behind an owner's back."""

from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.support.deployment import Deployment

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import ResultRecord


async def admin(here: Deployment, work: Any) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=here.endpoints.bootstrap_servers)
    await client.start()
    try:
        await work(client)
    finally:
        await client.close()


async def trim(here: Deployment, topic: str, before: int) -> None:
    partition = TopicPartition(topic, 0)
    await admin(here, lambda client: client.delete_records({partition: RecordsToDelete(before)}))


def acquired_record(here: Deployment) -> ResultRecord:
    return ResultRecord(None, b"{}", [("ce_type", EventType.ACQUIRED.wire)])


async def append_foreign(here: Deployment, record: ResultRecord, count: int = 1) -> None:
    for _ in range(count):
        await here.producer.send_and_wait(
            here.topics.results, record.value, partition=0, headers=list(record.headers)
        )


_TABLES = ("sessions", "checkpoints", "recent_commands", "partitions", "outbox", "rejected_commands")


async def dump(here: Deployment) -> dict[str, list[Any]]:
    """All rows, as a base backup of this moment would hold them."""
    async with here.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        backup = {}
        for table in _TABLES:
            # What is generated is generated again.
            columns = await connection.fetchval(
                "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute "
                "where attrelid = $1::text::regclass and attnum > 0 and attgenerated = '' and not attisdropped",
                f"waypost.{table}",
            )
            backup[table] = await connection.fetch(f"select {columns} from waypost.{table}")
        return backup


async def restore(here: Deployment, backup: dict[str, list[Any]]) -> None:
    async with here.pool.acquire() as connection, connection.transaction():
        for table, rows in backup.items():
            await connection.execute(f"delete from waypost.{table}")
            if rows:
                await connection.copy_records_to_table(
                    table,
                    schema_name="waypost",
                    columns=list(rows[0].keys()),
                    records=[tuple(row) for row in rows],
                )
