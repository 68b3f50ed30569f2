"""What an older version wrote is read as it was meant: the same state by hash, the same results, upgraded in place."""

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.golden.files import HERE, GoldenRecord, formats, read_records
from tests.support.cli import CommandLine
from tests.support.database_state import state_hash
from tests.support.deployment import deployment

from waypost.model.partition_state import PartitionState
from waypost_worker.devserver import Servers
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import ResultRecord
from waypost_worker.partition.tail import essence
from waypost_worker.postgres.migrate import migrations

ACQUIRED = b"waypost.partition.acquired"


def test_there_is_one_for_each_released_format() -> None:
    assert formats() == ["0.1", "0.2", "0.3"]


def by_partition(path: Path) -> dict[int, list[GoldenRecord]]:
    found: dict[int, list[GoldenRecord]] = defaultdict(list)
    for record in read_records(path):
        found[record.partition].append(record)
    return found


@pytest.mark.parametrize("name", formats())
def test_a_log_of_then_gives_the_results_of_then(name: str) -> None:
    commands, results = (by_partition(HERE / name / f"{what}.jsonl") for what in ("commands", "results"))
    for partition, records in commands.items():
        batch = Batch(ResultEncoder(f"golden-{name}.results", partition), {}, PartitionState())
        for record in records:
            batch.add(decode(record, partition, len(commands)))
        made, _ = batch.finish({})
        then = [
            essence(ResultRecord(one.key, one.value or b"", one.headers))
            for one in results[partition]
            if dict(one.headers)["ce_type"] != ACQUIRED
        ]
        assert [essence(record) for _, record in made] == then


@pytest.mark.parametrize("name", formats())
async def test_an_old_database_is_upgraded_in_place_and_stays_in_use(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    folder, prefix = HERE / name, f"golden-{name}"
    then: dict[str, str] = json.loads((folder / "state.json").read_text())
    database = f"golden_{name.replace('.', '_')}"
    dsn = servers.postgres.create_database(database)
    line = CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": dsn,
            "WAYPOST_TOPIC_PREFIX": prefix,
        },
    )

    async def done(*arguments: str) -> Any:
        outcome = await asyncio.to_thread(line.run, *arguments, "-o", "json")
        assert outcome.code == 0, outcome
        return outcome.json

    try:
        await load(servers, folder, prefix)
        connection: Any = await asyncpg.connect(dsn)
        await connection.execute((folder / "database.sql").read_text())
        await connection.close()
        assert await state_hash(dsn) == then

        applied = await done("migrate")
        newest = migrations()[len(migrations()) - len(applied) :]
        assert [row["number"] for row in applied] == [one.number for one in newest]
        assert (await done("verify", "--strict"))["equal"]
        snapshot = ("--at", str(folder / "snapshot"))
        assert (await done("verify", "--of-snapshot", "latest", *snapshot))["equal"]
        assert (await done("verify", "--from-snapshot", "latest", *snapshot))["equal"]
        replayed = await done("replay", "--schema", "side")
        assert {row["owed"] for row in replayed} == {0}
        assert await state_hash(dsn) == await state_hash(dsn, "side") == then

        async with deployment(servers.endpoints, dsn, prefix, len(replayed)) as live:
            before = sum(row["commands"] for row in replayed)
            await live.create("run-1-0", "of today", step=1)
            for partition in range(len(replayed)):
                live.own(partition)
            await live.answered(before + 1)
            expired = await done("expire", "--idle", "0s")
            assert sum(row["removed"] for row in expired) > 10
            assert (await done("erase", "run-1-5", "--yes"))["in_postgres"] == "tombstone"
            assert (await live.balanced()).commands >= before + 1 + len(expired) + 2
            assert (await done("verify", "--strict"))["equal"]
    finally:
        servers.postgres.drop_database(database)


async def load(servers: Servers, folder: Path, prefix: str) -> None:
    """The topics of then, with the broker's times of then."""
    files = {what: by_partition(folder / f"{what}.jsonl") for what in ("commands", "results")}
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics(
        [
            NewTopic(
                f"{prefix}.{what}",
                len(files["commands"]),
                1,
                topic_configs={"message.timestamp.type": "CreateTime", "retention.ms": "-1"},
            )
            for what in files
        ]
    )
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka.bootstrap_servers, enable_idempotence=True)
    await producer.start()
    for what, partitions in files.items():
        for partition, records in partitions.items():
            sent = [
                await producer.send(
                    f"{prefix}.{what}",
                    one.value,
                    key=one.key,
                    headers=one.headers,
                    partition=partition,
                    timestamp_ms=one.timestamp,
                )
                for one in records
            ]
            assert [(await one).offset for one in sent] == [one.offset for one in records]
    await producer.stop()
