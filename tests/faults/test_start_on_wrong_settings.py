"""Workers start on topics whose settings would lose commands or fences, while agents publish.

Breaks: before any worker starts, a topic is set to be compacted, results keep the time that workers send and are kept
for an hour, and statements of the database may take no longer than two seconds.
Must hold: workers take no partition of a compacted topic, name each setting and what to do about it, and continue by
themselves once ``waypost topics update`` has corrected it; nothing is lost, doubled or out of order.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.faults.scene import Scene
from tests.faults.test_topics_changed import admin

WRONG = {
    "cleanup.policy": "compact,delete",
    "message.timestamp.type": "CreateTime",
    "retention.ms": "3600000",
}


async def set_wrong(stage: Scene, topic: str) -> None:
    """Change the settings of a topic, and the time limit of the database."""
    change = ConfigResource(ConfigResourceType.TOPIC, topic, WRONG)
    await admin(stage, lambda client: client.alter_configs([change]))
    owner: Any = await asyncpg.connect(stage.endpoints.postgres_dsn)
    try:
        name = urlsplit(stage.endpoints.postgres_dsn).path[1:]
        await owner.execute(f"alter database {name} set statement_timeout = '2s'")
    finally:
        await owner.close()


@pytest.mark.parametrize("which", [pytest.param("commands", marks=pytest.mark.long), "results"])
async def test_start_on_wrong_settings(shared: Scene, which: str) -> None:
    topic = getattr(shared.topics, which)
    await set_wrong(shared, topic)
    worker = await shared.worker()
    await shared.until(lambda: bool(worker.events("kafka_refused")))
    reason = worker.events("kafka_refused")[0]["reason"]
    assert "no partition is taken. Nothing was changed." in reason
    assert f"{topic}: cleanup.policy=compact,delete (run 'waypost topics update'" in reason
    assert not worker.events("partition_acquired")
    line = shared.command_line()
    checked = await asyncio.to_thread(line.run, "topics", "check", "-o", "json")
    assert checked.code == 1
    assert all(name in checked.out for name in WRONG)
    updated = await asyncio.to_thread(line.run, "topics", "update", "-o", "json")
    assert updated.code == 0, updated.err
    await shared.until(lambda: bool(worker.events("partition_acquired")))
    await shared.until(
        lambda: any("statement_timeout" in each["finding"] for each in worker.events("start_check"))
    )
    await shared.healed()
    await shared.judge()
