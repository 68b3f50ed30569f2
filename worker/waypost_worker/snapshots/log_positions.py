"""Compare a snapshot and the database with the topics as they are now."""

import asyncio
from collections.abc import Mapping
from typing import Any

from waypost.wire.topics import Topics
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.partition_reader import topic_bounds
from waypost_worker.partition.acquire import check_log
from waypost_worker.partition.ports import RefusedError
from waypost_worker.snapshots.coverage import Coverage
from waypost_worker.snapshots.manifest import Manifest, Part
from waypost_worker.snapshots.storage import SnapshotError


async def check_in_log(client: ClusterClient, topics: Topics, manifest: Manifest, partitions: int) -> None:
    """Raise SnapshotError unless each partition's position is in the log, after exactly the record that was applied
    last.

    ``partitions`` is the topic's count. UnavailableError if Kafka does not answer.
    """
    if partitions != manifest.partitions:
        raise SnapshotError(
            f"the snapshot {manifest.name!r} is of {manifest.partitions} partitions, the topic "
            f"{topics.commands!r} has {partitions}. Nothing was changed: it belongs to another topic"
        )

    async def check(part: Part) -> None:
        log = KafkaCommandLog(client, topics.commands, part.partition)
        try:
            await check_log(
                log, part.next_offset, None if part.anchor is None else bytes.fromhex(part.anchor)
            )
        except RefusedError:
            start, end = await log.bounds()
            raise SnapshotError(_why(manifest, part, topics, start, end)) from None
        finally:
            await log.close()

    await asyncio.gather(*map(check, manifest.parts))


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
            "another topic, or the topic was recreated or truncated. Nothing was changed"
        )
    return (
        f"{name} ends with another record at offset {part.next_offset - 1} than {topics.commands!r} has there: it is "
        "of another topic, or the topic was recreated. Nothing was changed"
    )


async def reaches(
    client: ClusterClient,
    topics: Topics,
    partitions: int,
    stored: Mapping[int, Any],
    manifest: Manifest | None,
) -> list[Coverage]:
    """Return where everything begins and ends, by partition. ``stored`` are the rows of ``sql/oldest_owed.sql``."""
    parts = {part.partition: part for part in manifest.parts} if manifest is not None else {}
    commands = await topic_bounds(client, topics.commands, partitions)
    results = await topic_bounds(client, topics.results, partitions)

    def reach(partition: int) -> Coverage:
        row, part = stored.get(partition), parts.get(partition)
        return Coverage(
            partition,
            log_start=commands[partition][0],
            results_start=results[partition][0],
            results_end=results[partition][1],
            position=None if row is None else row["next_offset"],
            results_position=None if row is None else row["results_offset"],
            owed=None if row is None else row["owed"],
            snapshot=None if part is None else part.next_offset,
            snapshot_results=None if part is None else part.results_offset,
        )

    return [reach(partition) for partition in range(partitions)]
