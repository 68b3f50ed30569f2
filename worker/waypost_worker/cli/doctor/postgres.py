"""What ``waypost doctor`` asks of a Postgres database: its tables, autovacuum, its place among shards, and its clock.

The server itself is looked at by ``waypost_worker.postgres.server_check``, as at each start of a worker.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

from waypost_worker.cli.support.connections import query
from waypost_worker.config.settings import Settings
from waypost_worker.findings import Finding
from waypost_worker.kafka.broker_clock import ClockReading
from waypost_worker.postgres.migrate import SchemaError
from waypost_worker.postgres.shards import check_distinct, check_found, look
from waypost_worker.postgres.statements import statement

# Autovacuum begins at 20 % of a table unless told otherwise; three times that is a sign that it does not keep up.
_DEAD_SHARE: Final = 0.6
_DEAD_ROWS: Final = 100_000
_IDLE_DAYS: Final = 90
_IDLE_SESSIONS: Final = 1000


async def check_tables(connection: Any, settings: Settings) -> list[Finding]:
    """What the role may do with each table of the schema, and how autovacuum keeps up with it."""
    findings = []
    tables = await connection.fetch(query("doctor/tables"), settings.postgres_schema)
    for table in tables:
        subject = f"table {table['name']}"
        if table["lacking"]:
            rights = ", ".join(table["lacking"])
            mend = (
                f"grant {rights.lower()} on {settings.postgres_schema}.{table['name']} to the workers' role"
            )
            findings.append(Finding("error", subject, f"the role lacks {rights}", mend))
        if table["not_vacuumed"]:
            mend = f"alter table {settings.postgres_schema}.{table['name']} reset (autovacuum_enabled)"
            findings.append(Finding("warning", subject, "autovacuum is off for it", mend))
        if table["dead"] > max(_DEAD_ROWS, _DEAD_SHARE * table["live"]):
            message = f"{table['dead']:,} rows are dead, {table['live']:,} live: autovacuum does not keep up"
            mend = "look for old transactions and replication slots; lower autovacuum_vacuum_cost_delay"
            findings.append(Finding("warning", subject, message, mend))
    return findings or [Finding("ok", "tables", f"{len(tables)} tables, with all rights that a worker needs")]


async def check_idle_sessions(connection: Any, settings: Settings) -> Finding:
    """How many sessions hold checkpoints that nobody has asked for in a long time."""
    sql = query("doctor/idle", settings.postgres_schema)
    idle = await connection.fetchval(sql, _IDLE_SESSIONS, _IDLE_DAYS)
    if idle < _IDLE_SESSIONS:
        return Finding(
            "ok", "sessions", f"{idle:,} hold checkpoints and had no command for {_IDLE_DAYS} days"
        )
    message = f"{_IDLE_SESSIONS:,} or more hold checkpoints and had no command for {_IDLE_DAYS} days"
    mend = f"'waypost expire --idle {_IDLE_DAYS}d --dry-run' lists them; run it without --dry-run once a day"
    return Finding("warning", "sessions", message, mend)


async def check_places(connections: Sequence[Any], settings: Settings) -> list[Finding]:
    """Whether the databases are those that belong together, in their order."""
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


async def postgres_clock(connection: Any) -> ClockReading:
    """The server's clock."""
    asked = time.time()
    now: float = (await connection.fetchrow(statement("server_state")))["now"]
    answered = time.time()
    return ClockReading(now - (asked + answered) / 2, (answered - asked) / 2)
