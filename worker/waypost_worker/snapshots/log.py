"""A snapshot and the database beside the topics as they are now."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition

from waypost.topics import Topics
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.reading import PartitionReader
from waypost_worker.partition.acquire import check_log
from waypost_worker.partition.ports import RefusedError
from waypost_worker.snapshots.errors import SnapshotError
from waypost_worker.snapshots.manifest import Manifest, Part
from waypost_worker.snapshots.overlap import Reach

_AT_ONCE: Final = 8
_A = TypeVar("_A")
_T = TypeVar("_T")


async def check_in_log(connection: Connection, topics: Topics, manifest: Manifest, partitions: int) -> None:
    """SnapshotError unless each partition's position is in the log, behind the very record that was applied last.

    ``partitions`` is the topic's count. UnavailableError if Kafka does not answer.
    """
    if partitions != manifest.partitions:
        raise SnapshotError(
            f"the snapshot {manifest.name!r} is of {manifest.partitions} partitions, the topic "
            f"{topics.commands!r} has {partitions}. Nothing was changed: it belongs to another topic"
        )

    async def check(part: Part) -> None:
        log = KafkaCommandLog(connection, topics.commands, part.partition)
        try:
            await check_log(
                log, part.next_offset, None if part.anchor is None else bytes.fromhex(part.anchor)
            )
        except RefusedError:
            start, end = await log.bounds()
            raise SnapshotError(_why(manifest, part, topics, start, end)) from None
        finally:
            await log.close()

    await _each(check, manifest.parts)


def _why(manifest: Manifest, part: Part, topics: Topics, start: int, end: int) -> str:
    name = f"partition {part.partition} of the snapshot {manifest.name!r}"
    if part.next_offset < start:
        return (
            f"{name} ends before offset {part.next_offset}, and the log begins at {start}: retention removed what "
            "lies between, so the rest can't be applied. Nothing was changed: use a newer snapshot"
        )
    if part.next_offset > end:
        return (
            f"{name} goes up to offset {part.next_offset - 1}, and {topics.commands!r} ends at {end}: it is of "
            "another topic, or the topic was recreated or cut. Nothing was changed"
        )
    return (
        f"{name} ends with another record at offset {part.next_offset - 1} than {topics.commands!r} has there: it is "
        "of another topic, or the topic was recreated. Nothing was changed"
    )


async def reaches(
    connection: Connection,
    topics: Topics,
    partitions: int,
    stored: Mapping[int, Any],
    manifest: Manifest | None,
) -> list[Reach]:
    """Where everything begins and ends, by partition. ``stored`` are the rows of ``sql/oldest_owed.sql``."""
    parts = {part.partition: part for part in manifest.parts} if manifest is not None else {}

    async def reach(partition: int) -> Reach:
        log_start, _ = await _bounds(connection, topics.commands, partition)
        results_start, results_end = await _bounds(connection, topics.results, partition)
        row, part = stored.get(partition), parts.get(partition)
        return Reach(
            partition,
            log_start,
            results_start,
            results_end,
            position=None if row is None else row["next_offset"],
            results_position=None if row is None else row["results_offset"],
            owed=None if row is None else row["owed"],
            snapshot=None if part is None else part.next_offset,
            snapshot_results=None if part is None else part.results_offset,
        )

    return await _each(reach, range(partitions))


async def _bounds(connection: Connection, topic: str, partition: int) -> tuple[int, int]:
    reader = PartitionReader(connection, TopicPartition(topic, partition), "read_uncommitted")
    try:
        return await reader.bounds()
    finally:
        await reader.close()


async def _each(do: Callable[[_A], Awaitable[_T]], items: Iterable[_A]) -> list[_T]:
    """A few at once: each opens connections of its own."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(item: _A) -> _T:
        async with room:
            return await do(item)

    return list(await asyncio.gather(*(one(item) for item in items)))
