"""Stages for scenarios, and the table of all that ran: ``make faults`` writes it to build/faults.json."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.scene import Row, Scene, scene, seed_of_run
from tests.support.servers import POSTGRES_SETTINGS, ServerDirectory, migrate_template, started
from tests.support.sharded import noted

from waypost_worker.devserver import EmbeddedKafka, EmbeddedPostgres, Endpoints, Servers

ROWS = pytest.StashKey[list[Row]]()
COLUMNS = ("commands", "lost", "doubled", "out_of_order", "differing", "stuck", "seconds", "resumed_after")

OpenScene = Callable[..., AbstractAsyncContextManager[Scene]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-report", help="write what the scenarios found to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def open_scene(request: pytest.FixtureRequest, topic_prefix: str, tmp_path: Path) -> OpenScene:
    """Opens a stage on given endpoints, named after the test and seeded by the run's seed and that name."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    rows = request.config.stash[ROWS]
    # Where several jobs run, each draws a seed of its own and none sums up: a failure tells which.
    request.node.add_report_section("setup", "faults", f"repeat with WAYPOST_FAULTS_SEED={seed_of_run()}")

    def opened(endpoints: Endpoints, **options: Any) -> AbstractAsyncContextManager[Scene]:
        return scene(name, endpoints, topic_prefix, tmp_path, f"{seed_of_run()}/{name}", rows, **options)

    return opened


@pytest.fixture
async def shared(servers: Servers, database: str, open_scene: OpenScene) -> AsyncIterator[Scene]:
    """A stage on the servers that all tests share: break only what is the scenario's own."""
    async with open_scene(Endpoints(servers.endpoints.bootstrap_servers, database)) as made:
        yield made


@pytest.fixture(scope="session")
def breakable_postgres(server_directory: ServerDirectory) -> Iterator[EmbeddedPostgres]:
    """A Postgres for scenarios to break, which leave it running."""
    made = EmbeddedPostgres(server_directory("postgres"), settings=POSTGRES_SETTINGS)
    with started(made):
        yield made


@pytest.fixture(scope="session")
def breakable_kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    """A broker for scenarios to break, which leave it running."""
    with started(EmbeddedKafka(server_directory("kafka"))) as made:
        yield made


@pytest.fixture
def broken_database(
    servers: Servers, breakable_postgres: EmbeddedPostgres, topic_prefix: str
) -> Iterator[str]:
    """A fresh database on the Postgres that is broken."""
    name = topic_prefix.replace("-", "_")
    dsn = breakable_postgres.create_database(name)
    migrate_template(dsn)
    yield dsn
    breakable_postgres.drop_database(name)


@pytest.fixture
async def postgres_scene(
    servers: Servers, broken_database: str, open_scene: OpenScene
) -> AsyncIterator[Scene]:
    """A stage on the shared Kafka and the Postgres that is broken."""
    async with open_scene(Endpoints(servers.endpoints.bootstrap_servers, broken_database)) as made:
        yield made


@pytest.fixture
async def shards_scene(
    servers: Servers, database: str, broken_database: str, open_scene: OpenScene
) -> AsyncIterator[Scene]:
    """A stage over two databases: shard 0 on the shared Postgres, shard 1 on the one that is broken."""
    dsns = [database, broken_database]
    await noted(dsns)
    async with open_scene(Endpoints(servers.endpoints.bootstrap_servers, " ".join(dsns))) as made:
        yield made


@pytest.fixture
async def kafka_scene(
    servers: Servers, breakable_kafka: EmbeddedKafka, database: str, open_scene: OpenScene
) -> AsyncIterator[Scene]:
    """A stage on the broker that is broken and the shared Postgres."""
    async with open_scene(Endpoints(breakable_kafka.bootstrap_servers, database)) as made:
        yield made


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section(f"faults (repeat with WAYPOST_FAULTS_SEED={seed_of_run()})")
    width = max(len(row.scenario) for row in rows)
    terminalreporter.write_line("  ".join(["scenario".ljust(width), *COLUMNS]))
    for row in rows:
        shown = row.to_dict()
        cells = ["-" if shown[one] is None else str(shown[one]) for one in COLUMNS]
        aligned = [cell.rjust(len(one)) for cell, one in zip(cells, COLUMNS, strict=True)]
        terminalreporter.write_line("  ".join([row.scenario.ljust(width), *aligned]), red=not row.good)
        for problem in row.problems:
            terminalreporter.write_line(f"    {problem}", red=True)
    report = config.getoption("--faults-report", None)
    if report:
        write_report(Path(report), rows)
        terminalreporter.write_line(f"written to {report}")


def write_report(path: Path, rows: list[Row]) -> None:
    sums = {name: sum(getattr(row, name) for row in rows) for name in COLUMNS[:-2]}
    found = {
        "seed": int(seed_of_run()),
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "scenarios": len(rows),
        "failed": [row.scenario for row in rows if not row.good],
        **sums,
        "longest_resumption_s": max((row.resumed_after or 0 for row in rows), default=0),
        "rows": [row.to_dict() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
