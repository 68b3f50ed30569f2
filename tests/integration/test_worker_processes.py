"""``waypost worker --processes``, static membership, and a session timeout that the brokers refuse."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.test_worker_process import Worker, publish
from tests.support.deployment import Deployment, deployment
from tests.support.processes import descendants, wait_until_gone
from tests.support.timeouts import PATIENCE

from waypost_worker.cli.worker.app import environments
from waypost_worker.config.settings import SettingsError, load_settings
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints, Servers


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=4) as made:
        yield made


class Parent(Worker):
    """A ``waypost worker --processes 2``."""

    def __init__(self, here: Deployment, log: Path, **environment: str) -> None:
        super().__init__(here, log, **environment)
        self.command = (*self.command, "--processes", "2")

    @property
    def children(self) -> list[int]:
        assert self.process is not None
        return descendants(self.process.pid)


async def test_several_processes_share_the_partitions_and_end_with_their_parent(
    here: Deployment, tmp_path: Path
) -> None:
    parent = Parent(here, tmp_path / "log")
    await parent.start()
    # One of them may own all partitions before the other is ready.
    await here.until(lambda: parent.says("partition_acquired") >= 4 and parent.says("worker_ready") == 2)
    await publish(here, 40)
    await here.answered(40)
    killed = parent.children[0]
    os.kill(killed, signal.SIGKILL)
    await here.until(lambda: f"worker {killed} was killed by SIGKILL" in parent.log.read_text())
    await publish(here, 40)
    await here.balanced()
    await here.until(lambda: parent.says("worker_ready") >= 3)
    children = parent.children
    assert len(children) == 2
    assert await parent.end(signal.SIGTERM) == 0
    assert wait_until_gone(children, PATIENCE) == []
    assert parent.says("worker_stopped") == 2


async def test_processes_end_when_their_parent_is_killed(here: Deployment, tmp_path: Path) -> None:
    parent = Parent(here, tmp_path / "log")
    await parent.start()
    await here.until(lambda: parent.says("worker_ready") == 2)
    children = parent.children
    await parent.end(signal.SIGKILL)
    assert await asyncio.to_thread(wait_until_gone, children, 20) == []


async def test_a_static_member_that_is_restarted_gets_its_partitions_back(
    here: Deployment, tmp_path: Path
) -> None:
    """Nobody else takes them meanwhile: the group does not notice a restart within the session timeout."""
    settings = {"WAYPOST_SESSION_TIMEOUT": "30"}
    one = Worker(here, tmp_path / "one", WAYPOST_GROUP_INSTANCE_ID="worker-0", **settings)
    two = Worker(here, tmp_path / "two", WAYPOST_GROUP_INSTANCE_ID="worker-1", **settings)
    await one.start()
    await two.start()
    await here.until(lambda: min(one.says("partition_acquired"), two.says("partition_acquired")) >= 2)
    await here.until(lambda: one.says("partition_released") == one.says("partition_acquired") - 2)
    terms = two.says("partition_acquired")
    before = one.says("partition_acquired")
    assert await one.end(signal.SIGTERM) == 0
    await one.start()
    await here.until(lambda: one.says("partition_acquired") == before + 2)
    await publish(here, 40)
    await here.balanced()
    assert two.says("partition_acquired") == terms
    for worker in (one, two):
        assert await worker.end(signal.SIGTERM) == 0


async def test_a_session_timeout_that_the_brokers_refuse_ends_the_worker_with_what_to_do(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    properties = {"group.min.session.timeout.ms": "6000"}  # as brokers have it unless set otherwise
    with EmbeddedKafka(tmp_path / "kafka", ClusterOptions(properties=properties)) as kafka:
        endpoints = Endpoints(kafka.bootstrap_servers, servers.endpoints.postgres_dsn)
        async with deployment(endpoints, database, topic_prefix) as here:
            worker = await Worker(here, tmp_path / "short", WAYPOST_SESSION_TIMEOUT="2").start()
            assert worker.process is not None
            assert await asyncio.wait_for(worker.process.wait(), PATIENCE) == 1
            assert "set WAYPOST_SESSION_TIMEOUT between them" in worker.log.read_text()
            worker = await Worker(here, tmp_path / "default", WAYPOST_SESSION_TIMEOUT="").start()
            await here.until(lambda: worker.says("partition_acquired") == 1)
            assert await worker.end(signal.SIGTERM) == 0


def test_each_process_gets_the_settings_its_own_port_and_its_own_name() -> None:
    settings = load_settings(
        postgres_dsn="postgresql://me:secret@db/x", http_port=9000, group_instance_id="pod-3", migrate=True
    )
    assert environments(settings, 2) == [
        {
            "WAYPOST_POSTGRES_DSN": "postgresql://me:secret@db/x",
            "WAYPOST_MIGRATE": "True",
            "WAYPOST_HTTP_PORT": str(9000 + index),
            "WAYPOST_GROUP_INSTANCE_ID": f"pod-3-{index}",
        }
        for index in range(2)
    ]
    with pytest.raises(SettingsError, match="ports above 65535"):
        environments(load_settings(http_port=65_535), 2)
