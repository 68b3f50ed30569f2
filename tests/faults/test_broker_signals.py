"""The only broker dies, shuts down or stands still, and comes back with all its data.

Breaks: SIGKILL, SIGTERM, or SIGSTOP for longer than the workers wait; twice under load.
Must hold: no acknowledged command is missing; nothing is lost, doubled or out of order; all goes on within 30 s
after the broker serves again; no client of a lost term is left behind.
"""

import asyncio

import pytest
from tests.faults.processes import REQUEST_TIMEOUT
from tests.faults.scene import Scene

from waypost_worker.devserver import EmbeddedKafka


@pytest.mark.long
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGSTOP"])
async def test_broker(kafka_scene: Scene, breakable_kafka: EmbeddedKafka, how: str) -> None:
    stage, kafka = kafka_scene, breakable_kafka
    await stage.crew(2)
    for _ in range(2):
        await stage.for_a_while(stage.random.random() * 2)
        if how == "SIGSTOP":
            kafka.suspend()
            await stage.for_a_while(3 * REQUEST_TIMEOUT)
            kafka.resume()
        else:
            if how == "SIGKILL":
                kafka.kill()
            await asyncio.to_thread(kafka.restart)
        await stage.healed()
    await stage.judge()
