"""What a worker looks at when it starts: it says what hurts, and takes no partition if commands could be lost."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.integration.watched import Watched, ok
from tests.support.deployment import Deployment, deployment
from tests.support.pgbouncer import pgbouncer

from waypost_worker.config.settings import Settings
from waypost_worker.devserver import Servers
from waypost_worker.kafka.connection import Connection
from waypost_worker.partition.ports import RefusedError
from waypost_worker.runtime.start_checks import check_topics_at_start


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


@pytest.fixture
async def worker(here: Deployment, tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(here, tmp_path / "log")
    yield made
    await made.kill()


async def set_on(here: Deployment, topic: str, **settings: str) -> None:
    """Change settings of a topic, and wait until the broker shows them; underscores stand for dots."""
    changes = {name.replace("_", "."): value for name, value in settings.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=here.endpoints.bootstrap_servers)
    await admin.start()

    async def are_shown() -> bool:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        ((*_, entries),) = answer.resources
        return changes.items() <= {name: value for name, value, *_ in entries}.items()

    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changes)])
        await here.until(are_shown)
    finally:
        await admin.close()


def said(worker: Watched, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def findings(worker: Watched) -> dict[str, str]:
    """Level by what was found, once everything was looked at."""
    await worker.here.until(
        lambda: {line["subject"] for line in said(worker, "start_checked")} == {"topics", "postgres"}
    )
    return {f"{line['subject']}: {line['finding']}": line["level"] for line in said(worker, "start_check")}


async def test_servers_as_they_should_be_are_not_mentioned(here: Deployment, worker: Watched) -> None:
    await worker.start()
    await worker.answers("/readyz", ok)
    # The test servers forgo what only matters when the power fails.
    assert await findings(worker) == {
        "postgres: fsync=off": "error",
        "postgres: full_page_writes=off": "error",
    }
    assert not said(worker, "start_check_failed")


@pytest.mark.parametrize("which", ["commands", "results"])
async def test_a_compacted_topic_is_waited_for_and_nothing_is_taken(
    here: Deployment, worker: Watched, which: str
) -> None:
    topic = getattr(here.topics, which)
    await set_on(here, topic, cleanup_policy="compact", message_timestamp_type="LogAppendTime")
    await worker.start()
    (session,) = here.sessions(0, 1)
    await here.create(session)
    await here.until(lambda: len(said(worker, "kafka_refused")) >= 2)
    reason = said(worker, "kafka_refused")[0]["reason"]
    assert "no partition is taken. Nothing was changed." in reason
    assert f"{topic}: cleanup.policy=compact (run 'waypost topics update', or set" in reason
    assert "cleanup.policy=delete on the topic: compaction removes" in reason
    status, _ = await worker.get("/startupz")
    assert status == 503
    assert not said(worker, "partition_acquired")
    await set_on(here, topic, cleanup_policy="delete", message_timestamp_type="LogAppendTime")
    await worker.answers("/readyz", ok)
    await here.answered(1)


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_any_compaction_is_unsafe(here: Deployment, policy: str) -> None:
    settings = Settings(bootstrap_servers=here.endpoints.bootstrap_servers, topic_prefix=here.topics.prefix)
    connection = Connection(here.endpoints.bootstrap_servers)
    await check_topics_at_start(settings, connection)
    await set_on(here, here.topics.commands, cleanup_policy=policy, message_timestamp_type="LogAppendTime")
    with pytest.raises(RefusedError, match=f"cleanup.policy={policy} "):
        await check_topics_at_start(settings, connection)


async def test_harmful_settings_are_logged_and_wait_for_nobody(here: Deployment, worker: Watched) -> None:
    owner = await asyncpg.connect(here.dsn)
    name = urlsplit(here.dsn).path[1:]
    await owner.execute(f"alter database {name} set statement_timeout = '2s'")
    await owner.close()
    await set_on(here, here.topics.commands, message_timestamp_type="CreateTime", retention_ms="3600000")
    await set_on(here, here.topics.results, retention_ms="3600000")
    await worker.start()
    await worker.answers("/readyz", ok)
    found = await findings(worker)
    assert found[f"{here.topics.commands}: message.timestamp.type=CreateTime"] == "error"
    assert found[f"{here.topics.commands}: retention.ms=3600000"] == "warning"
    assert f"{here.topics.results}: retention.ms=3600000" in found
    assert (
        found["postgres: statement_timeout=2000 ms ends statements that a worker still waits for"]
        == "warning"
    )
    assert all(line["fix"] for line in said(worker, "start_check"))


async def test_a_pooler_and_prepared_statements_are_reported(here: Deployment, tmp_path: Path) -> None:
    async with pgbouncer(here.dsn) as dsn:
        careless = Watched(here, tmp_path / "careless", WAYPOST_POSTGRES_DSN=dsn)
        await careless.start()

        def told() -> bool:
            # By then owners may have mixed up the statements of the check itself.
            lines = said(careless, "start_check") + said(careless, "start_check_failed")
            words = [line.get("fix", "") + line.get("reason", "") for line in lines]
            return any("WAYPOST_POSTGRES_STATEMENT_CACHE=0" in one for one in words)

        await here.until(told)
        await careless.end(signal.SIGTERM)
        settings = {"WAYPOST_POSTGRES_DSN": dsn, "WAYPOST_POSTGRES_STATEMENT_CACHE": "0"}
        careful = Watched(here, tmp_path / "careful", **settings)
        await careful.start()
        assert not [one for one in await findings(careful) if "pooler" in one]
        await careful.end(signal.SIGTERM)


async def test_a_read_only_database_is_reported_before_the_start_continues(
    here: Deployment, worker: Watched
) -> None:
    owner = await asyncpg.connect(here.dsn)
    name = urlsplit(here.dsn).path[1:]
    await owner.execute(f"alter database {name} set default_transaction_read_only = on")
    await worker.start()
    await here.until(lambda: len(said(worker, "postgres_unavailable")) >= 2)
    assert "default_transaction_read_only=on" in said(worker, "postgres_unavailable")[0]["reason"]
    await owner.execute("set default_transaction_read_only = off")
    await owner.execute(f"alter database {name} reset default_transaction_read_only")
    await worker.answers("/readyz", ok)
    await owner.close()
