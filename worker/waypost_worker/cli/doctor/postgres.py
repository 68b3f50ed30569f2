"""What ``waypost doctor`` asks of a Postgres server: version, durability, role, tables, autovacuum, and its clock."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from waypost_worker.cli.support.connections import query
from waypost_worker.config.settings import Settings
from waypost_worker.kafka.broker_clock import ClockReading
from waypost_worker.kafka.topics import Finding
from waypost_worker.postgres.migrate import OLDEST_SERVER, SchemaError
from waypost_worker.postgres.shards import check_distinct, check_found, look

# What a crash of the server would lose without them was committed, and may have been emitted.
_DURABILITY: Final = ("fsync", "full_page_writes", "synchronous_commit")
_OTHERS: Final = (
    "autovacuum",
    "default_transaction_read_only",
    "max_connections",
    "server_encoding",
    "statement_timeout",
    "superuser_reserved_connections",
)
# Autovacuum begins at 20 % of a table unless told otherwise; three times that is a sign that it does not keep up.
_DEAD_SHARE: Final = 0.6
_DEAD_ROWS: Final = 100_000
# Postgres stops taking commands some 2,100 million transactions after the oldest row that is not frozen.
_FROZEN_AGE: Final = 1_000_000_000
_LONG_TRANSACTION: Final = 3600.0


async def check_server(connection: Any, settings: Settings) -> list[Finding]:
    """Everything about the server that does not need Waypost's schema."""
    version = connection.get_server_version()
    findings = [
        Finding("ok", "postgres", f"version {version.major}.{version.minor}")
        if version.major >= OLDEST_SERVER
        else Finding(
            "error",
            "postgres",
            f"version {version.major} is too old",
            f"use PostgreSQL {OLDEST_SERVER} or newer",
        )
    ]
    rows = await connection.fetch(query("doctor/settings"), [*_DURABILITY, *_OTHERS])
    found = {row["name"]: row["setting"] for row in rows}
    findings += [_durability(name, found[name]) for name in _DURABILITY]
    findings += _settings(found, settings)
    server = await connection.fetchrow(query("doctor/server"))
    return [*findings, *_role(server), *_life(server)]


def _durability(name: str, value: str) -> Finding:
    if value != "off":
        return Finding("ok", "postgres", f"{name}={value}")
    mend = f"set {name}=on: a crash of the server loses what was committed"
    return Finding("error", "postgres", f"{name}={value}", mend)


def _settings(found: Mapping[str, str], settings: Settings) -> list[Finding]:
    findings = []
    encoding = found["server_encoding"]
    mend = "" if encoding == "UTF8" else "make the database with encoding UTF8"
    findings.append(Finding("error" if mend else "ok", "postgres", f"server_encoding={encoding}", mend))
    if found["autovacuum"] == "off":
        mend = "set autovacuum=on: rows that were replaced pile up, and each command costs more"
        findings.append(Finding("error", "postgres", "autovacuum=off", mend))
    else:
        findings.append(Finding("ok", "postgres", "autovacuum=on"))
    if found["default_transaction_read_only"] == "on":
        mend = "set default_transaction_read_only=off for the workers' role"
        findings.append(Finding("error", "postgres", "transactions are read-only", mend))
    usable = int(found["max_connections"]) - int(found["superuser_reserved_connections"])
    if settings.postgres_pool_size > usable:
        message = f"a worker may open {settings.postgres_pool_size} connections, the server takes {usable}"
        mend = "lower WAYPOST_POSTGRES_POOL_SIZE, or raise max_connections"
        findings.append(Finding("error", "postgres", message, mend))
    else:
        message = f"takes {usable} connections, a worker opens up to {settings.postgres_pool_size}"
        findings.append(Finding("ok", "postgres", message))
    limit = int(found["statement_timeout"])
    if 0 < limit < settings.request_timeout * 1000:
        message = f"statement_timeout={limit} ms ends statements that a worker still waits for"
        mend = f"set statement_timeout=0 for the workers' role, or above {settings.request_timeout:g} s"
        findings.append(Finding("warning", "postgres", message, mend))
    return findings


def _role(server: Any) -> list[Finding]:
    if server["is_superuser"]:
        message = f"role {server['role']!r} is a superuser: a worker needs far less"
        mend = "give workers a role that may only use their schema, and migrate with another"
        return [Finding("warning", "postgres", message, mend)]
    return [Finding("ok", "postgres", f"role {server['role']!r} is no superuser")]


def _life(server: Any) -> list[Finding]:
    findings = []
    if server["is_standby"]:
        mend = "connect to the primary: nothing can be written on a standby"
        findings.append(Finding("error", "postgres", "the server is a standby", mend))
    if server["frozen_age"] > _FROZEN_AGE:
        message = (
            f"the oldest rows are {server['frozen_age']:,} transactions old; at 2,100,000,000 writes stop"
        )
        findings.append(
            Finding("error", "postgres", message, "run 'vacuum freeze' soon, and look at autovacuum")
        )
    oldest = server["oldest_transaction"] or 0.0
    if oldest > _LONG_TRANSACTION:
        message = f"a transaction has been open for {oldest / 3600:.1f} h: rows replaced since then stay"
        mend = "look for it in pg_stat_activity, by xact_start; end it if nobody needs it"
        findings.append(Finding("warning", "postgres", message, mend))
    return findings


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
    now: float = (await connection.fetchrow(query("doctor/server")))["now"]
    answered = time.time()
    return ClockReading(now - (asked + answered) / 2, (answered - asked) / 2)
