"""What tests of the reader share: a session in memory and in the service, and what a checkpoint shows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from tests.support.commands import create_body
from tests.support.deployment import Deployment
from tests.support.timeouts import PATIENCE

from waypost import Checkpoint, CheckpointManager, Reader, SessionReader
from waypost.model.times import format_micros, to_micros
from waypost.wire.encode import checkpoint_body, import_body
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType

START = datetime(2026, 11, 24, 8, tzinfo=UTC)
NAMES = ["task_started", "tool_called", "task_done"]


class Twin:
    """The same session in memory and in the service."""

    def __init__(self, world: Deployment, session_id: str) -> None:
        self.world = world
        self.session_id = session_id
        self.manager = CheckpointManager(session_id)
        self.offset = -1

    async def send(self, kind: str, body: bytes, at: datetime = START) -> None:
        headers = command_headers(
            f"{self.session_id}-{self.offset}", b"/test", kind.encode(), format_micros(to_micros(at)).encode()
        )
        self.offset = await self.world.send(body, self.session_id.encode(), headers=headers)

    async def create(self, name: str, at: datetime, data: Any = None, metadata: Any = None) -> None:
        data = {"at": str(at)} if data is None else data
        self.manager.create(name, data, metadata, timestamp=at)
        await self.send(EventType.CREATE, create_body(name, data, metadata), at)

    async def pin(self, checkpoint_id: str) -> None:
        self.manager.pin(checkpoint_id)
        await self.send(EventType.PIN, checkpoint_body(checkpoint_id))

    async def delete(self, checkpoint_id: str) -> None:
        self.manager.delete(checkpoint_id)
        await self.send(EventType.DELETE, checkpoint_body(checkpoint_id))

    async def take_over(self, items: list[dict[str, Any]]) -> None:
        self.manager.import_checkpoints(orjson.dumps(items))
        await self.send(EventType.IMPORT, import_body([orjson.dumps(item) for item in items]))

    async def applied(self, reader: Reader) -> SessionReader:
        """The session's reads, once everything was applied."""
        await reader.wait_for((0, self.offset), timeout=PATIENCE)
        return reader.session(self.session_id)


async def varied(world: Deployment, session_id: str = "run-1") -> Twin:
    """A session in which times tie and go backwards, names repeat, and something is missing."""
    twin = Twin(world, session_id)
    minutes = [0, 5, 5, 3, 9, 9, 1, 12]
    for number, minute in enumerate(minutes):
        at = START + timedelta(minutes=minute, microseconds=minute)
        await twin.create(
            NAMES[number % 3], at, {"n": number, "z": "\0"}, {"step": number, "even": number % 2 == 0}
        )
    await twin.pin(f"{session_id}:2")
    await twin.delete(f"{session_id}:3")
    await twin.take_over(
        [
            {"id": "elsewhere:7", "name": "brought", "timestamp": "2026-11-24T08:04:00Z", "data": {}},
            {
                "id": f"{session_id}:3",
                "name": "back",
                "timestamp": "2020-01-01T00:00:00Z",
                "data": {"b": [1.50]},
            },
        ]
    )
    return twin


def shown(checkpoints: list[Checkpoint]) -> list[Any]:
    return [
        (c.id, c.name, c.timestamp, c.raw_data, c.raw_metadata, c.pinned, c.imported_id) for c in checkpoints
    ]
