"""Looking into the spools of a directory."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.timeouts import PATIENCE

from waypost.publisher.pending import Pending
from waypost.publisher.spool.directory import SpoolClaim, claim
from waypost.publisher.spool.log import Log
from waypost.publisher.spool.reader import Reader
from waypost.wire.topics import Topics

NOWHERE = "127.0.0.1:1"
TOPIC = Topics().commands
SEGMENT = 64 * 1024


def claimed(directory: Path, topic: str = TOPIC, segment_bytes: int = SEGMENT) -> SpoolClaim:
    return claim(directory, topic, b"/test", segment_bytes=segment_bytes)


def give_all_up(taken: SpoolClaim) -> None:
    """As a publisher that ends."""
    for spool in list(taken.locks):
        taken.give_up(spool)


def append(spool: Log, *commands: Pending) -> None:
    """Write commands, as one call does."""
    segment = spool.write(spool.encode(commands), len(commands))
    for each in commands:
        each.home = segment
        segment.live += 1
        segment.live_bytes += each.stored


def unread(spool: Log) -> list[Pending]:
    """What a log that was opened holds and is to be sent, in order."""
    reader, found = Reader(spool), []
    while some := reader.read(100):
        found += some
        for each in some:
            each.home.unread -= 1  # type: ignore[attr-defined]
            each.home.unread_bytes -= each.stored  # type: ignore[attr-defined]
    return found


def kept(directory: Path) -> list[str]:
    """The command ids that the spools of a directory hold, in order; nobody may be using them."""
    taken = claimed(directory)
    try:
        return [each.command_id for spool in taken.left for each in unread(spool)]
    finally:
        give_all_up(taken)


def logs(directory: Path) -> list[Path]:
    """The files with commands, oldest first."""
    return sorted(directory.glob("*.log"))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def until(condition: Any, seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
