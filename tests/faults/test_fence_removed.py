"""The record that fences a former owner is removed from the results topic, and the broker starts again.

Breaks: a worker freezes between the check of its proof and an append, and another one takes over. Then all results are
removed (DeleteRecords, as retention would), the second worker is killed, the broker ends well and starts again, with no
epochs but those of what its log holds; and the first worker wakes up.
Must hold: the second worker has appended its fence again, so the first one's append is refused; no command is answered
twice, none is lost, and all goes on within 30 s.
"""

import asyncio
import signal
from collections.abc import Iterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from tests.faults.conftest import OpenScene
from tests.faults.scene import Scene
from tests.faults.test_topics_changed import admin
from tests.oracle.books import read_all
from tests.support.servers import ServerDirectory, started

from waypost_worker.devserver import EmbeddedKafka, Endpoints

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def restarted_kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(server_directory("restarted"))) as made:
        yield made


async def test_fence_removed(restarted_kafka: EmbeddedKafka, database: str, open_scene: OpenScene) -> None:
    stage: Scene
    async with open_scene(Endpoints(restarted_kafka.bootstrap_servers, database)) as stage:
        await stage.until(lambda: len(stage.load.ledger.entries) == stage.partitions)
        await stage.load.stop()
        # It applies all of a partition at once. Then nothing can end its term before the append is sent.
        first = await stage.worker("--point", "batch-5-before-append", "--how", "stop", request_timeout="60")
        await stage.until(lambda: first.caught)
        heir = await stage.worker("--look-at-fence", "1")
        await stage.all_answered()
        topic = stage.topics.results
        results = await read_all(stage.endpoints, topic)
        ends = {TopicPartition(topic, one): RecordsToDelete(at) for one, at in stage.live.position.items()}
        await admin(stage, lambda client: client.delete_records(ends))
        await stage.for_a_while(3)  # the second worker looks at its fence
        await heir.end(signal.SIGKILL)
        restarted_kafka.terminate()
        await asyncio.to_thread(restarted_kafka.restart)
        first.thaw()
        await stage.healed()
        await stage.judge(results=results)
