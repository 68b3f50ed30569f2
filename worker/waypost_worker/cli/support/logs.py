"""Logs and stores on the real Kafka and Postgres, shared by replay and verify."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from waypost_worker.cli.support.connections import kafka_client, topic_partitions
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.kafka.client import ClusterClient
    from waypost_worker.kafka.command_log import KafkaCommandLog

_T = TypeVar("_T")
# The end of a log is often markers of transactions and aborted records; more of them than this are not looked through.
_LOOKED_THROUGH: Final = 10_000


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run work that folds millions of commands."""
    # As in a worker: reference counts free the objects of a batch, and sessions in memory live long.
    gc.freeze()
    gc.set_threshold(500_000, 10, 20)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def command_partitions(settings: Settings, *, needs_results: bool = True) -> int:
    """Return the command topic's partition count. Raise CommandError unless both topics exist and belong together."""
    present = await topic_partitions(settings)
    names = [settings.topics.commands, *([settings.topics.results] if needs_results else [])]
    for name in names:
        if name not in present:
            raise CommandError(
                f"the topic {name!r} does not exist on {settings.bootstrap_servers}; nothing was changed; "
                "see --topic-prefix"
            )
    if len({present[name] for name in names}) > 1:
        raise CommandError(
            f"{names[0]!r} has {present[names[0]]} partitions and {names[1]!r} {present[names[1]]}: they do "
            "not belong to one deployment. Nothing was changed; see --topic-prefix"
        )
    return present[settings.topics.commands]


def log_maker(
    settings: Settings, partition: int, client: "ClusterClient | None" = None
) -> "Callable[[], KafkaCommandLog]":
    """Return what makes logs of one partition of the command topic."""
    from waypost_worker.kafka.command_log import KafkaCommandLog

    shared = client or kafka_client(settings)
    return lambda: KafkaCommandLog(shared, settings.topics.commands, partition)


@asynccontextmanager
async def command_logs(
    settings: Settings, partitions: int, client: "ClusterClient | None" = None
) -> "AsyncIterator[dict[int, KafkaCommandLog]]":
    """Yield a log of each partition. They share the connections of ``client``, or have their own."""
    shared = client or kafka_client(settings)
    logs = {partition: log_maker(settings, partition, shared)() for partition in range(partitions)}
    try:
        yield logs
    finally:
        await asyncio.gather(*(log.close() for log in logs.values()))


async def oldest_record_at(log: "KafkaCommandLog") -> datetime | None:
    """Return when the oldest record that a log still has was recorded; None if it is empty."""
    start, end = await log.bounds()
    step = 1  # the first offsets may be those of transaction markers
    while start < end:
        if records := await log.read(start, min(start + step, end)):
            return datetime.fromtimestamp(records[0].timestamp / 1000, UTC)
        start, step = start + step, min(10 * step, _LOOKED_THROUGH)
    return None


async def waiting_in(log: "KafkaCommandLog", first: int, end: int) -> int:
    """Return how many commands a log has from ``first`` up to, and without, ``end``."""
    waiting = max(0, end - first)
    return len(await log.read(first, end)) if 0 < waiting <= _LOOKED_THROUGH else waiting
