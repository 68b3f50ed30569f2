"""Alerts on provoked faults: what a real worker shows goes on for an hour in promtool, and exactly those alerts
fire that are for the fault.
"""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.alerting import firing
from tests.faults.proxy import HOST, Proxy
from tests.harness import Deployment, deployment
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.promtool import promtool

from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.kafka.topics import create_topics, delete_topic


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


async def test_a_worker_at_work_raises_nothing_and_refused_commands_raise_their_alert(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    worker = Watched(here, tmp_path / "log")
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


async def test_a_recreated_topic_raises_the_alert_of_refused_partitions(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    owner = here.own(0)
    other = here.own(1)
    await publish(here, 10)
    await here.answered(10)
    await owner.stop()
    await other.stop()
    for topic in (here.topics.commands, here.topics.results):
        await delete_topic(here.connection, topic)
    await create_topics(here.connection, here.topics, here.partitions)
    worker = Watched(here, tmp_path / "log")
    await worker.start()
    await here.until(lambda: worker.says("partition_refused") == 2)
    # Partitions are counted at the next look around.
    await worker.shows(
        lambda found: found["waypost_refused_partitions",] == found["waypost_assigned_partitions",] == 2
    )
    found = await worker.samples()
    assert await asyncio.to_thread(firing, tmp_path, (found, found)) == {"WaypostPartitionRefused"}
    body = await worker.answers("/readyz", lambda status, _: status == 503)
    assert "recreated" in body


@pytest.mark.long
async def test_a_database_that_does_not_answer_raises_the_alert_of_unowned_partitions(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start()
    try:
        settings = {"WAYPOST_POSTGRES_DSN": postgres.dsn, "WAYPOST_REQUEST_TIMEOUT": "1"}
        worker = Watched(here, tmp_path / "log", WAYPOST_MIGRATE="true", **settings)
        await worker.start()
        await worker.answers("/readyz", ok)
        postgres.suspend()
        for session in (*here.sessions(0, 1), *here.sessions(1, 1)):
            await here.create(session)
        await worker.shows(lambda found: found["waypost_owned_partitions",] == 0)
        await worker.shows(lambda found: found.get(("waypost_lag_commands", "0")) == 1)
        found = await worker.samples()
        fires = await asyncio.to_thread(firing, tmp_path, (found, found))
        assert fires == {"WaypostPartitionsUnowned", "WaypostNoProgress"}
    finally:
        postgres.resume()
        postgres.stop()


@pytest.mark.long
async def test_two_deployments_that_share_a_database_raise_the_alert_of_lost_terms(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    one = Watched(here, tmp_path / "one")
    other = Watched(here, tmp_path / "other", WAYPOST_GROUP_ID=f"{here.topics.prefix}-other")
    for worker in (one, other):
        await worker.start()
        await worker.answers("/startupz", ok)
    first = await one.samples()
    publishing = asyncio.create_task(publish(here, 400))
    # Each command that one of them applies shows the other that it was overtaken.
    await one.shows(lambda found: found.get(("waypost_terms_ended_total", "fenced"), 0) >= 3)
    await publishing
    second = await one.samples()
    assert "WaypostTermsEndOften" in await asyncio.to_thread(firing, tmp_path, (first, second))
    assert await other.end(signal.SIGTERM) == 0
    await here.balanced()


def test_nothing_to_scrape_raises_the_alert_of_no_workers(tmp_path: Path) -> None:
    assert firing(tmp_path) == {"WaypostNoWorkers"}


async def test_a_process_that_is_held_up_raises_the_alert_of_the_loop(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    worker = Watched(here, tmp_path / "log")
    await worker.start()
    await worker.answers("/readyz", ok)
    assert worker.process is not None
    worker.process.send_signal(signal.SIGSTOP)
    frozen = time.monotonic()
    await here.until(lambda: time.monotonic() - frozen > 1.5)
    worker.process.send_signal(signal.SIGCONT)
    await worker.shows(lambda found: found["waypost_loop_delay_seconds",] > 1)
    found = await worker.samples()
    assert await asyncio.to_thread(firing, tmp_path, (found, found)) == {"WaypostLoopBlocked"}


class Redirected(Watched):
    """A worker that reaches its broker through a proxy."""

    def __init__(self, here: Deployment, log: Path, proxy: Proxy, **environment: str) -> None:
        super().__init__(here, log, **environment)
        broker = here.endpoints.bootstrap_servers.rpartition(":")[2]
        redirect = ("--redirect", f"{broker}={proxy.port}", "--counts", str(log.with_suffix(".counts")))
        self.command = (sys.executable, "-m", "tests.faults.worker", *redirect)


@pytest.mark.long
async def test_slow_postgres_raises_the_alerts_of_postgres_and_its_pool(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    parts = urlsplit(here.dsn)
    assert parts.port is not None
    async with Proxy(parts.port) as proxy:
        place = f"{parts.netloc.rpartition('@')[0]}@{HOST}:{proxy.port}"
        settings = {
            "WAYPOST_POSTGRES_DSN": urlunsplit(parts._replace(netloc=place)),
            "WAYPOST_POSTGRES_POOL_SIZE": "2",
            "WAYPOST_REQUEST_TIMEOUT": "30",
        }
        worker = Watched(here, tmp_path / "log", **settings)
        await worker.start()
        await worker.answers("/readyz", ok)
        await publish(here, 20)
        await here.answered(20)
        first = await worker.samples()
        proxy.delay = 0.6
        publishing = asyncio.create_task(publish(here, 4000))
        await worker.shows(
            lambda found: (
                found.get(("waypost_postgres_pool_connections", "0", "used")) == 2
                and found["waypost_batch_commands_count",] > 10
            )
        )
        second = await worker.samples()
        publishing.cancel()
        fires = await asyncio.to_thread(firing, tmp_path, (first, second))
        # Answers are slow then, too, once more waits than is applied.
        assert fires - {"WaypostSlowAnswers"} == {"WaypostPostgresSlow", "WaypostPoolExhausted"}
        proxy.heal()
        assert await worker.end(signal.SIGTERM) == 0


@pytest.mark.long
async def test_slow_kafka_raises_the_alerts_of_kafka_and_of_slow_answers(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    broker = int(here.endpoints.bootstrap_servers.rpartition(":")[2])
    async with Proxy(broker) as proxy:
        settings = {"WAYPOST_REQUEST_TIMEOUT": "60", "WAYPOST_SESSION_TIMEOUT": "60"}
        worker = Redirected(here, tmp_path / "log", proxy, **settings)
        await worker.start()
        await worker.answers("/readyz", ok)
        first = await worker.samples()
        proxy.delay = 2.0
        await publish(here, 10)
        await worker.shows(lambda found: found["waypost_end_to_end_seconds_count",] == 10)
        second = await worker.samples()
        fires = await asyncio.to_thread(firing, tmp_path, (first, second))
        assert fires == {"WaypostKafkaSlow", "WaypostSlowAnswers"}
        proxy.heal()
        assert await worker.end(signal.SIGTERM) == 0


@pytest.mark.long
async def test_a_worker_that_stood_still_for_a_minute_raises_the_alert_of_being_behind(
    here: Deployment, tmp_path: Path
) -> None:
    promtool()
    worker = Watched(here, tmp_path / "log", WAYPOST_SESSION_TIMEOUT="120")
    await worker.start()
    await worker.answers("/readyz", ok)
    first = await worker.samples()
    assert worker.process is not None
    worker.process.send_signal(signal.SIGSTOP)
    await publish(here, 20)
    frozen = time.monotonic()
    await here.until(lambda: time.monotonic() - frozen > 62, 70)
    worker.process.send_signal(signal.SIGCONT)
    await worker.shows(lambda found: found.get(("waypost_record_age_seconds", "0"), 0) > 60)
    second = await worker.samples()
    fires = await asyncio.to_thread(firing, tmp_path, (first, second))
    assert {"WaypostBehind", "WaypostSlowAnswers"} <= fires
    await here.balanced()
    assert await worker.end(signal.SIGTERM) == 0
