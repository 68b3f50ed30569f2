"""The limit: the least work between the two topics and Postgres, in a separate process.

getmany, orjson.loads, COPY and one row's update in one transaction, append of the results. No validation, no
sessions, no retention, no outbox, no fence, no headers on the results, and nothing that would make a command
count once. One consumer and one producer, one task and one connection for each partition, uvloop.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.tools.bench.children import run_child, say, word

from waypost import Topics

_REQUEST_BYTES: Final = 16 * 1024 * 1024
COLUMNS: Final = (
    "session_id",
    "number",
    "name",
    "taken_at",
    "recorded_at",
    "data",
    "metadata",
    "pinned",
    "command_id",
)
TABLES: Final = """
create table checkpoints (
    session_id  text        not null,
    number      bigint      not null,
    name        text        not null,
    taken_at    timestamptz not null,
    recorded_at timestamptz not null,
    data        bytea       not null,
    metadata    jsonb       not null,
    pinned      boolean     not null,
    command_id  text,
    primary key (session_id, number)
);
create table partitions (partition integer primary key, next_offset bigint not null) with (fillfactor = 50);
"""
_START: Final = "insert into partitions values ($1, 0)"
_ADVANCE: Final = "update partitions set next_offset = $2 where partition = $1"


async def loop(consumer: Any, producer: Any, connection: Any, topics: Topics, lane: int, batch: int) -> None:
    """Process one partition indefinitely."""
    partition = TopicPartition(topics.commands, lane)
    while True:
        found = await consumer.getmany(partition, timeout_ms=1000, max_records=batch)
        records = found.get(partition)
        if not records:
            continue
        rows = []
        results = producer.create_batch()
        for record in records:
            command = orjson.loads(record.value)
            session_id, name, data = record.key.decode(), command["name"], orjson.dumps(command["data"])
            at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
            command_id = record.headers[1][1].decode()
            rows.append((session_id, record.offset, name, at, at, data, "{}", False, command_id))
            result = {
                "session_id": session_id,
                "checkpoint": {
                    "id": f"{session_id}:{record.offset}",
                    "name": name,
                    "timestamp": at,
                    "recorded_at": at,
                    "data": orjson.Fragment(data),
                    "metadata": {},
                    "pinned": False,
                },
                "removed": [],
                "command": {"id": command_id, "partition": lane, "offset": record.offset},
            }
            results.append(timestamp=None, key=record.key, value=orjson.dumps(result))
        async with connection.transaction():
            await connection.copy_records_to_table("checkpoints", columns=COLUMNS, records=rows)
            await connection.execute(_ADVANCE, lane, records[-1].offset + 1)
        results.close()
        await (await producer.send_batch(results, topics.results, partition=lane))


async def main(job: dict[str, Any]) -> None:
    """Work until the parent says a word."""
    topics = Topics(job["prefix"])
    lanes = range(job["partitions"])
    connections: list[Any] = [await asyncpg.connect(job["dsn"]) for _ in lanes]
    await connections[0].execute(TABLES)
    for lane in lanes:
        await connections[0].execute(_START, lane)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job["bootstrap"],
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=job["bootstrap"],
        enable_idempotence=True,
        max_batch_size=_REQUEST_BYTES,
        max_request_size=_REQUEST_BYTES + 65_536,
    )
    await asyncio.gather(consumer.start(), producer.start())
    consumer.assign([TopicPartition(topics.commands, lane) for lane in lanes])
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(loop(consumer, producer, connections[lane], topics, lane, job["batch"]))
        for lane in lanes
    ]
    stop = asyncio.create_task(word())
    say(state="ready")
    done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            await task
    with suppress(Exception):
        await asyncio.gather(consumer.stop(), producer.stop())
    for connection in connections:
        connection.terminate()


if __name__ == "__main__":
    run_child(main)
