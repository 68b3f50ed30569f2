"""Three brokers, restarted or frozen one after the other under load: every partition changes its leader.

Breaks: topics with 3 replicas, min.insync.replicas=2. Each broker in turn is shut down, or killed, and started
again; or it stands still until another one leads its partitions, and wakes up believing that it leads. Each as soon
as the cluster is whole.
Must hold: no acknowledged command is missing; the fence outlives its leader; nothing is lost, doubled or out of
order; all goes on within 30 s after the last broker is back.
"""

import asyncio
from collections.abc import Iterator

import pytest
from tests.faults.conftest import OpenScene
from tests.faults.scene import Scene
from tests.support.servers import started

from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints

BROKER_SESSION = 3  # seconds until a silent broker loses its partitions (broker.session.timeout.ms)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(tmp_path_factory.mktemp("cluster"), ClusterOptions(nodes=3))) as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGSTOP"])
async def test_rolling_restart(
    cluster: EmbeddedKafka, database: str, open_scene: OpenScene, how: str
) -> None:
    stage: Scene
    async with open_scene(Endpoints(cluster.bootstrap_servers, database)) as stage:
        await stage.crew(2)
        for node in cluster.nodes:
            if how == "SIGSTOP":
                node.suspend()
                await stage.for_a_while(2 * BROKER_SESSION)
                node.resume()
                await asyncio.to_thread(cluster.wait_until_ready)
                continue
            if how == "SIGKILL":
                node.kill()
            await asyncio.to_thread(cluster.restart_node, node)
        await stage.healed()
        await stage.judge()
