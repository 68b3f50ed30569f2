"""A worker whose clock is wrong takes over from one that stands still just before an append.

Breaks: the first worker freezes between the check of its proof and an append. The clock of the next one is 25 hours
behind, so that a fence dated by it is old enough to be forgotten, which the broker looks for twice a second here; or
two hours ahead, which brokers do not take for a date. Then the first worker wakes up.
Must hold: the fence lasts, for the broker dates the results topic, and so the first worker's append is refused; no
command is answered twice, none is lost, and all goes on within 30 s; the log names the wrong clock.
"""

from collections.abc import Iterator

import pytest
from tests.faults.conftest import OpenScene
from tests.faults.scene import Scene
from tests.support.servers import ServerDirectory, started

from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints

pytestmark = pytest.mark.long
FORGETS_SOON = {"producer.id.expiration.check.interval.ms": "500"}


@pytest.fixture(scope="module")
def forgetful_kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    options = ClusterOptions(properties=FORGETS_SOON)
    with started(EmbeddedKafka(server_directory("forgetful"), options)) as made:
        yield made


@pytest.mark.parametrize("ahead", [-25 * 3600, 2 * 3600], ids=["25 h behind", "2 h ahead"])
async def test_wrong_clock(
    forgetful_kafka: EmbeddedKafka, database: str, open_scene: OpenScene, ahead: int
) -> None:
    stage: Scene
    async with open_scene(Endpoints(forgetful_kafka.bootstrap_servers, database)) as stage:
        await stage.until(lambda: len(stage.load.ledger.entries) == stage.partitions)
        await stage.load.stop()
        # It applies all of a partition at once. Then nothing can end its term before the append is sent.
        first = await stage.worker("--point", "batch-5-before-append", "--how", "stop", request_timeout="60")
        await stage.until(lambda: first.caught)
        heir = await stage.worker("--clock-ahead", str(ahead))
        await stage.all_answered()
        await stage.for_a_while(3)  # the broker looks for producers to forget
        first.thaw()
        await stage.healed()
        await stage.judge()
        assert heir.says("clock_differs")
