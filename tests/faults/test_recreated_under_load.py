"""The command topic is deleted and created again under a running worker, and at once holds more than it held before.

Breaks: a producer with a backlog fills the new topic past every old position. Meanwhile the worker fetches, also from
brokers that have no topic ids, or stands still for a moment and sees nothing of it; or the new topic has another
partition count.
Must hold: no command of the new topic is skipped or applied; every partition is refused, with words that say what
happened; ``topics drained`` and ``doctor`` report it; what was applied before is whole.
"""

import asyncio
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError
from tests.faults.scene import Scene
from tests.faults.test_topics_changed import admin

from waypost_worker.kafka.topics import topic_settings

pytestmark = pytest.mark.long
BACKLOG = 150


async def replace_commands(stage: Scene, partitions: int) -> None:
    """Delete the command topic, and create it again at once, with a backlog in each partition."""
    name = stage.topics.commands
    new = NewTopic(name, partitions, 1, topic_configs=topic_settings(stage.topics, 1)[name])
    await admin(stage, lambda client: client.delete_topics([name]))

    async def created() -> bool:
        codes: list[int] = []

        async def create(client: object) -> None:
            answer = await client.create_topics([new])  # type: ignore[attr-defined]
            codes.append(answer.topic_errors[0][1])

        await admin(stage, create)
        return codes == [0]

    await stage.until(created)
    await stage.until(lambda: filled(stage, min(partitions, stage.partitions)))


async def filled(stage: Scene, partitions: int) -> bool:
    with suppress(KafkaError):  # until all brokers have heard of the new topic
        async with AIOKafkaProducer(bootstrap_servers=stage.endpoints.bootstrap_servers) as producer:
            sent = [
                await producer.send(stage.topics.commands, b"of the new topic", partition=partition)
                for _ in range(BACKLOG)
                for partition in range(partitions)
            ]
            await asyncio.gather(*sent)
            return True
    return False


FETCHING = ("worker fetching", "no topic ids")


@pytest.mark.parametrize("how", [*FETCHING, "worker standing still", "another partition count"])
async def test_recreated_under_load(shared: Scene, how: str) -> None:
    worker = await shared.worker(*(["--no-topic-ids"] if how == "no topic ids" else []))
    await shared.answered(100)
    await shared.load.stop()
    await shared.all_answered()
    commands, applied = await shared.commands(), await shared.applied()
    assert max(applied.values()) < BACKLOG, "the new topic would not reach the old positions"
    if how not in FETCHING:
        worker.freeze()
    await replace_commands(shared, shared.partitions + (how == "another partition count"))
    if how not in FETCHING:
        worker.thaw()
    await shared.until(lambda: set(worker.refusals()) == set(applied))
    if how == "worker standing still":  # nothing but the topic's id tells it
        assert "was deleted and created again" in worker.log.read_text()
    assert await shared.applied() == applied

    command_line = shared.command_line()
    words = "has 5" if how == "another partition count" else "recreated"
    for command in (("topics", "drained"), ("doctor", "-o", "json")):
        outcome = await asyncio.to_thread(command_line.run, *command)
        assert outcome.code == 1
        assert words in outcome.out + outcome.err
    await shared.judge_refused(commands)
