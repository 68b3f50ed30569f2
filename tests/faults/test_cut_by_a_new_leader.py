"""A broker that lacks acknowledged commands becomes the leader, and its log grows past what it lost.

Breaks: one of the two replicas of the command topic stands still. The other one acknowledges commands alone, which a
worker applies, and is killed. The one that stood still becomes the leader by an unclean election, and a producer with
a backlog fills its log past the worker's position before the worker fetches again.
Must hold: no command of the new leader is skipped; the partition is refused, with words that say what happened; what
was applied before is whole.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError
from tests.faults.conftest import OpenScene
from tests.faults.scene import Scene
from tests.faults.test_topics_changed import admin
from tests.support.servers import started

from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints
from waypost_worker.kafka.topics import topic_settings

pytestmark = pytest.mark.long
THIRD, LEADER, FOLLOWER = 1, 2, 3  # nodes
BACKLOG = 150


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(tmp_path_factory.mktemp("cut"), ClusterOptions(nodes=3))) as made:
        yield made


async def create_topics_anew(stage: Scene) -> None:
    """Replace the scene's topics. Of commands, one of two replicas is enough, and either may lead with whatever it has.

    The third node leads the results.
    """
    topics = stage.topics
    settings = topic_settings(topics, 3)
    settings[topics.commands] |= {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
    replicas = {topics.commands: [LEADER, FOLLOWER], topics.results: [THIRD, LEADER, FOLLOWER]}

    async def replace(client: Any) -> None:
        await client.delete_topics(list(replicas))
        for name, nodes in replicas.items():
            new = NewTopic(name, -1, -1, replica_assignments={0: nodes}, topic_configs=settings[name])
            while (await client.create_topics([new])).topic_errors[0][1]:
                pass

    await admin(stage, replace)


async def publish(stage: Scene, count: int) -> None:
    agents = stage.load.agents[0]
    await stage.load.burst(0, [agents.next(0) for _ in range(count)])


async def fill(stage: Scene) -> bool:
    """Append a backlog as soon as there is a leader; False if there is none yet."""
    with suppress(KafkaError):
        async with AIOKafkaProducer(
            bootstrap_servers=stage.endpoints.bootstrap_servers, request_timeout_ms=2000
        ) as producer:
            sent = [
                await producer.send(stage.topics.commands, b"of the new leader", partition=0)
                for _ in range(BACKLOG)
            ]
            await asyncio.gather(*sent)
            return True
    return False


async def test_cut_by_a_new_leader(cluster: EmbeddedKafka, database: str, open_scene: OpenScene) -> None:
    stage: Scene
    async with open_scene(Endpoints(cluster.bootstrap_servers, database), partitions=1) as stage:
        await stage.load.stop()
        await create_topics_anew(stage)
        stage.load.ledger.entries.clear()
        worker = await stage.worker(request_timeout="20")  # as long as a broker stands still
        await publish(stage, 20)
        await stage.all_answered()
        follower, leader = cluster.nodes[FOLLOWER - 1], cluster.nodes[LEADER - 1]
        follower.suspend()
        # The replica's pending fetch is answered with the first command, which it reads once it resumes.
        for count in (1, 39):
            await publish(stage, count)
            await stage.all_answered()
        commands, applied = await stage.commands(), await stage.applied()
        assert applied == {0: 60}

        leader.kill()
        worker.freeze()
        follower.resume()
        await stage.until(lambda: fill(stage))
        worker.thaw()
        await stage.until(lambda: set(worker.refusals()) == {0})
        assert "recreated" in worker.refusals()[0] or "was truncated" in worker.refusals()[0]
        assert await stage.applied() == applied
        await asyncio.to_thread(cluster.restart_node, leader)
        await stage.judge_refused(commands)
