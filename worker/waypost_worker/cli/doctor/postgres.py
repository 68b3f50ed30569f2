"""Checks of ``waypost doctor`` on a Postgres database: its tables, autovacuum, and its place among shards.

The server itself is looked at by ``waypost_worker.postgres.server_check``, as at each start of a worker.
"""

from collections.abc import Sequence
from typing import Any, Final

from waypost_worker.cli.support.connections import query
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.postgres.migrate import SchemaError
from waypost_worker.postgres.shards import check_distinct, check_found, look

# By default, autovacuum begins at 20 % of a table; three times that is a sign that it does not keep up.
_DEAD_SHARE: Final = 0.6
_DEAD_ROWS: Final = 100_000


async def check_tables(connection: Any, settings: Settings) -> list[Finding]:
    """Check the role's privileges on each table of the schema, and how autovacuum keeps up with the tables."""
    findings = []
    tables = await connection.fetch(query("doctor/tables"), settings.postgres_schema)
    for table in tables:
        subject = f"table {table['name']}"
        if table["lacking"]:
            rights = ", ".join(table["lacking"])
            fix = f"grant {rights.lower()} on {settings.postgres_schema}.{table['name']} to the workers' role"
            findings.append(Finding("error", subject, f"the role lacks {rights}", fix))
        if table["not_vacuumed"]:
            fix = f"alter table {settings.postgres_schema}.{table['name']} reset (autovacuum_enabled)"
            findings.append(Finding("warning", subject, "autovacuum is off for it", fix))
        if table["dead"] > max(_DEAD_ROWS, _DEAD_SHARE * table["live"]):
            message = f"{table['dead']:,} rows are dead, {table['live']:,} live: autovacuum does not keep up"
            fix = "look for old transactions and replication slots; lower autovacuum_vacuum_cost_delay"
            findings.append(Finding("warning", subject, message, fix))
    return findings or [Finding("ok", "tables", f"{len(tables)} tables, with all rights that a worker needs")]


async def check_places(connections: Sequence[Any], settings: Settings) -> list[Finding]:
    """Check that the databases belong together and are in the right order."""
    shards = len(connections)
    try:
        found = [await look(connection, settings.postgres_schema) for connection in connections]
        check_found(found)
        await check_distinct(connections)
    except SchemaError as error:
        return [Finding("error", "shards", str(error), "see --postgres-dsn, and docs/sharding.md")]
    if shards == 1:
        return []
    if any(one.noted is None for one in found):
        message = f"not all of the {shards} databases have noted their places yet"
        return [Finding("warning", "shards", message, "run 'waypost migrate', or start a worker")]
    return [Finding("ok", "shards", f"{shards} databases, each in its place")]
