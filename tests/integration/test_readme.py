"""The README's programs run exactly as they are printed, in the directory of a running dev server."""

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.deployment import deployment
from tests.support.timeouts import PATIENCE

from waypost.endpoints import Endpoints
from waypost_worker.devserver import Servers

STRICT = ("-W", "error::DeprecationWarning")
README = Path(__file__).parents[2] / "README.md"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


async def test_the_programs_of_the_readme_run_as_they_are_printed(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    (tmp_path / ".waypost").mkdir()
    Endpoints(servers.kafka.bootstrap_servers, database).write(tmp_path / ".waypost")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    environment["WAYPOST_TOPIC_PREFIX"] = topic_prefix  # several tests share the servers

    async def started(code: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *STRICT, "-c", code),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env=environment,
        )

    agent, billing, langgraph = examples()
    async with deployment(servers.endpoints, database, topic_prefix) as here:
        here.own()
        subscriber = await started(billing)
        try:
            published = await started(agent)
            await asyncio.wait_for(published.communicate(), PATIENCE)
            assert published.returncode == 0
            assert subscriber.stdout is not None
            lines = [await asyncio.wait_for(subscriber.stdout.readline(), PATIENCE) for _ in range(3)]
            subscriber.send_signal(signal.SIGINT)  # Ctrl-C
            _, said = await asyncio.wait_for(subscriber.communicate(), PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                subscriber.kill()
            await subscriber.wait()
        assert (subscriber.returncode, said.decode()) == (0, "")
        graph = await started(langgraph)
        out, _ = await asyncio.wait_for(graph.communicate(), PATIENCE)
    assert [line.decode().strip() for line in lines] == [
        f"session-1:{n + 1} {{'step': {n}}}" for n in range(3)
    ]
    assert (graph.returncode, out.decode().strip()) == (0, "{'plan': 'flights first'}")


def test_each_program_is_a_dozen_lines() -> None:
    for code in examples():
        assert len([line for line in code.splitlines() if line.strip()]) <= 12
