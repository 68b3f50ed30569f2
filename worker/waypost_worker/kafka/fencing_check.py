"""The zombie test: does this cluster refuse an owner whose epoch is no longer the highest?

Everything rests on that. Apache Kafka does; a compatible broker may not check epochs on plain batches.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from aiokafka.errors import OutOfOrderSequenceNumber, UnknownProducerId

from waypost.wire.topics import Topics
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fenced_producer import FencedProducer, claim_epoch
from waypost_worker.kafka.topics import create_scratch_topic, delete_topic
from waypost_worker.partition.ports import Fence, FencedError, OwnerError, ResultRecord, UnavailableError

_SEQUENCE_ERRORS: Final = (OutOfOrderSequenceNumber, UnknownProducerId)


@dataclass(frozen=True, slots=True)
class FencingReport:
    """``fenced`` is whether both zombies were refused; ``seconds`` is how long the test took."""

    fenced: bool
    message: str
    seconds: float


async def zombie_test(connection: Connection, topics: Topics) -> FencingReport:
    """Claim, append, claim again, append, and then try to append under the first claim, twice.

    Uses a separate topic, which it removes. Raise UnavailableError if the cluster does not answer, and RefusedError if
    the worker's principal may not do what owners do.
    """
    began = time.monotonic()
    name = f"{topics.prefix}.zombie-test.{uuid4().hex[:12]}"
    await create_scratch_topic(connection, name)
    try:
        passed = await _zombies_that_pass(ClusterClient(connection), name)
    finally:
        left = await _remove(connection, name)
    seconds = time.monotonic() - began
    if passed:
        message = (
            f"the cluster let {' and '.join(passed)} append behind a newer epoch: results could be doubled "
            "after a takeover. Do not run workers on it; use Apache Kafka 2.5 or newer, and see 'waypost doctor' "
            "for how long it remembers producers"
        )
    else:
        message = "the cluster refuses owners with an outdated epoch"
    return FencingReport(not passed, message + left, seconds)


async def _zombies_that_pass(client: ClusterClient, topic: str) -> list[str]:
    older = await claim_epoch(client, topic)
    async with _producer(client, topic, older) as zombie:
        await zombie.append([_record("first")])
        newer = await claim_epoch(client, topic)
        async with _producer(client, topic, newer) as owner:
            await owner.append([_record("fence")])
        async with _producer(client, topic, older) as reborn:
            attempts = {"the old producer": zombie, "a new producer with the old epoch": reborn}
            return [who for who, producer in attempts.items() if not await _refused(producer)]


async def _refused(producer: FencedProducer) -> bool:
    try:
        await producer.append([_record("zombie")])
    except FencedError:
        return True
    except UnavailableError as error:
        if isinstance(error.__cause__, _SEQUENCE_ERRORS):
            return False  # stopped by its sequence number and not by its epoch: another would have passed
        raise
    return False


@asynccontextmanager
async def _producer(client: ClusterClient, topic: str, fence: Fence) -> AsyncIterator[FencedProducer]:
    producer = FencedProducer(client, topic, 0, fence)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.close()


async def _remove(connection: Connection, topic: str) -> str:
    """Details of the verdict."""
    try:
        await delete_topic(connection, topic)
    except OwnerError as error:
        return f". The topic {topic!r} of this test is still there, remove it: {error}"
    return ""


def _record(text: str) -> ResultRecord:
    return ResultRecord(None, text.encode(), [])
