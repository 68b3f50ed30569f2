"""Two versions of the worker side by side, through an upgrade with a migration; and the commands of deploy/'s jobs."""

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment, deployment
from tests.support.prometheus import firing
from tests.support.timeouts import PATIENCE

from waypost import __version__
from waypost_worker.devserver import Servers
from waypost_worker.postgres.migrate import migrations

ROOT = Path(__file__).parents[2]
NEXT = "99.0.0"
WROTE_0_1 = "4e8c6b48963cd38d84acb00d417f88834a785fac"


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=4) as made:
        yield made


@pytest.fixture
def next_version(tmp_path: Path) -> str:
    """A path with a newer version: another number, and a migration that adds to the schema."""
    for room in ("schemas/waypost", "worker/waypost_worker"):
        shutil.copytree(ROOT / room, tmp_path / "next" / room, ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "next/schemas/waypost/__init__.py"
    text = package.read_text()
    assert f'__version__ = "{__version__}"' in text
    package.write_text(text.replace(f'__version__ = "{__version__}"', f'__version__ = "{NEXT}"'))
    number = len(migrations()) + 1
    added = tmp_path / f"next/worker/waypost_worker/postgres/migrations/{number:04}_next.sql"
    added.write_text("alter table waypost.sessions add column note text;\n")
    return os.pathsep.join(str(tmp_path / "next" / room) for room in ("schemas", "worker"))


def of_its_version(here: Deployment, log: Path, **environment: str) -> Watched:
    """Return a worker that runs the code on its path. Another version may lack what a quick worker changes."""
    worker = Watched(here, log, **environment)
    worker.command = (sys.executable, "-m", "waypost_worker.cli", "worker")
    return worker


async def migrate(worker: Watched) -> None:
    """Run ``waypost migrate`` of a worker's version."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "waypost_worker.cli", "migrate"),
        env=worker.environment,
        cwd=worker.log.parent,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0


async def test_workers_are_replaced_one_by_one_by_a_version_with_a_migration(
    here: Deployment, tmp_path: Path, next_version: str
) -> None:
    old = [of_its_version(here, tmp_path / f"old-{number}") for number in range(2)]
    new = [of_its_version(here, tmp_path / f"new-{number}", PYTHONPATH=next_version) for number in range(2)]
    for worker in old:
        await worker.start()
        await worker.answers("/readyz", ok)
    scrapes = [(await old[0].samples(),) * 2]
    publishing = asyncio.create_task(publish(here, 300))
    await here.answered(50)

    await migrate(new[0])
    assert await here.pool.fetchval("select max(number) from waypost.migrations") == len(migrations()) + 1
    for leaving, coming in zip(old, new, strict=True):
        # What runs goes on, and counts as ready: nothing of what it uses has changed. Asked until it says so, since
        # it is not ready for as long as the group shares out the partitions of the worker that left before it.
        await leaving.answers("/readyz", ok)
        await coming.start()
        await coming.answers("/readyz", ok)
        assert await leaving.end(signal.SIGTERM) == 0
    await publishing
    await publish(here, 50, first=300)
    await here.balanced()

    scrapes.append((await new[1].samples(),) * 2)
    assert "WaypostVersionsMixed" in await asyncio.to_thread(firing, tmp_path, *scrapes)
    assert "WaypostVersionsMixed" not in await asyncio.to_thread(firing, tmp_path, scrapes[1])
    found = [key for key in await new[1].metrics() if key[0] == "waypost_build_info"]
    assert [key[-1] for key in found] == [NEXT]
    again = await of_its_version(here, tmp_path / "again").start()
    assert again.process is not None
    assert await asyncio.wait_for(again.process.wait(), PATIENCE) == 1
    assert "it was migrated by a newer Waypost" in again.log.read_text()
    for worker in new:
        assert await worker.end(signal.SIGTERM) == 0


async def owns(worker: Watched) -> None:
    """Wait until it is ready and has owned something: one whose share is still to come is ready without any."""
    await worker.here.until(lambda: worker.says("partition_acquired") > 0)
    await worker.answers("/readyz", ok)


@pytest.fixture
def format_0_1(tmp_path: Path) -> str:
    """A path with the code that wrote tests/golden/0.1, from the repository's history."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", WROTE_0_1, "schemas/waypost", "worker/waypost_worker"],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    if archive.returncode:
        pytest.skip("the history that has format 0.1 is not here")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(tmp_path / "0.1", filter="data")
    return os.pathsep.join(str(tmp_path / "0.1" / room) for room in ("schemas", "worker"))


@pytest.fixture
async def not_migrated(servers: Servers, topic_prefix: str) -> AsyncIterator[Deployment]:
    name = f"upgrade_{topic_prefix[-12:]}"
    dsn = servers.postgres.create_database(name)
    async with deployment(servers.endpoints, dsn, topic_prefix, partitions=4) as made:
        yield made
    servers.postgres.drop_database(name)


async def test_workers_of_format_0_1_and_of_today_hand_partitions_to_each_other(
    not_migrated: Deployment, tmp_path: Path, format_0_1: str
) -> None:
    here = not_migrated
    old = [of_its_version(here, tmp_path / f"old-{number}", PYTHONPATH=format_0_1) for number in range(2)]
    new = [of_its_version(here, tmp_path / f"new-{number}") for number in range(3)]
    await migrate(old[0])
    before = await here.pool.fetchval("select max(number) from waypost.migrations")
    assert before < len(migrations()), "the upgrade has a migration"
    for worker in old:
        await worker.start()
        await owns(worker)
    publishing = asyncio.create_task(publish(here, 400))
    await here.answered(50)
    await migrate(new[0])
    await old[0].answers("/readyz", ok)
    await new[0].start()
    await owns(new[0])
    assert await old[0].end(signal.SIGTERM) == 0
    await here.answered(150)
    # Halfway the new one dies: what it left is the old one's to finish, and then the next new one's again.
    await new[0].end(signal.SIGKILL)
    await here.answered(250)
    await new[1].start()
    await owns(new[1])
    await publishing
    assert await old[1].end(signal.SIGTERM) == 0
    await new[2].start()
    await owns(new[2])
    await publish(here, 50, first=400)
    await here.balanced()
    for worker in (*old, *new):
        assert not worker.says("partition_refused"), worker.log.read_text()


def containers() -> list[list[str]]:
    """The arguments of what deploy/ runs once or now and then."""
    base = ROOT / "deploy/kubernetes/base"
    job: dict[str, Any] = yaml.safe_load((base / "migrate.yaml").read_text())
    cron: dict[str, Any] = yaml.safe_load((base / "purge.yaml").read_text())
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    return [
        services["topics"]["command"],
        services["migrate"]["command"],
        job["spec"]["template"]["spec"]["containers"][0]["args"],
        cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"],
    ]


def test_the_commands_of_jobs_run_on_an_empty_deployment_and_again(
    servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    name = f"jobs_{topic_prefix.removeprefix('test-')}"
    settings = {
        "WAYPOST_BOOTSTRAP_SERVERS": servers.endpoints.bootstrap_servers,
        "WAYPOST_POSTGRES_DSN": servers.postgres.create_database(name),
        "WAYPOST_TOPIC_PREFIX": topic_prefix,
    }
    line = CommandLine(tmp_path, settings)
    try:
        for arguments in (*containers(), *containers()):
            outcome = line.run(*arguments)
            assert outcome.code == 0, (arguments, outcome.err)
        assert line.run("topics", "check").code == 0
    finally:
        servers.postgres.drop_database(name)
