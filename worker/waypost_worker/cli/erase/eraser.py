"""Erase sessions, one at a time.

Each step can be repeated. If a run is killed between two steps, the next run starts again with the first step, and ends
with a receipt that says the same.
"""

from typing import TYPE_CHECKING, Any, Final

from waypost.wire.event_types import EventType
from waypost_worker.cli.erase.held import look, require_gone
from waypost_worker.cli.erase.keys import delete_key
from waypost_worker.cli.erase.receipt import make_receipt
from waypost_worker.cli.erase.remaining import Erasure, Places
from waypost_worker.cli.support.connections import kafka_connection, kafka_errors, query
from waypost_worker.cli.support.databases import Databases
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings
from waypost_worker.operations.rejected import RejectedFilters, purge_rejected
from waypost_worker.operations.sending import Prepared, result_of

if TYPE_CHECKING:
    from datetime import datetime

    from waypost.publisher.client import Publisher
    from waypost.publisher.waiter import CommandResult

_UNSUPPORTED: Final = "unsupported-type"
# Workers can't remove these: they don't look at the session of a command that they skip or find in a wrong partition.
_LEFT_BY_WORKERS: Final = ("misrouted", "skipped")
_ASKED: Final = 3


async def require_this_version(settings: Settings) -> None:
    """Raise CommandError if there is a worker of another version, which may not know tombstones.

    It would reject the erasure or, worse, take a partition over later and apply later commands of the session.
    """
    from waypost import __version__
    from waypost_worker.kafka.group_members import UNKNOWN_VERSION, worker_versions
    from waypost_worker.partition.ports import RefusedError

    try:
        async with kafka_errors(settings):
            found = await worker_versions(kafka_connection(settings), settings.group_id)
    except (CommandError, RefusedError):
        return  # this login may not look, or Kafka is unreachable, which publishing reports better
    if others := sorted(set(found) - {__version__, UNKNOWN_VERSION}):
        raise CommandError(
            f"this is version {__version__}, and workers of version {' and '.join(others)} are running, which may not "
            "know erased sessions. Nothing was changed. Finish the upgrade of workers and command line, and start this "
            "again"
        )


class Eraser:
    """Takes sessions through the steps of an erasure. Each wait for Kafka and a worker takes at most ``timeout``."""

    def __init__(
        self, settings: Settings, databases: Databases, publisher: "Publisher", places: Places, timeout: float
    ) -> None:
        self._settings = settings
        self._databases = databases
        self._publisher = publisher
        self._places = places
        self._timeout = timeout

    async def erase(self, session: str, erased_at: "datetime | None") -> dict[str, Any]:
        """Erase a session and return the receipt. ``erased_at`` is when it was erased before, if it was."""
        schema = self._settings.postgres_schema
        key = await delete_key(self._settings, session, erased_at)
        result = await self._command(session)
        owed = await self._settle(session, result)
        for code in _LEFT_BY_WORKERS:
            filters = RejectedFilters(session=session, code=code)
            async for _ in purge_rejected(self._databases, schema, filters):
                pass
        held = await look(self._databases, schema, session)
        last = require_gone(held, session)
        place = result.token[0]
        erasure = Erasure(session, place, held.first, last, key, owed=owed, unattributed=held.unattributed)
        left = await self._places.remaining(erasure)
        return make_receipt(session, self._settings.topics.commands, result.body, key, left)

    async def _command(self, session: str, command_id: str | None = None) -> "CommandResult":
        """Publish the command and return its result. Raise CommandError if a worker does not know it."""
        command = Prepared(session, EventType.ERASE, b"{}")
        result = await result_of(self._publisher, command, self._timeout, command_id)
        if result.type == EventType.REJECTED and result.body["code"] == _UNSUPPORTED:
            raise CommandError(
                f"the worker of partition {result.body['command']['partition']} is of an earlier version and doesn't "
                "know how to erase sessions. It keeps the command as rejected. Upgrade all workers, and start this "
                "again"
            )
        return result.raise_if_rejected()

    async def _settle(self, session: str, result: "CommandResult") -> int:
        """Have emitted results removed from the outbox. Return how many entries are left that may hold some.

        A batch removes what was emitted before it. A partition without traffic has no such batch, so the same command
        is published again: it makes one, and changes nothing.
        """
        partition, offset = result.token
        database, sql = self._databases.of(partition), query("erase/owed", self._settings.postgres_schema)
        owed = 0
        for _ in range(_ASKED):
            await self._command(session, result.body["command"]["id"])
            owed = int(await database.fetchval(sql, partition, offset))
            if not owed:
                break
        return owed
