"""A worker process with probes and metrics, as tests ask it."""

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.integration.test_worker_process import Worker
from tests.support.deployment import Deployment
from tests.support.timeouts import PATIENCE

QUICK = Path(__file__).with_name("quick_worker.py")
TOP = Path(__file__).parents[2]
# For a program in the place of the worker's own that imports the tests: workers start in a directory of their own.
FINDING_TESTS = {"PYTHONPATH": ":".join(str(TOP / part) for part in ("", "schemas", "worker"))}


class Watched(Worker):
    """A worker with an HTTP port. Its metrics are at most about half a second old."""

    def __init__(self, here: Deployment, log: Path, **environment: str) -> None:
        super().__init__(here, log, WAYPOST_HTTP_PORT="0", **environment)
        self.command = (sys.executable, str(QUICK), "worker")
        self.here = here

    async def address(self) -> str:
        """Return where it listens, as soon as it does. Fail at once if it ends before."""

        def listening() -> bool:
            found = self.says("http_listening") > 0
            assert found or self.process is None or self.process.returncode is None, self.log.read_text()
            return found

        await self.here.until(listening, PATIENCE)
        port = next(
            json.loads(line)["port"] for line in self.log.read_text().splitlines() if "http_listening" in line
        )
        return f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        return await asyncio.to_thread(_get, await self.address() + path)

    async def answers(self, path: str, wanted: Callable[[int, str], bool]) -> str:
        """Wait for an answer that is as wanted; the body."""
        found = ""

        async def seen() -> bool:
            nonlocal found
            status, found = await self.get(path)
            return wanted(status, found)

        await self.here.until(seen, PATIENCE)
        return found

    async def samples(self) -> list[Sample]:
        """All series as they are now."""
        _, text = await self.get("/metrics")
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Value by name and label values, in order of the labels' names."""
        return {(sample.name, *sample.labels.values()): sample.value for sample in await self.samples()}

    async def shows(self, wanted: Callable[[dict[tuple[str, ...], float]], bool]) -> None:
        """Wait until the metrics are as wanted."""

        async def seen() -> bool:
            return wanted(await self.metrics())

        await self.here.until(seen, PATIENCE)


def _get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def ok(status: int, body: str) -> bool:
    """An answer that a probe is content with."""
    return status == 200
