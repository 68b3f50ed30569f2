"""Postgres drops connections, restarts without a farewell, or stands still, and keeps all that it committed.

Breaks: pg_terminate_backend on every worker's connections, again and again; an immediate restart (SIGQUIT, recovery
from the log) three times; SIGSTOP of all its processes for longer than the workers wait.
Must hold: workers outlive it; nothing is lost, doubled or out of order; all goes on within 30 s.
"""

import asyncio

import asyncpg
import pytest
from tests.faults.processes import REQUEST_TIMEOUT
from tests.faults.scene import Scene

from waypost_worker.devserver import EmbeddedPostgres


async def test_terminated_backends(shared: Scene) -> None:
    await shared.crew(2)
    connection = await asyncpg.connect(shared.endpoints.postgres_dsn)
    try:
        for _ in range(15):
            await shared.for_a_while(shared.random.random() * 0.4)
            await connection.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and application_name = 'waypost'"
            )
    finally:
        await connection.close()
    await shared.healed()
    await shared.judge()


@pytest.mark.long
async def test_immediate_restarts(postgres_scene: Scene, breakable_postgres: EmbeddedPostgres) -> None:
    stage = postgres_scene
    await stage.crew(2)
    for _ in range(3):
        await stage.for_a_while(stage.random.random() * 2)
        await asyncio.to_thread(breakable_postgres.restart, immediate=True)
        await stage.healed()
    await stage.judge()


@pytest.mark.long
async def test_suspended_postgres(postgres_scene: Scene, breakable_postgres: EmbeddedPostgres) -> None:
    stage = postgres_scene
    await stage.crew(2)
    for _ in range(2):
        await stage.for_a_while(stage.random.random() * 2)
        breakable_postgres.suspend()
        await stage.for_a_while(2 * REQUEST_TIMEOUT)
        breakable_postgres.resume()
        await stage.healed()
    await stage.judge()
