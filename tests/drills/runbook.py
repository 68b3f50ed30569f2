"""The commands of docs/runbook.md, typed in the middle of the fault that they are for."""

import asyncio
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched
from tests.support.cli import WAYPOST, environment
from tests.support.deployment import Deployment, deployment
from tests.support.prometheus import firing, promtool
from tests.support.servers import unavailable

from waypost_worker.devserver import DevServerError, Servers
from waypost_worker.devserver.jars import ensure_jars
from waypost_worker.devserver.jvm import FAST_START, Runtime
from waypost_worker.devserver.postgres_programs import binary

PAGE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
TOOLS: Final = Path(__file__).parents[1] / "integration" / "console_producer.lock"
_CLASSES: Final = {
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-transactions.sh": "org.apache.kafka.tools.TransactionsCommand",
}
_WORKER: Final = re.compile(r"((?:[A-Z_]+=\S+ )*)waypost worker(.*)")
_SECONDS: Final = 90


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


def blocks() -> dict[tuple[str, int], list[str]]:
    """For each section about an alert, and each of its code blocks by number, the commands."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        for number, block in enumerate(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)):
            lines = block.replace("\\\n", " ").splitlines()
            found[title, number] = [line.partition("  #")[0].strip() for line in lines]
    return found


class Walk:
    """Types the commands of some blocks of a section, in order.

    ``waypost worker`` starts one with probes and metrics, which then is :attr:`worker`. In ``values`` is what to put in
    place of words of the page.
    """

    def __init__(
        self,
        here: Deployment,
        directory: Path,
        worker: Watched | None,
        settings: Mapping[str, str],
        values: Mapping[str, str],
        lines: list[str],
    ) -> None:
        self.worker = worker
        self.values = {
            "waypost.commands": here.topics.commands,
            "waypost.results": here.topics.results,
            "--http-port 9464": "--http-port 0",
            **values,
        }
        self._here = here
        self._directory = directory
        self._settings = {
            "WAYPOST_BOOTSTRAP_SERVERS": here.endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": here.dsn,
            "WAYPOST_TOPIC_PREFIX": here.topics.prefix,
            "WAYPOST_GROUP_ID": here.topics.prefix,
            **settings,
        }
        self.lines = list(lines)
        self._started = 0
        self._bin = directory / "bin"

    async def step(self) -> str:
        """Type the next command; what it printed. It must end well, but for a doctor that finds something."""
        line = self.lines.pop(0)
        for word, value in self.values.items():
            line = line.replace(word, value)
        if started := _WORKER.fullmatch(line):
            await self._start(*started.groups())
            return ""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-ec", f"set -o pipefail; {line}"),
            cwd=self._directory,
            env=await self._environment(line),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), _SECONDS)
        allowed = (0, 1) if line.startswith(("waypost doctor", "waypost topics check")) else (0,)
        assert process.returncode in allowed, (line, out.decode(), err.decode())
        return out.decode()

    async def rest(self) -> str:
        """Type all that is left; what was printed."""
        return "".join([await self.step() for _ in range(len(self.lines))])

    async def _start(self, variables: str, arguments: str) -> None:
        given = dict(one.split("=", 1) for one in variables.split())
        self._started += 1
        worker = Watched(
            self._here, self._directory / f"walked-{self._started}.log", **self._settings, **given
        )
        worker.command = (*worker.command, *shlex.split(arguments))
        self.worker = await worker.start()

    async def _environment(self, line: str) -> dict[str, str]:
        self._bin.mkdir(exist_ok=True)
        self._shim("waypost", WAYPOST)
        self._shim("psql", [str(binary("psql"))])
        for name, main in _CLASSES.items():
            if name in line or "acls" in line:
                self._shim(name, _java(main, self._directory))
        found = environment(self._settings)
        found["PATH"] = f"{self._bin}:{found['PATH']}"
        if self.worker is not None and self.worker.process is not None:
            found["PID"] = str(self.worker.process.pid)
            if "$WORKER" in line:
                found["WORKER"] = await self.worker.address()
        return found

    def _shim(self, name: str, command: list[str] | tuple[str, ...]) -> None:
        path = self._bin / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        path.chmod(0o755)


def _java(main: str, scratch: Path) -> list[str]:
    try:
        jars = [*ensure_jars(), *ensure_jars(lock_file=TOOLS)]
    except DevServerError as error:
        unavailable(str(error))
    return Runtime(tuple(jars)).command(main, [], profile=FAST_START, scratch=scratch)


def walking(
    here: Deployment,
    directory: Path,
    section: str,
    *numbers: int,
    worker: Watched | None = None,
    settings: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
) -> Walk:
    """A walk through these blocks of a section; skips where what it needs is not here."""
    promtool()
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    lines = [line for number in numbers for line in blocks()[section, number]]
    return Walk(here, directory, worker, settings or {}, values or {}, lines)


async def raised(directory: Path, *workers: Watched) -> set[str]:
    """What would fire if what workers show now went on."""
    found = [await worker.samples() for worker in workers]
    return await asyncio.to_thread(firing, directory, *((one, one) for one in found))


async def calm(here: Deployment, directory: Path, *workers: Watched) -> None:
    """Nothing would fire any more: looked at twice, with commands applied in between."""
    for worker in workers:
        await worker.shows(_well)
    first = [await worker.samples() for worker in workers]
    answered = sum(len(records) for records in (await here.results()).values())
    await publish(here, 20)
    await here.answered(min(20, answered))
    for worker in workers:
        await worker.shows(_well)
    looks = list(zip(first, [await worker.samples() for worker in workers], strict=True))
    fires = await asyncio.to_thread(firing, directory, *looks)
    assert not fires, fires


def _well(found: Mapping[tuple[str, ...], float]) -> bool:
    lags = [
        value
        for name, value in found.items()
        if name[0] in ("waypost_lag_commands", "waypost_record_age_seconds")
    ]
    owned = found["waypost_owned_partitions",] == found["waypost_assigned_partitions",]
    answer = all(value for name, value in found.items() if name[0] == "waypost_postgres_shard_up")
    return bool(lags) and not any(lags) and owned and answer and found["waypost_loop_delay_seconds",] < 1
