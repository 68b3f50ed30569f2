"""The command topic is compacted: of each session only the last command is left.

Breaks: an operator sets ``cleanup.policy=compact``, and the broker's cleaner removes commands, those that are applied
or those that are not; then the policy is corrected, and a worker starts.
Must hold: ``topics check`` names the policy, and ``topics update`` corrects it; no command is passed over; the
partition is refused as compacted, and so are ``replay`` into an empty database and ``verify``; what was applied before
is whole, and nothing else happens.
"""

import asyncio
import signal
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.faults.conftest import OpenScene
from tests.faults.scene import Scene
from tests.faults.test_topics_changed import admin
from tests.simulation.agents import sessions_of
from tests.support.servers import ServerDirectory, started

from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints
from waypost_worker.kafka.topics import topic_settings

pytestmark = pytest.mark.long
QUICK_CLEANER = {"log.cleaner.backoff.ms": "100"}
QUICKLY = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0",
    "max.compaction.lag.ms": "100",
}


@pytest.fixture(scope="module")
def compacting_kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    options = ClusterOptions(properties=QUICK_CLEANER)
    with started(EmbeddedKafka(server_directory("compacting"), options)) as made:
        yield made


async def compact(stage: Scene, last: int) -> None:
    """Let the cleaner remove all commands of the agents' sessions up to the last one, which is at this offset."""
    name = stage.topics.commands
    settings = {**topic_settings(stage.topics, 1)[name], **QUICKLY}
    await admin(
        stage,
        lambda client: client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)]),
    )
    async with AIOKafkaProducer(bootstrap_servers=stage.endpoints.bootstrap_servers) as producer:

        async def removed() -> bool:
            for session_id in sessions_of(0, 1, 6):
                await producer.send_and_wait(name, b"later", session_id.encode(), partition=0)
            left = {record.offset for record in (await stage.commands())[0]}
            return last not in left and len(left) < last

        await stage.until(removed)


@pytest.mark.parametrize("when", ["before they are applied", "after they were applied"])
async def test_compacted(
    compacting_kafka: EmbeddedKafka, database: str, open_scene: OpenScene, when: str
) -> None:
    stage: Scene
    async with open_scene(Endpoints(compacting_kafka.bootstrap_servers, database), partitions=1) as stage:
        await stage.until(lambda: stage.load.ledger.count > 40)
        await stage.load.stop()
        # Other keys than those of sessions come once, and stay.
        await stage.load.send(0, [(sessions_of(0, 1, 6)[0].encode(), b"the last", [])])
        if when == "after they were applied":
            worker = await stage.worker()
            await stage.all_answered()
            assert await worker.end(signal.SIGTERM) == 0
        commands = await stage.commands()
        await compact(stage, commands[0][-1].offset)
        line = stage.command_line()

        async def ends(command: tuple[str, ...], code: int, words: str) -> None:
            outcome = await asyncio.to_thread(line.run, *command)
            assert outcome.code == code, command
            assert words in outcome.out + outcome.err, command

        await ends(("topics", "check", "-o", "json"), 1, "cleanup.policy=compact")
        await ends(("topics", "update", "-o", "json"), 0, "cleanup.policy")  # what was removed stays lost
        heir = await stage.worker()
        await stage.until(lambda: set(heir.refusals()) == {0})
        assert "compacted" in heir.refusals()[0]
        await ends(("replay", "--schema", "rebuilt"), 1, "compacted")
        if when == "after they were applied":
            await ends(("verify",), 2, "compacted")  # nothing could be compared
        await stage.judge_refused(commands)
