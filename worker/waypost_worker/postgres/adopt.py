"""Making a database go on with new, empty topics: its sessions stay, its positions in the old log do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from waypost_worker.partition import outbox
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.statements import statement


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was done. ``unanswered`` results were never emitted to the old topic, and now never will be."""

    partitions: int
    applied: int
    unanswered: int


async def adopt(connections: Sequence[Any], schema: str, partitions: int, *, dry_run: bool) -> Adopted:
    """In one transaction on each database, or not at all; owners of before are fenced by their epochs.

    Positions of what is stored become negative: before any new command, in the old order. RefusedError if a database
    was made for another number of partitions. Done again, where one of several could not commit, it ends well.
    """
    transactions: list[Any] = []
    parts: list[Adopted] = []
    committed = 0
    try:
        for connection in connections:
            transactions.append(connection.transaction())
            await transactions[-1].start()
            parts.append(await _adopt(connection, schema, partitions, dry_run=dry_run))
        if not any(part.partitions for part in parts):
            raise RefusedError(f"the schema {schema!r} stands at no log: workers begin with it as it is")
        if not dry_run:
            for transaction in transactions:
                await transaction.commit()
                committed += 1
    finally:
        for transaction in transactions[committed:]:
            await transaction.rollback()
    return Adopted(
        sum(part.partitions for part in parts),
        sum(part.applied for part in parts),
        sum(part.unanswered for part in parts),
    )


async def _adopt(connection: Any, schema: str, partitions: int, *, dry_run: bool) -> Adopted:
    def sql(name: str) -> str:
        return statement(name, schema)

    rows = await connection.fetch(sql("adopt_fence"))
    if other := [row["partitions"] for row in rows if row["partitions"] != partitions]:
        raise RefusedError(
            f"the schema {schema!r} was made for {other[0]} partitions, the new topics have {partitions}: "
            "sessions would be elsewhere. Nothing was changed; make topics with the old count"
        )
    unanswered = 0
    for row in rows:
        entries = await connection.fetch(sql("read_outbox"), row["partition"])
        items = [item for entry in entries for item in outbox.unpack(entry["payload"])]
        unanswered += sum(item[0] > row["emitted"] for item in items)
    if not dry_run:
        shift = await connection.fetchval(sql("adopt_shift"))
        for name in ("adopt_checkpoints", "adopt_commands", "adopt_rejected"):
            await connection.execute(sql(name), shift)
        await connection.execute(sql("adopt_outbox"))
        await connection.execute(sql("adopt_partitions"))
    return Adopted(len(rows), sum(row["next_offset"] for row in rows), unanswered)
