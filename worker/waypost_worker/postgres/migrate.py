"""Numbered, checksummed migrations, applied all or none under an advisory lock.

Owns the schema's history; knows nothing about the purpose of the tables.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import asyncpg

from waypost.errors import WaypostError
from waypost.statements import DEFAULT_SCHEMA, for_schema
from waypost_worker.postgres.statements import statement

Connection = Any  # an asyncpg connection, pooled or not
_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
OLDEST_SERVER: Final = 15  # the oldest that Waypost was run on
# Statements of a migration may rewrite tables; a connection's own time limit is for those of a worker.
_LONGEST_STATEMENT: Final = 6 * 3600.0


class ReadOnlyDatabaseError(Exception):
    """The server answers and can't write: it is a standby, or its transactions are read-only."""


class SchemaError(WaypostError):
    """The database is not one that this version can work with; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Checksum of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this version, in order, numbered from 1 without gaps."""
    found = []
    for file in files("waypost_worker.postgres").joinpath("migrations").iterdir():
        matched = _FILE_NAME.fullmatch(file.name)
        if matched is not None:
            found.append(Migration(int(matched[1]), matched[2], file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise AssertionError("the migration files are not numbered 0001, 0002, … without gaps")
    return found


async def pending(connection: Connection, schema: str = DEFAULT_SCHEMA) -> list[Migration]:
    """The migrations that this database lacks; nothing is changed, and no lock is waited for.

    SchemaError if it has one that this version does not know or one whose text was another, or if the server
    is too old or stores another encoding than UTF-8.
    """
    return _missing(await applied(connection, schema), migrations())


async def migrate(
    connection: Connection, schema: str = DEFAULT_SCHEMA, last: int | None = None
) -> list[Migration]:
    """Apply pending migrations, up to number ``last``, in one transaction. Return those that were applied. Safe from
    several workers at the same time.

    SchemaError as for :func:`pending`, or if others hold locks for too long. A role that may not change the
    schema can call this where nothing is pending.
    """
    if not await pending(connection, schema):
        return []
    try:
        # Regardless of the database's default, changes by others while we waited for the lock must be visible.
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(statement("lock_migrations"), timeout=_LONGEST_STATEMENT)
            # Another worker may have been faster.
            todo = [
                migration
                for migration in await pending(connection, schema)
                if last is None or migration.number <= last
            ]
            await _prepare_schema(connection, schema)
            for migration in todo:
                await connection.execute(for_schema(migration.sql, schema), timeout=_LONGEST_STATEMENT)
                await connection.execute(
                    statement("add_migration", schema), migration.number, migration.name, migration.sha256
                )
            return todo
    except asyncpg.LockNotAvailableError as error:
        raise SchemaError(
            f"the schema {schema!r} was not migrated: another migration, or somebody who uses its tables, held "
            f"a lock for too long ({error}). Nothing was changed; try again, or look into pg_stat_activity"
        ) from error


async def check_schema(
    connection: Connection, schema: str = DEFAULT_SCHEMA, *, newer: bool = False, writable: bool = False
) -> None:
    """Raise SchemaError unless the database has exactly this version's migrations; with ``newer``, it may have more.

    More are allowed for a worker that keeps running while a newer version takes over, because migrations only add. With
    ``writable``, raise ReadOnlyDatabaseError if a transaction that begins now could not write.
    """
    server = await _inspect(connection, schema)
    if writable:
        _require_writable(server)
    found, known = await _applied(connection, schema, server), migrations()
    missing = _missing(found[: len(known)] if newer else found, known)
    if missing:
        raise SchemaError(
            f"the database lacks {len(missing)} migration(s), from {missing[0].number} ({missing[0].name}) on. "
            "Nothing was changed: run 'waypost migrate', or start the worker with WAYPOST_MIGRATE=true"
        )


async def migrate_dsn(dsn: str, schema: str = DEFAULT_SCHEMA, timeout: float = 10) -> list[Migration]:
    """Run :func:`migrate` over a new connection; ``timeout`` is for connecting."""
    connection = await asyncpg.connect(dsn, timeout=timeout)
    try:
        return await migrate(connection, schema)
    finally:
        await connection.close(timeout=timeout)


async def applied(connection: Connection, schema: str = DEFAULT_SCHEMA) -> list[Any]:
    """Number, name and sha256 of each migration that the database has; SchemaError if the server can't be used."""
    return await _applied(connection, schema, await _inspect(connection, schema))


async def _inspect(connection: Connection, schema: str) -> Any:
    return await connection.fetchrow(statement("inspect", schema), schema)


def _require_writable(server: Any) -> None:
    tried = (
        "New connections are tried until the address leads to a server that takes writes; see docs/runbook.md"
    )
    if server["is_standby"]:
        raise ReadOnlyDatabaseError(f"the server is a standby, so nothing can be written there. {tried}")
    if server["is_read_only"]:
        raise ReadOnlyDatabaseError(
            "the server's transactions are read-only (default_transaction_read_only=on), so nothing can be written "
            f"there. {tried}"
        )


async def _applied(connection: Connection, schema: str, found: Any) -> list[Any]:
    if found["version"] < OLDEST_SERVER * 10_000:
        raise SchemaError(
            f"the server is PostgreSQL {found['version'] // 10_000}, Waypost needs {OLDEST_SERVER} or newer. "
            "Nothing was changed"
        )
    if found["encoding"] != "UTF8":
        raise SchemaError(
            f"the database stores text as {found['encoding']}, which cannot hold every session id. Nothing was "
            "changed: create one with ENCODING 'UTF8'"
        )
    if not found["has_migrations"]:
        return []
    return list(await connection.fetch(statement("read_migrations", schema)))


def _missing(applied: Sequence[Any], known: list[Migration]) -> list[Migration]:
    for at, row in enumerate(applied):
        number, name = row["number"], row["name"]
        if number > len(known):
            raise SchemaError(
                f"the database has migration {number} ({name}), this version knows only {len(known)}: it was "
                "migrated by a newer Waypost. Nothing was changed: run that version or a newer one"
            )
        if number != at + 1:
            raise SchemaError(
                f"the database has migration {number} ({name}) but not {at + 1}: its table of migrations was "
                "tampered with. Nothing was changed: restore that table"
            )
        if known[at].sha256 != row["sha256"]:
            raise SchemaError(
                f"migration {number} ({name}) was applied with different text than this version has. Nothing was "
                "changed: install the version that made this database, or undo the change to the file"
            )
    return known[len(applied) :]


async def _prepare_schema(connection: Connection, schema: str) -> None:
    # A schema that an administrator made for us needs no right to make schemas.
    found = await _inspect(connection, schema)
    if not found["has_schema"]:
        await connection.execute(statement("create_schema", schema))
    if not found["has_migrations"]:
        await connection.execute(statement("create_migrations", schema))
