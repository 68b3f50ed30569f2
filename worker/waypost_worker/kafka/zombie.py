"""The zombie test: does this cluster refuse an owner whose epoch is no longer the highest?

Everything rests on that. Apache Kafka does; a compatible broker may not check epochs on plain batches.
"""

import time
from dataclasses import dataclass
from uuid import uuid4

from waypost.topics import Topics
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fenced import FencedProducer, claim_epoch
from waypost_worker.kafka.topics import create_scratch_topic, delete_topic
from waypost_worker.partition.ports import Fence, FencedError, ResultRecord


@dataclass(frozen=True, slots=True)
class Verdict:
    """``fenced`` is whether both zombies were refused; ``seconds`` is how long the test took."""

    fenced: bool
    message: str
    seconds: float


async def zombie_test(connection: Connection, topics: Topics) -> Verdict:
    """Claim, append, claim again, append, and then try to append under the first claim, twice.

    Works on a topic of its own, which it removes. UnavailableError if the cluster does not answer.
    """
    began = time.monotonic()
    name = f"{topics.prefix}.zombie-test.{uuid4().hex[:12]}"
    await create_scratch_topic(connection, name)
    try:
        older = await claim_epoch(connection, name)
        zombie = await _producer(connection, name, older)
        reborn = None
        try:
            await zombie.append([_record("first")])
            owner = await _producer(connection, name, await claim_epoch(connection, name))
            try:
                await owner.append([_record("fence")])
            finally:
                await owner.close()
            reborn = await _producer(connection, name, older)
            passed = [
                who
                for who, producer in (
                    ("the old producer", zombie),
                    ("a new producer with the old epoch", reborn),
                )
                if not await _refused(producer)
            ]
        finally:
            await zombie.close()
            if reborn is not None:
                await reborn.close()
    finally:
        await delete_topic(connection, name)
    seconds = time.monotonic() - began
    if passed:
        return Verdict(
            False,
            f"the cluster let {' and '.join(passed)} append behind a newer epoch: results could be doubled "
            "after a takeover. Do not run workers on it; use Apache Kafka 2.5 or newer",
            seconds,
        )
    return Verdict(True, "the cluster refuses owners with an outdated epoch", seconds)


async def _producer(connection: Connection, topic: str, fence: Fence) -> FencedProducer:
    producer = FencedProducer(connection, topic, 0, fence)
    await producer.start()
    return producer


async def _refused(producer: FencedProducer) -> bool:
    try:
        await producer.append([_record("zombie")])
    except FencedError:
        return True
    return False


def _record(text: str) -> ResultRecord:
    return ResultRecord(None, text.encode(), [])
