"""A worker's requirements of a Postgres server, and settings that would hurt it: checked at startup, and by
``waypost doctor``.
"""

from collections.abc import Mapping
from typing import Any, Final

from waypost_worker.findings import Finding
from waypost_worker.postgres.migrate import OLDEST_SERVER
from waypost_worker.postgres.statements import statement

# How a server that 'waypost dev' runs calls itself: its choices are right there and nowhere else.
DEV_CLUSTER: Final = "waypost-dev"
# Without these, a crash of the server would lose data that was committed and may have been emitted.
_DURABILITY: Final = ("fsync", "full_page_writes", "synchronous_commit")
_TIME_LIMITS: Final = ("statement_timeout", "transaction_timeout")
_OTHERS: Final = (
    *_TIME_LIMITS,
    "autovacuum",
    "cluster_name",
    "default_transaction_read_only",
    "max_connections",
    "server_encoding",
    "superuser_reserved_connections",
)
# Postgres stops accepting commands about 2,100 million transactions after the oldest row that is not frozen.
_FROZEN_AGE: Final = 1_000_000_000
_LONG_TRANSACTION: Final = 3600.0


async def check_server(
    connection: Any, *, pool_size: int, request_timeout: float, statement_cache: int
) -> list[Finding]:
    """Check everything about the server that does not need Waypost's schema, against a worker's settings."""
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
    rows = await connection.fetch(statement("server_settings"), [*_DURABILITY, *_OTHERS])
    found = {row["name"]: row["setting"] for row in rows}
    findings += [_durability(name, found[name]) for name in _DURABILITY]
    findings += _settings(found, pool_size)
    findings += _time_limits(found, request_timeout)
    findings += _pooler(connection, await connection.fetchval(statement("backend_pid")), statement_cache)
    server = await connection.fetchrow(statement("server_state"))
    return [*findings, *_role(server, found), *_life(server)]


def _durability(name: str, value: str) -> Finding:
    if value != "off":
        return Finding("ok", "postgres", f"{name}={value}")
    fix = f"set {name}=on: a crash of the server loses what was committed"
    return Finding("error", "postgres", f"{name}={value}", fix)


def _settings(found: Mapping[str, str], pool_size: int) -> list[Finding]:
    findings = []
    encoding = found["server_encoding"]
    fix = "" if encoding == "UTF8" else "create the database with encoding UTF8"
    findings.append(Finding("error" if fix else "ok", "postgres", f"server_encoding={encoding}", fix))
    if found["autovacuum"] == "off":
        fix = "set autovacuum=on: rows that were replaced pile up, and each command costs more"
        findings.append(Finding("error", "postgres", "autovacuum=off", fix))
    else:
        findings.append(Finding("ok", "postgres", "autovacuum=on"))
    if found["default_transaction_read_only"] == "on":
        fix = "connect to the primary, or set default_transaction_read_only=off for the workers' role"
        findings.append(Finding("error", "postgres", "transactions are read-only", fix))
    usable = int(found["max_connections"]) - int(found["superuser_reserved_connections"])
    if pool_size > usable:
        message = f"a worker may open {pool_size} connections, the server takes {usable}"
        fix = "lower WAYPOST_POSTGRES_POOL_SIZE, or raise max_connections"
        findings.append(Finding("error", "postgres", message, fix))
    else:
        message = f"takes {usable} connections, a worker opens up to {pool_size}"
        findings.append(Finding("ok", "postgres", message))
    return findings


def _time_limits(found: Mapping[str, str], request_timeout: float) -> list[Finding]:
    findings = []
    for name in _TIME_LIMITS:
        limit = int(found.get(name, 0))  # transaction_timeout came with Postgres 17
        if 0 < limit < request_timeout * 1000:
            message = f"{name}={limit} ms ends statements that a worker still waits for"
            fix = f"set {name}=0 for the workers' role, or above {request_timeout:g} s"
            findings.append(Finding("warning", "postgres", message, fix))
    return findings


def _pooler(connection: Any, backend: int, statement_cache: int) -> list[Finding]:
    """Tell whether something between this and the server gives out connections as its own."""
    if connection.get_server_pid() == backend:
        return []
    if not statement_cache:
        return [Finding("ok", "postgres", "a pooler is in between, and no statements are prepared ahead")]
    message = (
        "a pooler is in between, and statements are prepared ahead: in transaction mode it mixes them up"
    )
    fix = "set WAYPOST_POSTGRES_STATEMENT_CACHE=0, unless the pooler is in session mode"
    return [Finding("warning", "postgres", message, fix)]


async def is_dev_server(connection: Any) -> bool:
    """Return whether ``waypost dev`` runs the server."""
    (found,) = await connection.fetch(statement("server_settings"), ["cluster_name"])
    return bool(found["setting"] == DEV_CLUSTER)


def _role(server: Any, found: Mapping[str, str]) -> list[Finding]:
    if server["is_superuser"] and found["cluster_name"] == DEV_CLUSTER:
        return [Finding("ok", "postgres", f"role {server['role']!r} is the superuser of a dev server")]
    if server["is_superuser"]:
        message = f"role {server['role']!r} is a superuser: a worker needs far less"
        fix = "give workers a role that may only use their schema, and migrate with another"
        return [Finding("warning", "postgres", message, fix)]
    return [Finding("ok", "postgres", f"role {server['role']!r} is not a superuser")]


def _life(server: Any) -> list[Finding]:
    findings = []
    if server["is_standby"]:
        fix = "connect to the primary: nothing can be written on a standby"
        findings.append(Finding("error", "postgres", "the server is a standby", fix))
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
        fix = "look for it in pg_stat_activity, by xact_start; end it if nobody needs it"
        findings.append(Finding("warning", "postgres", message, fix))
    return findings
