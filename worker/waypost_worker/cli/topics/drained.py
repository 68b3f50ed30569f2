"""``waypost topics drained``: whether all that the topics hold is applied and answered."""

import asyncio
from dataclasses import dataclass
from typing import Any

from waypost_worker.cli.support.connections import kafka_errors, postgres_errors
from waypost_worker.cli.support.databases import Databases, connected
from waypost_worker.cli.support.logs import command_logs, command_partitions, waiting_in
from waypost_worker.cli.support.options import NOTHING_GIVEN, Common
from waypost_worker.cli.support.output import DONE, FAILED, CommandError, note, show_rows
from waypost_worker.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Drained:
    """One partition: ``applied`` is the offset up to which the database has the log, which ends at ``end``. Between
    them are ``waiting`` commands; of what was applied ``unanswered`` results are not known to be in the topic.
    """

    partition: int
    applied: int
    end: int
    waiting: int
    unanswered: int

    @property
    def done(self) -> bool:
        """Return whether nothing is left behind."""
        return not self.waiting and not self.unanswered


def drained(*, common: Common = NOTHING_GIVEN) -> int:
    """Prove that all commands in the topic are applied and answered; exit code 1
    if some are not.

    Before you replace topics, and after you stop every publisher, show what would be left behind. Results count as
    answered once a worker has recorded that Kafka has them, at the latest when the worker stops. It is an error if the
    command topic is not the one whose commands were applied.

    For example:

      waypost topics drained
      waypost topics drained -o json
    """
    settings = common.settings()
    found = asyncio.run(look(settings))
    rows = [
        {
            "partition": one.partition,
            "applied": one.applied,
            "end": one.end,
            "waiting": one.waiting,
            "unanswered": one.unanswered,
        }
        for one in found
    ]
    show_rows(rows, common.output, ("partition", "applied", "end", "waiting", "unanswered"))
    if left := what_is_left(found):
        note(f"not drained: {left}")
        return FAILED
    return DONE


def what_is_left(found: list[Drained]) -> str:
    """Describe what is left behind and how to resolve it; empty if nothing is."""
    waiting = sum(one.waiting for one in found)
    unanswered = sum(one.unanswered for one in found)
    left = []
    if waiting:
        left.append(f"{waiting} commands wait; let workers apply them, with every publisher stopped")
    if unanswered:
        left.append(
            f"{unanswered} results are not known to be in the topic; end the workers with SIGTERM, and if one was "
            "killed, start one and end it so"
        )
    return "; ".join(left)


async def look(settings: Settings, moved_to: int | None = None) -> list[Drained]:
    """Compare each partition of the topics with the databases.

    A database that has already ``moved_to`` this many partitions, while another one of the list could not, was drained.
    """
    async with kafka_errors(settings), postgres_errors(settings):
        partitions = await command_partitions(settings)
        logs_of = command_logs(settings, partitions)
        async with connected(settings) as databases, logs_of as logs:
            # Ends before positions, so that commands applied in between do not make the count too high.
            bounds = {partition: await log.bounds() for partition, log in logs.items()}
            positions = await _positions(settings, databases)
            moved = (
                {at for at, row in positions.items() if _moved(row, moved_to)}
                if moved_to != partitions
                else set()
            )
            _check(settings, partitions, [row for at, row in positions.items() if at not in moved])
            found = []
            for partition, log in logs.items():
                low, end = bounds[partition]
                row = positions.get(partition)
                if partition in moved:
                    found.append(Drained(partition, end, end, 0, 0))
                    continue
                applied = 0 if row is None else row["next_offset"]
                if row is not None:
                    await _check_same_log(partition, log, row)
                first = max(applied, low)
                waiting = await waiting_in(log, first, end)
                found.append(
                    Drained(partition, applied, end, waiting, 0 if row is None else row["unanswered"])
                )
            return found


async def _check_same_log(partition: int, log: Any, row: Any) -> None:
    """Raise CommandError unless the log is the one whose commands the database has applied."""
    from waypost_worker.partition.acquire import check_log
    from waypost_worker.partition.ports import RefusedError

    try:
        await check_log(log, row["next_offset"], row["anchor"])
    except RefusedError as error:
        raise CommandError(f"partition {partition} is not drained: {error}") from None


def _moved(row: Any, moved_to: int | None) -> bool:
    return bool(row["partitions"] == moved_to and row["next_offset"] == 0)


def _check(settings: Settings, partitions: int, rows: list[Any]) -> None:
    if other := [row["partitions"] for row in rows if row["partitions"] != partitions]:
        raise CommandError(
            f"the topics of {settings.topic_prefix!r} have {partitions} partitions, the database was used with "
            f"{other[0]}: they are not its topics, or partitions were added to them. Nothing was changed; see "
            "docs/partitions.md"
        )


async def _positions(settings: Settings, databases: Databases) -> dict[int, Any]:
    from waypost_worker.postgres.adopt import owed
    from waypost_worker.postgres.migrate import SchemaError, check_schema
    from waypost_worker.postgres.statements import statement

    schema = settings.postgres_schema
    found: dict[int, Any] = {}
    for database in databases:
        try:
            await check_schema(database, schema)
        except SchemaError as error:
            raise CommandError(str(error)) from None
        for row in await database.fetch(statement("positions", schema)):
            unanswered = await owed(database, schema, row["partition"], row["emitted"])
            found[row["partition"]] = {**row, "unanswered": unanswered}
    return found
