"""Real worker processes: takeover, drain, and servers that are away. Each ends with balanced books."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.deployment import Deployment, deployment
from tests.support.processes import freeze, wait_until_still
from tests.support.servers import POSTGRES_SETTINGS
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import EmbeddedKafka, EmbeddedPostgres, Endpoints, Servers

SESSION_TIMEOUT = 2


class Worker:
    """A ``waypost worker`` in a process of its own, its log in a file."""

    def __init__(self, here: Deployment, log: Path, **environment: str) -> None:
        self.log = log
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")},
            "WAYPOST_BOOTSTRAP_SERVERS": here.endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": here.dsn,
            "WAYPOST_TOPIC_PREFIX": here.topics.prefix,
            "WAYPOST_GROUP_ID": here.topics.prefix,
            "WAYPOST_SESSION_TIMEOUT": str(SESSION_TIMEOUT),
            "WAYPOST_REQUEST_TIMEOUT": "5",
            **environment,
        }
        self.command: tuple[str, ...] = (sys.executable, "-m", "waypost_worker.cli", "worker")
        self.process: asyncio.subprocess.Process | None = None
        here.at_close.append(self.kill)

    async def start(self) -> "Worker":
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
            )
        return self

    def says(self, word: str) -> int:
        return self.log.read_text().count(f'"{word}"')

    async def kill(self) -> None:
        """However the test ended, nothing of it runs on."""
        if self.process is not None and self.process.returncode is None:
            await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=4) as made:
        yield made


@pytest.fixture
async def pair(here: Deployment, tmp_path: Path) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers that share four partitions two and two."""
    workers = (Worker(here, tmp_path / "one.log"), Worker(here, tmp_path / "two.log"))
    for worker in workers:
        await worker.start()
    await here.until(
        lambda: workers[0].says("partition_acquired") + workers[1].says("partition_acquired") >= 4
    )
    await here.until(lambda: all(worker.says("partition_acquired") for worker in workers))
    yield workers
    for worker in workers:
        await worker.end(signal.SIGKILL)


async def publish(here: Deployment, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await here.create(f"session-{number % 40}", step=number)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
async def test_the_other_worker_takes_over_and_nothing_is_lost_or_doubled(
    here: Deployment, pair: tuple[Worker, Worker], how: signal.Signals
) -> None:
    publishing = asyncio.create_task(publish(here, 400))
    await here.answered(100)
    code = await pair[0].end(how)
    assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    await publishing
    await here.balanced()


async def test_a_frozen_worker_that_wakes_up_finds_itself_fenced(
    here: Deployment, pair: tuple[Worker, Worker]
) -> None:
    publishing = asyncio.create_task(publish(here, 400))
    await here.answered(50)
    frozen = pair[0].process
    assert frozen is not None
    frozen.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until_still([frozen.pid])
    await publishing
    await publish(here, 40, first=400)  # some for each partition, however many were answered before
    await here.answered(440)  # only once the other one has taken over
    assert time.monotonic() - stopped > SESSION_TIMEOUT / 2
    frozen.send_signal(signal.SIGCONT)
    await publish(here, 200, first=440)
    await here.balanced()
    assert await pair[0].end(signal.SIGTERM) == 0


async def test_a_drain_answers_all_that_was_applied(here: Deployment, tmp_path: Path) -> None:
    worker = await Worker(here, tmp_path / "log").start()
    publishing = asyncio.create_task(publish(here, 300))
    await here.answered(50)
    assert await worker.end(signal.SIGTERM) == 0
    await publishing
    applied = await here.pool.fetchval("select sum(next_offset) from waypost.partitions")
    assert sum(len(records) for records in (await here.results()).values()) >= applied
    assert await here.pool.fetchval("select count(*) from waypost.outbox") == 0
    assert worker.says("worker_stopped") == 1


async def test_a_second_signal_ends_immediately(here: Deployment, servers: Servers, tmp_path: Path) -> None:
    # A database that answers nothing keeps the drain busy.
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings=POSTGRES_SETTINGS)
    postgres.start()
    try:
        worker = await Worker(
            here,
            tmp_path / "log",
            WAYPOST_MIGRATE="true",
            WAYPOST_DRAIN_TIMEOUT="60",
            WAYPOST_REQUEST_TIMEOUT="60",
            WAYPOST_POSTGRES_DSN=postgres.dsn,
        ).start()
        await here.until(lambda: worker.says("partition_acquired") == 4)
        freeze(postgres)
        await here.create("session-1")
        process = worker.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        await here.until(lambda: worker.says("worker_draining") == 1)
        assert await worker.end(signal.SIGTERM) == 1
    finally:
        postgres.resume()
        postgres.stop()


async def test_a_worker_waits_for_postgres_at_the_start_and_in_the_middle(
    here: Deployment, tmp_path: Path
) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings=POSTGRES_SETTINGS)
    postgres.start()
    try:
        worker = Worker(here, tmp_path / "log", WAYPOST_MIGRATE="true", WAYPOST_POSTGRES_DSN=postgres.dsn)
        postgres.kill()
        await worker.start()
        await here.until(lambda: worker.says("postgres_unavailable") > 0)
        postgres.start()
        await publish(here, 20)
        await here.answered(20)
        postgres.restart(immediate=True)
        await publish(here, 20)
        await here.answered(40)
        assert await worker.end(signal.SIGTERM) == 0
    finally:
        postgres.stop()


async def test_a_worker_without_kafka_logs_it_and_can_be_stopped(here: Deployment, tmp_path: Path) -> None:
    worker = Worker(here, tmp_path / "log", WAYPOST_BOOTSTRAP_SERVERS="127.0.0.1:1")
    await worker.start()
    await here.until(lambda: worker.says("kafka_unavailable") > 1)
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_worker_outlives_a_restart_of_kafka(
    database: str, topic_prefix: str, servers: Servers, tmp_path: Path
) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        endpoints = Endpoints(kafka.bootstrap_servers, servers.endpoints.postgres_dsn)
        async with deployment(endpoints, database, topic_prefix, partitions=2) as here:
            worker = await Worker(here, tmp_path / "log").start()
            await publish(here, 20)
            await here.answered(20)
            await asyncio.to_thread(kafka.restart)
            await publish(here, 20)
            await here.until(lambda: worker.says("partition_acquired") >= 2)
            await here.balanced()
            assert await worker.end(signal.SIGTERM) == 0


async def test_wrong_settings_end_with_2_and_one_clear_line(here: Deployment, tmp_path: Path) -> None:
    for variable, value, words in (
        ("WAYPOST_BOOTSTRAP_SERVERS", "nowhere", "is not host:port"),
        ("WAYPOST_BATCH_RECORDS", "many", "WAYPOST_BATCH_RECORDS"),
        ("WAYPOST_SESION_TIMEOUT", "3", "WAYPOST_SESION_TIMEOUT is not a setting"),
    ):
        worker = Worker(here, tmp_path / variable, **{variable: value})
        await worker.start()
        assert worker.process is not None
        assert await asyncio.wait_for(worker.process.wait(), PATIENCE) == 2
        said = worker.log.read_text()
        assert words in said
        assert said.count("\n") == 1
