"""The README's examples run as they stand; only the address is exchanged."""

import asyncio
import re
import sys
from pathlib import Path

from tests.support.deployment import deployment
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import Servers

STRICT = ("-W", "error::DeprecationWarning")
README = Path(__file__).parents[2] / "README.md"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


async def test_the_agent_and_the_subscriber_of_the_readme(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix) as here:
        here.own(0)
        agent, billing = (
            code.replace(
                '"localhost:9092"', f'"{here.endpoints.bootstrap_servers}", topic_prefix="{topic_prefix}"'
            )
            for code in examples()
        )
        subscriber = await asyncio.create_subprocess_exec(
            sys.executable, *STRICT, "-c", billing, stdout=asyncio.subprocess.PIPE
        )
        try:
            published = await asyncio.create_subprocess_exec(sys.executable, *STRICT, "-c", agent)
            assert await asyncio.wait_for(published.wait(), PATIENCE) == 0
            assert subscriber.stdout is not None
            lines = [await asyncio.wait_for(subscriber.stdout.readline(), PATIENCE) for _ in range(3)]
        finally:
            subscriber.kill()
            await subscriber.wait()
    assert [line.decode().strip() for line in lines] == [
        f"session-1:{n + 1} {{'step': {n}}}" for n in range(3)
    ]


def test_each_example_is_ten_lines_or_so() -> None:
    for code in examples():
        assert len([line for line in code.splitlines() if line.strip()]) <= 12
