"""The topics are not what they were: partitions added, command topic recreated, command log trimmed too far.

Breaks: each under workers that run, with commands published after it.
Must hold: the partitions concerned are refused with a message that says what happened and what to do; what was
applied before is whole, in Postgres and in the results; nothing is applied or emitted that does not follow from it.
"""

import signal
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from tests.faults.scene import Scene

from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics, delete_topic

pytestmark = pytest.mark.long


async def admin(stage: Scene, work: Any) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=stage.endpoints.bootstrap_servers)
    await client.start()
    try:
        await work(client)
    finally:
        await client.close()


async def test_added_partitions(shared: Scene) -> None:
    await shared.crew(1)
    await shared.answered(100)
    topic = shared.topics.commands
    await admin(
        shared, lambda client: client.create_partitions({topic: NewPartitions(shared.partitions + 1)})
    )
    late = await shared.worker()
    # The worker that runs knows the topic as it was; who joins gets partitions of it and sees what it is now.
    await shared.until(lambda: bool(late.refusals()))
    for message in late.refusals().values():
        assert f"has {shared.partitions + 1} partitions, but this database was created for 4" in message
        assert "Nothing was changed" in message
    await shared.judge_refused()


async def test_recreated_topic(shared: Scene) -> None:
    (worker,) = await shared.crew(1)
    await shared.answered(100)
    await shared.load.stop()
    await shared.all_answered()
    await worker.end(signal.SIGKILL)
    commands = await shared.commands()
    connection = Connection(shared.endpoints.bootstrap_servers, request_timeout=5)
    await delete_topic(connection, shared.topics.commands)

    async def made() -> bool:
        return bool(await create_topics(connection, shared.topics, shared.partitions))

    await shared.until(made)
    heir = await shared.worker()
    await shared.until(lambda: set(heir.refusals()) == set(range(shared.partitions)))
    for message in heir.refusals().values():
        assert "recreated" in message
        assert "Nothing was changed" in message
    # The log that was applied is gone from Kafka; the copy made before stands for it.
    await shared.judge_refused(commands)


async def test_log_trimmed_past_the_position(shared: Scene) -> None:
    (worker,) = await shared.crew(1)
    await shared.answered(100)
    assert await worker.end(signal.SIGTERM) == 0
    await shared.until(lambda: shared.load.ledger.count > shared.live.count + 200)
    await shared.load.stop()
    commands = await shared.commands()
    applied = await shared.applied()
    cuts = {p: min(offset + 3, commands[p][-1].offset + 1) for p, offset in applied.items()}
    topic = shared.topics.commands
    await admin(
        shared,
        lambda client: client.delete_records(
            {TopicPartition(topic, p): RecordsToDelete(cut) for p, cut in cuts.items()}
        ),
    )
    heir = await shared.worker()
    await shared.until(lambda: set(heir.refusals()) == set(cuts))
    for message in heir.refusals().values():
        assert "offsets before they were applied" in message
        assert "waypost replay" in message
    assert await shared.applied() == applied
    await shared.judge_refused(commands)


async def test_log_trimmed_up_to_the_position(shared: Scene) -> None:
    await shared.crew(1)
    await shared.answered(100)
    applied = await shared.applied()
    kept = await shared.commands()
    topic = shared.topics.commands
    await admin(
        shared,
        lambda client: client.delete_records(
            {TopicPartition(topic, p): RecordsToDelete(offset) for p, offset in applied.items()}
        ),
    )
    await shared.healed()
    await shared.judge(before=kept)
