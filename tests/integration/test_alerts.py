"""Alerts on provoked faults: what a real worker shows goes on for an hour in promtool, and exactly those alerts
fire that are for the fault.
"""

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.samples import Sample
from tests.harness import Deployment, deployment
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.promtool import promtool

from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.kafka.topics import create_topics, delete_topic

RULES = Path(__file__).parents[2] / "deploy/prometheus/waypost.rules.yaml"
MINUTES = 60


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


def continued(before: list[Sample], after: list[Sample]) -> list[dict[str, str]]:
    """Series that go on as they went between two looks, counted as a minute apart."""
    earlier = {(sample.name, tuple(sample.labels.items())): sample.value for sample in before}
    series = []
    for sample in after:
        change = sample.value - earlier.get((sample.name, tuple(sample.labels.items())), 0)
        if sample.name.endswith("_timestamp_seconds"):
            # promtool's clock begins at 0.
            values = f"0+60x{MINUTES}" if change else f"0x{MINUTES}"
        elif sample.name.endswith(("_total", "_count", "_sum", "_bucket")):
            values = f"0+{change:.6f}x{MINUTES}"
        else:
            values = f"{sample.value:.6f}x{MINUTES}"
        labels = ", ".join(f'{name}="{value}"' for name, value in {**sample.labels, "instance": "w"}.items())
        series.append({"series": f"{sample.name}{{{labels}}}", "values": values})
    return [one for one in series if one["series"].startswith("waypost_")]


def firing(before: list[Sample], after: list[Sample], scratch: Path) -> set[str]:
    """The alerts that fire after an hour of this."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    names = {rule["alert"] for rule in rules["groups"][0]["rules"]}
    quiet = [{"alertname": name, "eval_time": f"{MINUTES}m", "exp_alerts": []} for name in sorted(names)]
    case = {"interval": "1m", "input_series": continued(before, after), "alert_rule_test": quiet}
    file = scratch / "case.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}))
    done = subprocess.run(
        [promtool(), "test", "rules", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    said = done.stdout + done.stderr
    found = set(re.findall(r'alertname="(\w+)"', said))
    assert found <= names
    assert bool(done.returncode) == bool(found), said
    return found


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
    assert await asyncio.to_thread(firing, first, second, tmp_path) == set()
    await publish(here, 20)
    for _ in range(20):
        await here.send(b"not JSON", b"session-1")
    await here.answered(140)
    third = await worker.samples()
    assert await asyncio.to_thread(firing, second, third, tmp_path) == {"WaypostRejections"}


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
    assert await asyncio.to_thread(firing, found, found, tmp_path) == {"WaypostPartitionRefused"}
    body = await worker.answers("/readyz", lambda status, _: status == 503)
    assert "recreated" in body


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
        fires = await asyncio.to_thread(firing, found, found, tmp_path)
        assert fires == {"WaypostPartitionsUnowned", "WaypostNoProgress"}
    finally:
        postgres.resume()
        postgres.stop()


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
    assert "WaypostTermsEndOften" in await asyncio.to_thread(firing, first, second, tmp_path)
    assert await other.end(signal.SIGTERM) == 0
    await here.balanced()
