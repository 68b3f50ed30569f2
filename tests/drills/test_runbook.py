"""What docs/runbook.md says to do when an alert fires: the fault is provoked, the alert seen, the commands of the page
typed, and the alert seen to end. Faults of Postgres are in test_runbook_postgres.py, alerts on what is slow in
tests/integration/test_alerts.py.
"""

import ast
import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from tests.drills.runbook import blocks, calm, here, raised, walking
from tests.integration.test_kafka_acls import grant
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.support.deployment import Deployment, deployment
from tests.support.prometheus import firing
from tests.support.secure_kafka import SecureKafka
from tests.support.servers import unavailable
from tests.support.timeouts import PATIENCE

from waypost import Topics, __version__
from waypost_worker.devserver import ClusterOptions, DevServerError, EmbeddedKafka, Endpoints
from waypost_worker.kafka.acls import least_acls
from waypost_worker.kafka.topics import create_topics, delete_topic

__all__ = ["here"]

HERE = Path(__file__)
WALKED_IN = (
    HERE,
    HERE.with_name("test_runbook_failing.py"),
    HERE.with_name("test_runbook_postgres.py"),
    HERE.parents[1] / "integration" / "test_alerts.py",
)


def test_every_command_of_the_runbook_is_walked_through() -> None:
    walked = set()
    for file in WALKED_IN:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "walking":
                section, *numbers = (one.value for one in node.args[2:] if isinstance(one, ast.Constant))
                walked |= {(section, number) for number in numbers}
    assert walked == set(blocks())


async def applied(here: Deployment, count: int = 20) -> None:
    """Commands that owners in this process applied and answered before they stopped."""
    owners = [here.own(partition) for partition in range(here.partitions)]
    await publish(here, count)
    await here.answered(count)
    for owner in owners:
        await owner.stop()


async def stopped(worker: Watched, partitions: int) -> None:
    """Wait until it refuses so many partitions, and has told Prometheus."""
    await worker.shows(
        lambda found: (
            found["waypost_refused_partitions",] == found["waypost_assigned_partitions",] == partitions
        )
    )


async def with_admin(here: Deployment, work: Any) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=here.endpoints.bootstrap_servers)
    await admin.start()
    try:
        await work(admin)
    finally:
        await admin.close()


async def test_rejected_commands_raise_their_alert_and_nothing_else_does(
    here: Deployment, tmp_path: Path
) -> None:
    worker = Watched(here, tmp_path / "log")
    walk = walking(here, tmp_path, "WaypostRejections", 0, worker=worker)
    await worker.start()
    await worker.answers("/readyz", ok)
    first = await worker.samples()
    await publish(here, 100)
    await here.answered(100)
    await worker.shows(lambda found: found.get(("waypost_lag_commands", "0")) == 0)
    second = await worker.samples()
    assert await asyncio.to_thread(firing, tmp_path, (first, second)) == set()
    await publish(here, 20)
    for _ in range(20):
        await here.send(b"not JSON", b"session-1")
    await here.answered(140)
    third = await worker.samples()
    assert await asyncio.to_thread(firing, tmp_path, (second, third)) == {"WaypostRejections"}
    listed = [json.loads(line) for line in (await walk.step()).splitlines()]
    assert {row["code"] for row in listed} == {"invalid-body"}
    await walk.rest()
    assert await here.pool.fetchval("select count(*) from waypost.rejected_commands") == 0
    await calm(here, tmp_path, worker)


async def test_a_recreated_topic_stops_its_partitions_until_the_settings_are_right(
    here: Deployment, tmp_path: Path, topic_prefix: str
) -> None:
    await applied(here)
    for topic in (here.topics.commands, here.topics.results):
        await delete_topic(here.connection, topic)
    await create_topics(here.connection, here.topics, here.partitions)
    worker = Watched(here, tmp_path / "log")
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 0, worker=worker)
    await worker.start()
    await stopped(worker, 2)
    assert await raised(tmp_path, worker) == {"WaypostPartitionRefused"}
    assert "recreated" in await walk.step()
    assert topic_prefix in await walk.step()
    assert await worker.end(signal.SIGTERM) == 0
    # This prefix was another deployment's. The right one has a database of its own, which is what the settings say now.
    here.topics = Topics(f"{topic_prefix}-right")
    await create_topics(here.connection, here.topics, here.partitions)
    await here.pool.execute(
        "truncate waypost.partitions, waypost.sessions, waypost.checkpoints, waypost.recent_commands"
    )
    right = await Watched(here, tmp_path / "right").start()
    await right.answers("/readyz", ok)
    await publish(here, 20)
    await calm(here, tmp_path, right)


@pytest.mark.long
async def test_retention_of_the_command_topic_is_taken_away(here: Deployment, tmp_path: Path) -> None:
    topic = ConfigResource(ConfigResourceType.TOPIC, here.topics.commands, {"retention.ms": "60000"})
    await with_admin(here, lambda admin: admin.alter_configs([topic]))
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 1)
    await walk.rest()
    seen: list[Any] = []

    async def look(admin: AIOKafkaAdminClient) -> None:
        asked = ConfigResource(ConfigResourceType.TOPIC, here.topics.commands)
        seen.extend((await admin.describe_configs([asked]))[0].resources[0][4])

    await with_admin(here, look)
    assert {entry[0]: entry[1] for entry in seen}["retention.ms"] == "-1"


@pytest.mark.long
async def test_trimmed_results_are_accepted_once(here: Deployment, tmp_path: Path) -> None:
    await applied(here)
    ends = {partition: len(records) for partition, records in (await here.results()).items()}
    await here.pool.execute("update waypost.partitions set results_offset = 0, emitted = -1")
    trimmed = {
        TopicPartition(here.topics.results, partition): RecordsToDelete(end)
        for partition, end in ends.items()
    }
    await with_admin(here, lambda admin: admin.delete_records(trimmed))
    worker = Watched(here, tmp_path / "log")
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 2, worker=worker)
    await worker.start()
    await stopped(worker, 2)
    assert await raised(tmp_path, worker) == {"WaypostPartitionRefused"}
    assert await worker.end(signal.SIGTERM) == 0
    await walk.rest()
    assert walk.worker is not None
    await walk.worker.answers("/readyz", ok)
    await calm(here, tmp_path, walk.worker)
    assert await walk.worker.end(signal.SIGTERM) == 0
    usual = await Watched(here, tmp_path / "usual").start()
    await usual.answers("/readyz", ok)


@pytest.mark.long
async def test_records_of_another_writer_are_accepted(here: Deployment, tmp_path: Path) -> None:
    await applied(here)
    sent = await here.producer.send_and_wait(here.topics.results, b"of somebody else", partition=1)
    worker = Watched(here, tmp_path / "log")
    place = {"2/1841": f"1/{sent.offset}"}
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 5, worker=worker, values=place)
    await worker.start()
    await worker.shows(lambda found: found["waypost_refused_partitions",] == 1)
    assert await raised(tmp_path, worker) == {"WaypostPartitionRefused"}
    for step in ("results foreign", "--dry-run", "--yes"):
        assert step in walk.lines[0]
        assert place["2/1841"] in await walk.step()
    await worker.answers("/readyz", ok)
    await publish(here, 20)
    await here.balanced({(1, sent.offset)})
    assert await worker.end(signal.SIGTERM) == 0


@pytest.mark.long
async def test_added_partitions_are_left_for_topics_of_the_old_count(
    here: Deployment, tmp_path: Path, topic_prefix: str
) -> None:
    await applied(here)
    topic = here.topics.commands
    await with_admin(here, lambda admin: admin.create_partitions({topic: NewPartitions(3)}))
    worker = Watched(here, tmp_path / "log")
    values = {"second": f"{topic_prefix}-second", "--partitions 12": "--partitions 2"}
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 3, worker=worker, values=values)
    await worker.start()
    await stopped(worker, 3)
    assert await raised(tmp_path, worker) == {"WaypostPartitionRefused"}
    assert await worker.end(signal.SIGTERM) == 0
    before = await here.pool.fetchval("select count(*) from waypost.checkpoints")
    await walk.rest()
    here.topics = Topics(f"{topic_prefix}-second")
    assert walk.worker is not None
    await walk.worker.answers("/readyz", ok)
    assert await here.pool.fetchval("select count(*) from waypost.checkpoints") == before
    await publish(here, 20)
    await calm(here, tmp_path, walk.worker)


@pytest.mark.long
async def test_a_worker_gets_the_rights_that_it_lacks_and_continues(
    secure_kafka: SecureKafka, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with deployment(secure_kafka.endpoints(database), database, topic_prefix, partitions=2) as here:
        name = f"{topic_prefix}-worker"
        secure_kafka.user(name, "worker-secret")
        acls = least_acls(here.topics, topic_prefix, "unused")
        rows = [{**vars_of(acl), "principal": f"User:{name}"} for acl in acls if acl.role == "worker"]
        await asyncio.to_thread(grant, secure_kafka, rows)
        writing = AclBindingFilter(
            *(ResourceType.TOPIC, here.topics.results, ResourcePatternType.LITERAL, f"User:{name}", "*"),
            *(AclOperation.WRITE, AclPermissionType.ALLOW),
        )
        for done in secure_kafka.admin.delete_acls([writing]).values():
            done.result(PATIENCE)
        worker = Watched(here, tmp_path / "log", **secure_kafka.login(name, "worker-secret"))
        values = {"User:waypost-worker": f"User:{name}"}
        walk = walking(here, tmp_path, "WaypostPartitionRefused", 4, worker=worker, values=values)
        await worker.start()
        await stopped(worker, 2)
        assert await raised(tmp_path, worker) == {"WaypostPartitionRefused"}
        await walk.rest()
        await worker.answers("/readyz", ok)
        await publish(here, 20)
        await calm(here, tmp_path, worker)


def vars_of(acl: Any) -> dict[str, Any]:
    return {name: getattr(acl, name) for name in ("resource", "name", "pattern", "operations")}


@pytest.mark.long
@pytest.mark.parametrize("leads", [False, True], ids=["for good", "and comes back"])
async def test_a_broker_is_gone_and_its_replicas_with_it(
    database: str, topic_prefix: str, tmp_path: Path, leads: bool
) -> None:
    cluster = EmbeddedKafka(tmp_path / "cluster", ClusterOptions(nodes=3))
    try:
        await asyncio.to_thread(cluster.start)
    except DevServerError as error:
        unavailable(str(error))
    try:
        await with_a_broker_gone(cluster, database, topic_prefix, tmp_path, leads)
    finally:
        await asyncio.to_thread(cluster.stop)


async def leaders_of(here: Deployment, topic: str) -> list[int]:
    """The node that leads each partition."""
    described: list[Any] = []

    async def look(admin: AIOKafkaAdminClient) -> None:
        described.extend(await admin.describe_topics([topic]))

    await with_admin(here, look)
    partitions = sorted(described[0]["partitions"], key=lambda one: int(one["partition"]))
    return [one["leader"] for one in partitions]


async def with_a_broker_gone(
    cluster: EmbeddedKafka, database: str, topic_prefix: str, tmp_path: Path, leads: bool
) -> None:
    """One that leads the results of partition 0, or of none."""
    endpoints = Endpoints(cluster.bootstrap_servers, database)
    async with deployment(endpoints, database, topic_prefix, partitions=2) as here:
        await applied(here)
        topic = ConfigResource(ConfigResourceType.TOPIC, here.topics.results, {"min.insync.replicas": "3"})
        await with_admin(here, lambda admin: admin.alter_configs([topic]))
        leaders = await leaders_of(here, here.topics.results)
        gone = next(
            node
            for node in cluster.nodes
            if (node.node_id == leaders[0] if leads else node.node_id not in leaders)
        )
        gone.kill()
        worker = Watched(here, tmp_path / "log", WAYPOST_SESSION_TIMEOUT="6")
        walk = walking(here, tmp_path, "WaypostPartitionsUnowned", 0, 1, worker=worker)
        await worker.start()
        await worker.shows(lambda found: found["waypost_assigned_partitions",] == 2)
        await here.until(lambda: worker.says("term_ended") >= 2)
        assert await raised(tmp_path, worker) == {"WaypostPartitionsUnowned"}
        assert here.topics.results in await walk.step()
        assert "not in sync" in " ".join((await walk.step()).split())
        if leads:
            await asyncio.to_thread(cluster.restart_node, gone)
        else:
            await walk.rest()
        await worker.answers("/readyz", ok)
        await calm(here, tmp_path, worker)


async def test_no_worker_is_found_to_have_a_wrong_setting_and_started_with_the_right_one(
    here: Deployment, tmp_path: Path
) -> None:
    assert await asyncio.to_thread(firing, tmp_path) == {"WaypostNoWorkers"}
    wrong = await Watched(here, tmp_path / "wrong", WAYPOST_SESSION_TIMEOUT="soon").start()
    assert wrong.process is not None
    assert await asyncio.wait_for(wrong.process.wait(), PATIENCE) == 2
    assert "WAYPOST_SESSION_TIMEOUT" in wrong.log.read_text()
    walk = walking(here, tmp_path, "WaypostNoWorkers", 0)
    assert "session_timeout" in await walk.step()
    await walk.rest()
    assert walk.worker is not None
    await walk.worker.answers("/readyz", ok)
    await publish(here, 20)
    await calm(here, tmp_path, walk.worker)


@pytest.mark.long
async def test_a_forgotten_worker_of_another_version_is_named_and_ended(
    here: Deployment, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "import waypost\nwaypost.__version__ = '0.0.9'\nfrom waypost_worker.cli import main\nmain()\n"
    )
    old = Watched(here, tmp_path / "old")
    old.command = (old.command[0], str(other), "worker")
    new = Watched(here, tmp_path / "new")
    walk = walking(here, tmp_path, "WaypostVersionsMixed", 0, worker=old)
    for worker in (old, new):
        await worker.start()
        await worker.answers("/readyz", ok)
    assert "WaypostVersionsMixed" in await raised(tmp_path, old, new)
    assert f"1 of version 0.0.9, 1 of version {__version__}" in " ".join((await walk.step()).split())
    await walk.rest()
    assert old.process is not None
    assert await asyncio.wait_for(old.process.wait(), PATIENCE) == 0
    await publish(here, 20)
    await calm(here, tmp_path, new)
