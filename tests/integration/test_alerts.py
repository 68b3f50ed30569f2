"""Alerts on what is slow, on provoked faults: what a real worker shows goes on for an hour in promtool, and exactly
those alerts fire that are for the fault. Then what docs/runbook.md says is done, and none fires any more. The other
alerts are in tests/drills.
"""

import asyncio
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.drills.runbook import calm, here, raised, walking
from tests.faults.proxy import HOST, Proxy
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.support.deployment import Deployment
from tests.support.prometheus import firing
from tests.support.timeouts import PATIENCE

__all__ = ["here"]


@pytest.mark.long
async def test_two_deployments_that_share_a_database_raise_the_alert_of_lost_terms(
    here: Deployment, tmp_path: Path
) -> None:
    one = Watched(here, tmp_path / "one")
    other = Watched(here, tmp_path / "other", WAYPOST_GROUP_ID=f"{here.topics.prefix}-other")
    walk = walking(here, tmp_path, "WaypostTermsEndOften", 0, worker=other)
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
    assert 'reason="fenced"' in await walk.step()
    assert len(re.findall(r"127\.0\.0\.1", await walk.step())) >= 2
    await walk.rest()
    assert other.process is not None
    assert await asyncio.wait_for(other.process.wait(), PATIENCE) == 0
    # What the other one applied last shows this one only now that it was overtaken.
    await publish(here, 20)
    await here.balanced()
    await calm(here, tmp_path, one)


async def test_a_process_that_is_held_up_raises_the_alert_of_the_loop(
    here: Deployment, tmp_path: Path
) -> None:
    # Its session outlasts the stop on a slow machine, too: without partitions it would raise other alerts.
    worker = Watched(here, tmp_path / "log", WAYPOST_SESSION_TIMEOUT="30")
    walk = walking(here, tmp_path, "WaypostLoopBlocked", 0, worker=worker)
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
    assert "waypost_loop_delay_seconds" in await walk.step()
    await walk.rest()
    assert walk.worker is not None
    await walk.worker.answers("/readyz", ok)
    await publish(here, 20)
    await calm(here, tmp_path, walk.worker, worker)


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
    parts = urlsplit(here.dsn)
    assert parts.port is not None
    async with Proxy(parts.port) as proxy:
        place = f"{parts.netloc.rpartition('@')[0]}@{HOST}:{proxy.port}"
        settings = {
            "WAYPOST_POSTGRES_DSN": urlunsplit(parts._replace(netloc=place)),
            "WAYPOST_REQUEST_TIMEOUT": "30",
        }
        worker = Watched(here, tmp_path / "log", **settings, WAYPOST_POSTGRES_POOL_SIZE="2")
        walk = walking(here, tmp_path, "WaypostPoolExhausted", 0, settings=settings)
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
        assert await worker.end(signal.SIGTERM) == 0
        # A larger pool mends the pool; Postgres is still slow then, and gets better by itself here.
        await walk.step()
        assert walk.worker is not None
        await walk.worker.shows(lambda found: found.get(("waypost_lag_commands", "0"), 1) == 0)
        assert "WaypostPoolExhausted" not in await raised(tmp_path, walk.worker)
        proxy.heal()
        await walk.rest()
        await publish(here, 20)
        await calm(here, tmp_path, walk.worker)


async def lock_again_and_again(dsn: str) -> None:
    """A client that holds the checkpoints for more than a second each time, until somebody ends it."""
    connection: Any = await asyncpg.connect(dsn)
    lock = "begin; lock table waypost.checkpoints in share mode; select pg_sleep(1.3)"
    while True:
        await connection.execute(lock)
        await connection.execute("commit")


@pytest.mark.long
async def test_a_client_that_locks_tables_makes_postgres_slow_until_it_is_ended(
    here: Deployment, tmp_path: Path
) -> None:
    worker = Watched(here, tmp_path / "log", WAYPOST_REQUEST_TIMEOUT="20", WAYPOST_BATCH_RECORDS="20")
    walk = walking(here, tmp_path, "WaypostPostgresSlow", 0, worker=worker)
    await worker.start()
    await worker.answers("/readyz", ok)
    await publish(here, 20)
    await here.answered(20)
    first = await worker.samples()
    locking = asyncio.create_task(lock_again_and_again(here.dsn))
    for number in range(1, 7):
        await publish(here, 20, first=20 * number)
        await here.answered(20 * (number + 1))
    second = await worker.samples()
    fires = await asyncio.to_thread(firing, tmp_path, (first, second))
    assert fires - {"WaypostSlowAnswers"} == {"WaypostPostgresSlow"}
    (pid,) = re.findall(r"^ *(\d+) \|.*lock table", await walk.step(), re.MULTILINE)
    walk.values["4711"] = pid
    await walk.rest()
    with pytest.raises(asyncpg.PostgresError):
        await asyncio.wait_for(locking, PATIENCE)
    await publish(here, 20)
    await calm(here, tmp_path, worker)


@pytest.mark.long
async def test_slow_kafka_raises_the_alerts_of_kafka_and_of_slow_answers(
    here: Deployment, tmp_path: Path
) -> None:
    broker = int(here.endpoints.bootstrap_servers.rpartition(":")[2])
    async with Proxy(broker) as proxy:
        settings = {"WAYPOST_REQUEST_TIMEOUT": "60", "WAYPOST_SESSION_TIMEOUT": "60"}
        worker = Redirected(here, tmp_path / "log", proxy, **settings)
        answers = walking(here, tmp_path, "WaypostSlowAnswers", 0, worker=worker)
        slow = walking(here, tmp_path, "WaypostKafkaSlow", 0, worker=worker)
        await worker.start()
        await worker.answers("/readyz", ok)
        first = await worker.samples()
        proxy.delay = 2.0
        await publish(here, 10)
        await worker.shows(lambda found: found["waypost_end_to_end_seconds_count",] == 10)
        second = await worker.samples()
        fires = await asyncio.to_thread(firing, tmp_path, (first, second))
        assert fires == {"WaypostKafkaSlow", "WaypostSlowAnswers"}
        assert "waypost_emit_seconds_sum" in await answers.step()
        await answers.rest()
        await slow.rest()
        proxy.heal()
        await publish(here, 20)
        await calm(here, tmp_path, worker)


@pytest.mark.long
async def test_a_backlog_before_a_slow_worker_raises_the_alert_of_being_behind(
    here: Deployment, tmp_path: Path
) -> None:
    parts = urlsplit(here.dsn)
    assert parts.port is not None
    async with Proxy(parts.port) as proxy:
        place = f"{parts.netloc.rpartition('@')[0]}@{HOST}:{proxy.port}"
        slow = {
            "WAYPOST_POSTGRES_DSN": urlunsplit(parts._replace(netloc=place)),
            "WAYPOST_BATCH_RECORDS": "2",
            "WAYPOST_REQUEST_TIMEOUT": "20",
        }
        await publish(here, 600)
        published = time.monotonic()
        await here.until(lambda: time.monotonic() - published > 62, 70)
        proxy.delay = 0.04
        worker = Watched(here, tmp_path / "log", **slow)
        walk = walking(here, tmp_path, "WaypostBehind", 0, worker=worker)
        await worker.start()
        await worker.shows(lambda found: found.get(("waypost_record_age_seconds", "0"), 0) > 60)
        first = await worker.samples()
        await worker.shows(lambda found: found["waypost_batch_commands_count",] > 40)
        second = await worker.samples()
        fires = await asyncio.to_thread(firing, tmp_path, (first, second))
        assert (
            {"WaypostBehind", "WaypostSlowAnswers"}
            <= fires
            <= {*("WaypostBehind", "WaypostSlowAnswers", "WaypostPoolExhausted")}
        )
        assert "waypost_lag_commands" in await walk.step()
        await walk.rest()
        assert walk.worker is not None
        await walk.worker.shows(lambda found: found["waypost_owned_partitions",] == 1)
        await here.balanced()
        proxy.heal()
        await publish(here, 20)
        await calm(here, tmp_path, worker, walk.worker)
