"""The check of ``waypost doctor`` that no client's transaction holds back the commands of a partition."""

import asyncio
import time
from typing import Final

from aiokafka import TopicPartition

from waypost.kafka.log_offsets import END, READ_COMMITTED, READ_UNCOMMITTED
from waypost_worker.cli.support.connections import kafka_client
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.list_offsets import offsets_at
from waypost_worker.partition.ports import ReadProgress
from waypost_worker.telemetry.open_transactions import OpenTransactions

# Clients that are well end a transaction sooner. A worker looks as often.
_LOOK_SECONDS: Final = 5.0
_PAUSE: Final = 0.5
_FIX: Final = (
    "find the client with 'kafka-transactions.sh describe-producers', and stop it or terminate its transaction; if "
    "'find-hanging' lists it, end it with 'abort': see docs/runbook.md#waypostopentransaction"
)


async def check_transactions(settings: Settings) -> list[Finding]:
    """Return the partitions that have waited for the same open transaction for 5 seconds.

    Takes that long only if some transaction is open. Returns nothing if the command topic does not exist.
    """
    client, user = kafka_client(settings), object()
    try:
        await client.use(user)
        return await _watch(client, settings.topics.commands)
    finally:
        await client.release(user)


async def _watch(client: ClusterClient, topic: str) -> list[Finding]:
    partitions = await client.partitions_of(topic)
    if not partitions:
        return []
    transactions = OpenTransactions()
    found, began = await _progress(client, topic, partitions), time.monotonic()
    now = began
    while True:
        waits = {number: transactions.look(number, one, now) for number, one in found.items()}
        if not any(one.held_back for one in found.values()):
            return [Finding("ok", "transactions", f"no client's transaction is open on {topic}")]
        if now - began >= _LOOK_SECONDS:
            return _findings(topic, found, waits)
        await asyncio.sleep(_PAUSE)
        found, now = await _progress(client, topic, partitions), time.monotonic()


async def _progress(client: ClusterClient, topic: str, partitions: int) -> dict[int, ReadProgress]:
    """Return where a reader of each partition would be that has read all it may."""
    wanted = {TopicPartition(topic, number): END for number in range(partitions)}
    # In this order: otherwise, what is appended in between would look as if a transaction held it back.
    ends = await offsets_at(client, wanted, READ_UNCOMMITTED)
    stable = await offsets_at(client, wanted, READ_COMMITTED)
    return {each.partition: ReadProgress(stable[each], stable[each], ends[each]) for each in wanted}


def _findings(topic: str, found: dict[int, ReadProgress], waits: dict[int, float]) -> list[Finding]:
    held = [number for number, seconds in waits.items() if seconds >= _LOOK_SECONDS]
    if not held:
        message = f"no client's transaction on {topic} stayed open for {_LOOK_SECONDS:g} s"
        return [Finding("ok", "transactions", message)]
    return [
        Finding(
            "warning",
            f"{topic}/{number}",
            f"a client's transaction at offset {found[number].position} has been open for at least "
            f"{waits[number]:.0f} s, and {found[number].held_back:,} records from there on wait for its end",
            _FIX,
        )
        for number in held
    ]
