"""A schema as the target of a replay, and its contents."""

from typing import Any

from waypost_worker.postgres.migrate import pending
from waypost_worker.postgres.rows import foreign_of
from waypost_worker.postgres.statements import statement
from waypost_worker.recovery.replay.preflight import PartitionRow, Standing


async def look(connection: Any, schema: str) -> Standing:
    """The target as it is, of one moment. SchemaError if a newer or another version made it."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        tables = await connection.fetchrow(statement("target_tables", schema), schema)
        if not tables["exists"]:
            return Standing(False, False, tables["has_tables"], ())
        await pending(connection, schema)
        rows = await connection.fetch(statement("target_rows", schema))
        holds_rows = await connection.fetchval(statement("target_holds_rows", schema))
    return Standing(
        True,
        holds_rows,
        False,
        [PartitionRow(**{**row, "foreign_results": foreign_of(row["foreign_results"])}) for row in rows],
        tables["mark"],
    )


async def mark(connection: Any, schema: str, text: str) -> None:
    """Leave a mark on the schema, as its comment."""
    async with connection.transaction():
        await connection.execute(statement("target_mark_values"), schema, text)
        await connection.execute(statement("target_mark"))
