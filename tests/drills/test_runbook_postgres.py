"""What docs/runbook.md says to do when Postgres is the fault: as in test_runbook.py."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.drills.runbook import calm, here, raised, walking
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.support.deployment import Deployment, deployment
from tests.support.processes import freeze
from tests.support.servers import POSTGRES_SETTINGS
from tests.support.sharded import noted, own_server
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.postgres.migrate import migrate_dsn

__all__ = ["here"]


@pytest.mark.long
async def test_a_database_that_does_not_answer_leaves_partitions_unowned_until_it_does(
    here: Deployment, tmp_path: Path
) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings=POSTGRES_SETTINGS)
    postgres.start()
    try:
        settings = {"WAYPOST_POSTGRES_DSN": postgres.dsn, "WAYPOST_REQUEST_TIMEOUT": "1"}
        worker = Watched(here, tmp_path / "log", WAYPOST_MIGRATE="true", **settings)
        walk = walking(here, tmp_path, "WaypostPartitionsUnowned", 0, worker=worker, settings=settings)
        await worker.start()
        await worker.answers("/readyz", ok)
        freeze(postgres)
        for session in (*here.sessions(0, 1), *here.sessions(1, 1)):
            await here.create(session)
        await worker.shows(lambda found: found["waypost_owned_partitions",] == 0)
        await worker.shows(lambda found: found.get(("waypost_lag_commands", "0")) == 1)
        await worker.shows(lambda found: found["waypost_postgres_shard_up", "0"] == 0)
        fires = {"WaypostPartitionsUnowned", "WaypostNoProgress", "WaypostPostgresAway"}
        assert await raised(tmp_path, worker) == fires
        assert '"status":"failed"' in await walk.step()
        assert "can't be reached" in await walk.step()
        postgres.resume()
        await worker.answers("/readyz", ok)
        await calm(here, tmp_path, worker)
    finally:
        postgres.resume()
        postgres.stop()


async def test_an_unreachable_database_of_two_is_named_and_comes_back(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    second = own_server(tmp_path / "postgres")
    try:
        await migrate_dsn(second.dsn)
        await noted([database, second.dsn])
        async with deployment(servers.endpoints, f"{database} {second.dsn}", topic_prefix, 2) as here:
            worker = Watched(here, tmp_path / "log")
            walk = walking(here, tmp_path, "WaypostPostgresAway", 0, worker=worker)
            await worker.start()
            await worker.answers("/readyz", ok)
            await worker.shows(lambda found: _up(found) == {"0": 1, "1": 1})
            assert await raised(tmp_path, worker) == set()
            await asyncio.to_thread(second.kill)
            await worker.shows(lambda found: _up(found) == {"0": 1, "1": 0})
            assert await raised(tmp_path, worker) == {"WaypostPostgresAway"}, (
                "there is no work, and nobody else tells"
            )
            assert "shard 1 of 2: " in await walk.step()
            assert "shard 1" in await walk.step()
            await asyncio.to_thread(second.restart)
            await publish(here, 20)
            await calm(here, tmp_path, worker)
    finally:
        second.stop()


def _up(found: dict[tuple[str, ...], float]) -> dict[str, float]:
    return {name[1]: value for name, value in found.items() if name[0] == "waypost_postgres_shard_up"}


@pytest.mark.long
async def test_a_forgotten_transaction_stops_progress_until_it_is_ended(
    here: Deployment, tmp_path: Path
) -> None:
    worker = Watched(here, tmp_path / "log", WAYPOST_REQUEST_TIMEOUT="3")
    walk = walking(here, tmp_path, "WaypostNoProgress", 0, worker=worker)
    await worker.start()
    await worker.answers("/readyz", ok)
    await publish(here, 20)
    await here.answered(20)
    forgotten: Any = await asyncpg.connect(here.dsn)
    await forgotten.execute("begin; lock table waypost.checkpoints in share mode")
    pid = forgotten.get_server_pid()
    await publish(here, 20)
    await here.until(lambda: worker.says("term_ended") >= 4)
    await worker.shows(lambda found: found.get(("waypost_lag_commands", "0"), 0) > 0)
    assert "WaypostNoProgress" in await raised(tmp_path, worker)
    found = await waiting(walk, pid)
    walk.values["4711"] = str(pid)
    assert str(pid) in found
    await walk.rest()
    await worker.answers("/readyz", ok)
    await here.balanced()
    await calm(here, tmp_path, worker)
    await forgotten.close(timeout=5)


async def waiting(walk: Any, pid: int) -> str:
    """What the first command says while a worker waits: it does most of the time, and tries again after a pause."""
    command = walk.lines[0]
    async with asyncio.timeout(PATIENCE):
        while True:
            found: str = await walk.step()
            if str(pid) in found:
                return found
            walk.lines.insert(0, command)


async def test_a_command_that_is_too_slow_is_named_and_applied_once_the_limit_is_raised(
    here: Deployment, tmp_path: Path
) -> None:
    name = urlsplit(here.dsn).path[1:]
    owner: Any = await asyncpg.connect(here.dsn)
    await owner.execute(
        "create function public.slow() returns trigger language plpgsql as $$ begin "
        "if new.name = 'heavy' then perform pg_sleep(1); end if; return new; end $$; "
        "create trigger slow before insert on waypost.checkpoints for each row execute function public.slow()"
    )
    await owner.execute(f"alter database {name} set statement_timeout = '300ms'")
    await owner.close()
    worker = Watched(here, tmp_path / "log")
    values = {"alter database waypost": f"alter database {name}"}
    walk = walking(here, tmp_path, "WaypostPartitionRefused", 7, worker=worker, values=values)
    await worker.start()
    (session,) = here.sessions(0, 1)
    await here.create(session)
    heavy = await here.create(session, name="heavy")
    await worker.shows(lambda found: found.get(("waypost_refused_offset", "0")) == heavy)
    status, body = await worker.get("/readyz")
    assert status == 503
    assert f"The command at offset {heavy} of partition 0 can't be applied in time" in body
    assert "Raise statement_timeout for the workers' role" in body
    assert "WaypostPartitionRefused" in await raised(tmp_path, worker)
    await walk.rest()
    await here.answered(2)
    await worker.answers("/readyz", ok)
    await here.balanced()
    await calm(here, tmp_path, worker)
