"""Moving a database to new, empty topics: its sessions stay, its positions in the old log do not.

With more partitions than before, sessions move to other partitions, within their database. That requires a proof that
the old topics are drained, because each partition's order of commands ends there and starts again elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waypost.wire.topics import partition_of
from waypost_worker.partition import outbox
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.statements import statement


@dataclass(frozen=True, slots=True)
class Adopted:
    """The outcome. ``unanswered`` results were never emitted to the old topic, and now never will be."""

    partitions: int
    applied: int
    unanswered: int


async def adopt(
    connections: Sequence[Any],
    schema: str,
    partitions: int,
    *,
    dry_run: bool,
    drained: Mapping[int, int] | None = None,
    authority: str | None = None,
) -> Adopted:
    """Adopt the topics in one transaction on each database, or not at all. Earlier owners are fenced by their epochs.

    Positions of what is stored become negative: before any new command, in the old order. RefusedError if a database
    was made for another number of partitions. Done again, where one of several could not commit, it ends well.

    ``drained`` are the offsets at which the partitions of the old topics end, all applied; with it, the new topics may
    have more partitions. Raise RefusedError if a database has another position, has a result that is not emitted, or
    would have to give a session away.

    ``authority`` is a public key that takes the place of all that commands named before.
    """
    transactions: list[Any] = []
    parts: list[Adopted] = []
    committed = 0
    try:
        for connection in connections:
            transactions.append(connection.transaction())
            await transactions[-1].start()
            parts.append(await _adopt(connection, schema, partitions, drained, dry_run=dry_run))
        if drained is None and not any(part.partitions for part in parts):
            raise RefusedError(f"the schema {schema!r} has no position in a log: workers can use it as is")
        if drained is not None:
            await _repartition(connections, schema, partitions, len(drained))
        if authority is not None:
            for connection in connections:
                await connection.execute(statement("adopt_authority", schema), authority)
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


async def _adopt(
    connection: Any, schema: str, partitions: int, drained: Mapping[int, int] | None, *, dry_run: bool
) -> Adopted:
    def sql(name: str) -> str:
        return statement(name, schema)

    rows = await connection.fetch(sql("adopt_fence"))
    old = partitions if drained is None else len(drained)
    if (
        old != partitions
        and rows
        and all((row["partitions"], row["next_offset"]) == (partitions, 0) for row in rows)
    ):
        return Adopted(0, 0, 0)  # it has moved already, where another one of the list could not
    if other := [row["partitions"] for row in rows if row["partitions"] != old]:
        which = "new" if drained is None else "old"
        raise RefusedError(
            f"the schema {schema!r} was created for {other[0]} partitions, the {which} topics have {old}: "
            "sessions would move to other partitions. Nothing was changed; create topics with the old "
            "count, or see docs/partitions.md"
        )
    unanswered = 0
    for row in rows:
        unanswered += await owed(connection, schema, row["partition"], row["emitted"])
    if drained is not None:
        _check_drained(rows, drained, unanswered)
    if not dry_run:
        shift = await connection.fetchval(sql("adopt_shift"))
        for name in ("adopt_checkpoints", "adopt_commands", "adopt_rejected"):
            await connection.execute(sql(name), shift)
        await connection.execute(sql("adopt_outbox"))
        await connection.execute(sql("adopt_partitions"))
    return Adopted(len(rows), sum(row["next_offset"] for row in rows), unanswered)


async def owed(connection: Any, schema: str, partition: int, emitted: int) -> int:
    """Return how many results in a partition's outbox are not known to be emitted."""
    entries = await connection.fetch(statement("read_outbox", schema), [partition])
    return sum(item[0] > emitted for entry in entries for item in outbox.unpack(entry["payload"]))


def _check_drained(rows: Sequence[Any], drained: Mapping[int, int], unanswered: int) -> None:
    """Raise RefusedError unless the database, now that no owner can commit, is at the end of the old topics."""
    moved = [row["partition"] for row in rows if row["next_offset"] != drained[row["partition"]]]
    if moved or unanswered:
        raise RefusedError(
            f"workers are still running (partitions {moved}, {unanswered} results pending). Nothing was "
            "changed; stop them, and check with 'waypost topics drained'"
        )


async def _repartition(connections: Sequence[Any], schema: str, partitions: int, old: int) -> None:
    """Let sessions and policies be where keys lead with this many partitions; in the transactions at hand."""
    shards = len(connections)
    if partitions < old or partitions % shards or old % shards:
        raise RefusedError(
            f"from {old} to {partitions} partitions over {shards} database(s): there can't be fewer, and the number of "
            "databases must divide both, so that each session stays in its database. Nothing was changed"
        )
    policies: set[str | None] = set()
    for connection in connections:
        policies |= {row[0] for row in await connection.fetch(statement("adopt_policies", schema))}
    if len(policies) > 1:
        raise RefusedError(
            f"the default policy differs between partitions (there are {len(policies)}), and sessions would "
            "get a different one. Nothing was changed; publish one for all with 'waypost defaults', and "
            "begin again with 'waypost "
            "topics drained'"
        )
    for shard, connection in enumerate(connections):
        await connection.execute(statement("adopt_count", schema), partitions)
        await connection.execute(statement("adopt_added", schema), partitions, shard, shards)
        last = ""
        while names := [row[0] for row in await connection.fetch(statement("adopt_sessions", schema), last)]:
            places = [partition_of(name, partitions) for name in names]
            await connection.execute(statement("adopt_moved", schema), names, places)
            last = names[-1]
