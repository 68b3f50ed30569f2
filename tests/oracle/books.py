"""Balancing the books: the command topic, folded independently, against Postgres and the results topic."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.oracle.fold import Expected, differences, fold

from waypost.model.times import from_micros
from waypost.shards import dsn_list
from waypost_worker.devserver import Endpoints

Records = dict[int, list[Any]]  # by partition
KEPT_REJECTIONS = 8750  # of each partition at least; older ones may have made room


@dataclass
class Books:
    """What balance found. ``lost`` and ``doubled`` count commands without a result, and with more than one;
    ``out_of_order`` counts results behind one of a later command.
    """

    commands: int = 0
    applied: int = 0
    rejected: int = 0
    duplicates: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    rows: int = 0
    numbers: int = 0  # of all checkpoints that there ever were
    row_problems: list[str] = field(default_factory=list)
    result_problems: list[str] = field(default_factory=list)


async def topic_ends(endpoints: Endpoints, topic: str) -> dict[int, int]:
    """End offset by partition."""
    async with _consumer(endpoints) as consumer:
        return {
            tp.partition: end for tp, end in (await consumer.end_offsets(await _all(consumer, topic))).items()
        }


async def read_all(endpoints: Endpoints, topic: str, **options: Any) -> Records:
    """Every record of a topic, by partition, in order. ``options`` are those of the Kafka client."""
    async with _consumer(endpoints, **options) as consumer:
        partitions = await _all(consumer, topic)
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        read: Records = {partition.partition: [] for partition in partitions}
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                read[partition.partition] += records
        return read


async def follow(endpoints: Endpoints, topic: str) -> AsyncIterator[Any]:
    """Yield every record of a topic from the first, each as soon as it can be read. Never ends."""
    # A partition that is not part of the current fetch has to wait until that fetch ends.
    async with _consumer(endpoints, fetch_max_wait_ms=50) as consumer:
        partitions = await _all(consumer, topic)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        async for record in consumer:
            yield record


def _consumer(endpoints: Endpoints, **options: Any) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=endpoints.bootstrap_servers,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
        request_timeout_ms=10_000,  # for each request to a broker that stands still, such as the first one
        **options,
    )


async def _all(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    await consumer._client.add_topic(topic)
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


async def balance(dsn: str, commands: Records, results: Records, seen: Counter[str]) -> Books:
    """Compare everything with everything. ``dsn`` is as in the settings; ``seen`` are the event ids that
    a live subscriber received.
    """
    books = Books()
    expected: dict[int, Expected] = {}
    ids: Counter[str] = Counter()
    for partition, records in commands.items():
        one = expected[partition] = fold(records, partition, len(commands))
        found = []
        answered: Counter[int] = Counter()
        highest = -1
        for record in results[partition]:
            headers = {name: value.decode() for name, value in record.headers}
            if headers["ce_type"] == "waypost.partition.acquired":
                continue
            body = orjson.loads(record.value)
            found.append((headers["ce_type"], body))
            ids[headers["ce_id"]] += 1
            offset = body["command"]["offset"]
            answered[offset] += 1
            books.out_of_order += offset < highest
            highest = max(highest, offset)
        books.commands += len(records)
        books.lost += sum(record.offset not in answered for record in records)
        books.doubled += sum(count - 1 for count in answered.values())
        kinds = Counter(kind for kind, _ in one.results)
        books.rejected += kinds["waypost.command.rejected"]
        books.duplicates += kinds["waypost.command.duplicate"]
        books.result_problems += [f"partition {partition}: {text}" for text in differences(one, found)]
    books.applied = books.commands - books.rejected - books.duplicates
    if seen != ids:
        missed, extra = ids - seen, seen - ids
        books.doubled += sum(extra.values())
        books.result_problems.append(
            f"the live subscriber missed {missed.total()} and repeated {extra.total()}"
        )
    await _compare_rows(dsn, expected, books)
    return books


async def _compare_rows(dsn: str, expected: dict[int, Expected], books: Books) -> None:
    stored: list[Any] = []
    sessions: list[Any] = []
    rejected: list[Any] = []
    shards = dsn_list(dsn)
    for shard, one in enumerate(shards):
        connection: Any = await asyncpg.connect(one)
        try:
            stored += await connection.fetch("select * from waypost.checkpoints")
            here = await connection.fetch(
                "select session_id, counter, checkpoints, partition, erased_at from waypost.sessions"
            )
            rejected += await connection.fetch(
                'select partition, "offset", code from waypost.rejected_commands'
            )
        finally:
            await connection.close()
        books.row_problems += [
            f"session {row['session_id']!r} of partition {row['partition']} is in shard {shard}"
            for row in here
            if row["partition"] % len(shards) != shard
        ]
        sessions += here
    wanted = {key: row for one in expected.values() for key, row in one.rows.items()}
    books.rows = len(stored)
    for row in stored:
        key = (row["session_id"], row["number"])
        want = wanted.pop(key, None)
        if want is None:
            books.row_problems.append(f"{key} is in Postgres and should not be")
            continue
        have = {**row, "metadata": orjson.loads(row["metadata"])}
        for name in ("name", "data", "metadata", "pinned", "imported_id", "command_id", "position"):
            if have[name] != want[name]:
                books.row_problems.append(f"{key}: {name} is {have[name]!r}, should be {want[name]!r}"[:300])
        for name in ("taken_at", "recorded_at"):
            if have[name] != from_micros(want[name]):
                books.row_problems.append(
                    f"{key}: {name} is {have[name]}, should be {from_micros(want[name])}"
                )
    books.row_problems += [f"{key} is missing in Postgres" for key in wanted]
    counters = {
        name: counter for one in expected.values() for name, counter in one.counters.items() if counter
    }
    found = {row["session_id"]: row["counter"] for row in sessions if row["counter"]}
    books.numbers = sum(found.values())
    if counters != found:
        books.row_problems.append(f"session counters differ: {sorted(counters.items() ^ found.items())[:5]}")
    erased = {row["session_id"]: row["erased_at"] for row in sessions if row["erased_at"] is not None}
    wanted_erased = {name: from_micros(at) for one in expected.values() for name, at in one.erased_at.items()}
    if erased != wanted_erased:
        differing = sorted(name for name, _ in erased.items() ^ wanted_erased.items())
        books.row_problems.append(f"tombstones differ: {differing[:5]}")
    kept = {(row["partition"], row["offset"], row["code"]) for row in rejected}
    refused = {
        (partition, *one)
        for partition, fold in expected.items()
        for one in fold.rejected
        if one[0] not in fold.erased
    }
    missing = refused - kept
    for partition in {one[0] for one in missing}:
        here = sorted(offset for where, offset, _ in kept if where == partition)
        if len(here) > KEPT_REJECTIONS:
            missing -= {one for one in missing if one[0] == partition and one[1] < here[0]}
    if wrong := missing | (kept - refused):
        books.row_problems.append(f"kept rejections differ: {sorted(wrong)[:5]}")
