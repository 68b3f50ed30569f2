"""One member of a group can't continue, and the others do: commits and appends of several partitions go together.

Breaks: one worker owns eight partitions under load. In the middle of a group, one of its members is
- fenced in Postgres: another process raises its epoch while the statement for the group waits for its row;
- fenced in Kafka: another process takes it over between the commit of the group and the append of its results;
- unavailable: its row is held by another transaction, or one of the two replicas of its results is killed or stands
  still, while all partitions have the same leader;
- too slow: a commit of this partition takes longer than a time limit allows.
Must hold: the others continue during the fault, and the affected one within 30 s after it is over. The others' terms do
not end, unless the worker itself gave up waiting for the group: it can't know then what took effect, and acquires its
members again, once. Nothing is lost, doubled or out of order.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.faults.conftest import OpenScene
from tests.faults.groups import Others, rows_of
from tests.faults.processes import WorkerProcess
from tests.faults.scene import Scene
from tests.oracle.books import read_all
from tests.support.deployment import deployment
from tests.support.servers import started

from waypost import Topics
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints, Servers
from waypost_worker.kafka.topics import topic_settings

PARTITIONS = 8
BUSY = {"partitions": PARTITIONS, "per_second": 240}
MEMBER = 5
LEADER, REPLICA, LOST = 1, 2, 3  # nodes


@pytest.fixture
async def busy(servers: Servers, database: str, open_scene: OpenScene) -> AsyncIterator[Scene]:
    """Eight partitions and enough load that a worker commits their batches in groups."""
    async with open_scene(Endpoints(servers.endpoints.bootstrap_servers, database), **BUSY) as made:
        yield made


def others(stage: Scene) -> Others:
    return Others(stage, [one for one in range(PARTITIONS) if one != MEMBER])


def fenced(worker: WorkerProcess) -> list[int]:
    return [event["partition"] for event in worker.events("partition_fenced")]


def ended(worker: WorkerProcess, reason: str) -> list[int]:
    """The partitions whose terms ended for this reason."""
    return [event["partition"] for event in worker.events("term_ended") if reason in event["reason"]]


async def more_than(count: int, stage: Scene, found: Callable[[], list[int]]) -> None:
    await stage.until(lambda: len(found()) > count)


async def test_fenced_in_postgres(busy: Scene) -> None:
    (worker,) = await busy.crew(1)
    rest = others(busy)
    async with rows_of(busy) as rows:
        for times in range(3):
            async with rows.taken_over(MEMBER):
                pass
            await more_than(times, busy, lambda: fenced(worker))
            await busy.healed()
    assert fenced(worker) == 3 * [MEMBER]
    assert rest.began_anew() == []
    await busy.judge()


@pytest.mark.long
async def test_fenced_in_kafka(busy: Scene) -> None:
    # Each partition is applied at once: nothing but the append can end a term.
    await busy.until(lambda: len(busy.load.ledger.entries) == PARTITIONS)
    await busy.load.stop()
    worker = await busy.worker(
        *("--point", "batch-4-group-committed", "--how", "stop"), session_timeout="30", request_timeout="60"
    )
    await busy.until(lambda: worker.caught)
    applied, results = await busy.applied(), await read_all(busy.endpoints, busy.topics.results)
    ends = {one: records[-1].offset for one, records in results.items() if records}
    await busy.until(lambda: all(busy.live.position[one] > end for one, end in ends.items()))
    waiting = [one for one, offset in applied.items() if offset - 1 > busy.live.answered[one]]
    assert len(waiting) > 1, "there is no group whose results are not appended"
    member = waiting[-1]
    rest = Others(busy, [one for one in ends if one != member])
    endpoints, prefix = busy.endpoints, busy.topics.prefix
    async with deployment(endpoints, endpoints.postgres_dsn, prefix, PARTITIONS) as elsewhere:
        elsewhere.own(member)
        await busy.until(lambda: busy.live.answered[member] >= applied[member] - 1)
    worker.thaw()
    await more_than(0, busy, lambda: fenced(worker))
    await busy.healed()
    assert fenced(worker) == [member]
    assert "in Kafka" in worker.events("partition_fenced")[0]["reason"]
    assert rest.began_anew() == []
    await busy.judge()


@pytest.mark.parametrize("limit", ["lock_timeout", pytest.param("request_timeout", marks=pytest.mark.long)])
async def test_row_held_for_longer_than(busy: Scene, limit: str) -> None:
    if limit == "lock_timeout":
        busy.worker_dsn += "?lock_timeout=500"
    (worker,) = await busy.crew(1)
    rest = others(busy)
    async with rows_of(busy) as rows, rows.held(MEMBER):
        await rest.continue_while_it_waits(MEMBER)
    await busy.healed()
    _check_terms(rest, worker, limit)
    await busy.judge()


@pytest.mark.long
@pytest.mark.parametrize("limit", ["statement_timeout", "request_timeout"])
async def test_slower_than(busy: Scene, limit: str) -> None:
    if limit == "statement_timeout":
        busy.worker_dsn += "?statement_timeout=1000"
    worker = await busy.worker("--refused-wait", "1", request_timeout="2")
    await busy.until(lambda: all(busy.live.terms[one] for one in range(PARTITIONS)))
    rest = others(busy)
    async with rows_of(busy) as rows:
        async with rows.held(MEMBER):
            await rows.slow_down(MEMBER, 60)
        await busy.until(rows.group_sleeps)
        await busy.until(rows.single_sleeps)
        await rest.continue_while_it_waits(MEMBER)
        await busy.until(lambda: set(worker.refusals()) == {MEMBER})
        await rest.continue_while_it_waits(MEMBER)
        assert await rows.slow_groups() == 1, "it held groups up again after it failed in one"
        await rows.as_fast_as_before()
    assert limit in worker.refusals()[MEMBER].lower()
    await busy.healed()
    _check_terms(rest, worker, limit)
    await busy.judge()


def _check_terms(rest: Others, worker: WorkerProcess, limit: str) -> None:
    """The others were acquired again only if the worker itself gave up waiting for their group, and then once."""
    together = [one for one in ended(worker, "for a group of partitions") if one != MEMBER]
    assert bool(together) is (limit == "request_timeout")
    assert sorted(rest.began_anew()) == sorted(set(together))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(tmp_path_factory.mktemp("members"), ClusterOptions(nodes=3))) as made:
        yield made


async def create_topics(cluster: EmbeddedKafka, topics: Topics) -> None:
    """Let one broker lead everything, and only the member's results have a replica on the broker that is lost."""
    client = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    await client.start()
    try:
        for name, settings in topic_settings(topics, replicas=3).items():
            nodes = {one: [LEADER, REPLICA] for one in range(PARTITIONS)}
            if name == topics.results:
                nodes[MEMBER] = [LEADER, LOST]
            new = NewTopic(name, -1, -1, replica_assignments=nodes, topic_configs=settings)
            created: Any = await client.create_topics([new])
            assert created.topic_errors[0][1] == 0
    finally:
        await client.close()


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_replica_of_its_results_is(
    cluster: EmbeddedKafka, database: str, topic_prefix: str, open_scene: OpenScene, how: str
) -> None:
    await create_topics(cluster, Topics(topic_prefix))
    stage: Scene
    async with open_scene(Endpoints(cluster.bootstrap_servers, database), **BUSY) as stage:
        # The cluster may have to find another coordinator for the workers' group.
        (worker,) = await stage.crew(1, session_timeout="60")
        rest, node = others(stage), cluster.nodes[LOST - 1]

        def refused() -> list[int]:
            return ended(worker, "NotEnoughReplicas")

        for _ in range(2):
            before = len(refused())
            if how == "killed":
                node.kill()
            else:
                node.suspend()
            await more_than(before, stage, refused)
            await rest.continue_while_it_waits(MEMBER)
            if how == "killed":
                await asyncio.to_thread(cluster.restart_node, node)
            else:
                node.resume()
                await asyncio.to_thread(cluster.wait_until_ready)
            await stage.healed()
        assert {event["partition"] for event in worker.events("term_ended")} == {MEMBER}
        assert rest.began_anew() == []
        await stage.judge()
