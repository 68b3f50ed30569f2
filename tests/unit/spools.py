"""Looking into the spools of a directory."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.timeouts import PATIENCE

from waypost.publisher.spool.directory import claim
from waypost.wire.topics import Topics

NOWHERE = "127.0.0.1:1"
TOPIC = Topics().commands


def kept(directory: Path) -> list[str]:
    """The command ids that the spools of a directory hold, in order; nobody may be using them."""
    taken = claim(directory, TOPIC, b"/test", fsync=False)
    try:
        return [each.command_id for file in taken.left for each in file.read(0, most=100_000)]
    finally:
        for file in taken.left:
            taken.give_up(file, empty=False)
        taken.give_up(taken.own, empty=True)


def spool_in(directory: Path) -> Path:
    return next(directory.glob("*.spool"))


async def until(condition: Any, seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
