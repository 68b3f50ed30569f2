"""Postgres is switched over to its standby behind one address, and the former primary stays up, read-only.

Breaks: a primary with a streaming standby, both behind one TCP address. The primary is made read-only
(default_transaction_read_only), the standby catches up and is promoted, and only new connections to the address lead
there: those that workers hold stay with the former primary, which answers them as before. In the other scenario the
former primary comes back as a standby while the address still leads to it, so that workers connect to a server that
can't be written, and the address moves later.
Must hold: workers see that they can't write, say so in /readyz, and follow the address by themselves within 30 s;
nothing is lost, doubled or out of order; the former primary is not asked anything any more.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.faults.conftest import OpenScene
from tests.faults.processes import WorkerProcess
from tests.faults.scene import Scene
from tests.faults.switch import DATABASE, Pair, postgres_pair, rows
from tests.support.servers import ServerDirectory

from waypost_worker.devserver import EmbeddedPostgres, Endpoints, Servers


@pytest.fixture
async def pair(server_directory: ServerDirectory) -> AsyncIterator[Pair]:
    async with postgres_pair(server_directory) as made:
        yield made


@pytest.fixture
async def stage(servers: Servers, pair: Pair, open_scene: OpenScene) -> AsyncIterator[Scene]:
    dsn = pair.primary.dsn_of(DATABASE)
    async with open_scene(Endpoints(servers.endpoints.bootstrap_servers, dsn)) as made:
        made.worker_dsn = pair.dsn
        yield made


async def says_read_only(worker: WorkerProcess) -> bool:
    return "ReadOnlyDatabaseError" in (await worker.get("/readyz"))[1]


async def asked_since(postgres: EmbeddedPostgres, moment: str) -> bool:
    """Whether a worker asked this server anything; connections that nobody uses may be left for a while."""
    question = "select pid from pg_stat_activity where application_name = 'waypost' and state_change > "
    return bool(await rows(postgres, f"{question} '{moment}'::timestamptz"))


async def switch(stage: Scene, pair: Pair) -> None:
    """Let the standby take over, and judge by what it has from now on."""
    await pair.promote()
    dsn = pair.standby.dsn_of(DATABASE)
    stage.endpoints = replace(stage.endpoints, postgres_dsn=dsn)
    stage.databases = [dsn]
    await stage.healed()
    (row,) = await rows(pair.primary, "select now()::text as moment")
    await stage.healed()
    assert not await asked_since(pair.primary, row["moment"])
    await stage.judge()


async def test_switched_over_behind_one_address(stage: Scene, pair: Pair) -> None:
    (worker, _) = await stage.crew(2)
    await stage.answered(100)
    await pair.make_read_only()
    await stage.until(lambda: says_read_only(worker))
    await pair.caught_up(stage.until)
    await switch(stage, pair)


@pytest.mark.long
async def test_former_primary_back_as_a_standby(stage: Scene, pair: Pair) -> None:
    (worker, _) = await stage.crew(2)
    await stage.answered(100)
    await pair.make_read_only()
    await pair.caught_up(stage.until)
    await asyncio.to_thread(pair.primary.kill)
    (pair.primary.data_directory / "standby.signal").touch()
    await asyncio.to_thread(pair.primary.restart)
    await stage.until(lambda: says_read_only(worker))
    await switch(stage, pair)
