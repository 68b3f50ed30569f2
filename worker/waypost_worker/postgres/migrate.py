"""Numbered, checksummed migrations, applied all or none under an advisory lock."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import asyncpg

from waypost.errors import WaypostError
from waypost_worker.postgres.statements import DEFAULT_SCHEMA, for_schema, statement

Connection = Any  # an asyncpg connection, pooled or not
_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


class SchemaError(WaypostError):
    """The database's schema is not the one that this version works with; nothing was changed."""


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
            found.append(Migration(int(matched[1]), matched[2], file.read_text()))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise AssertionError("the migration files are not numbered 0001, 0002, … without gaps")
    return found


async def pending(connection: Connection, schema: str = DEFAULT_SCHEMA) -> list[Migration]:
    """The migrations that this database lacks.

    SchemaError if it has one that this version does not know, or one whose text was another.
    """
    applied: list[Any] = []
    if await connection.fetchval(statement("has_migrations", schema)):
        applied = await connection.fetch(statement("read_migrations", schema))
    known = migrations()
    for row in applied:
        if row["number"] > len(known):
            raise SchemaError(
                f"the database has migration {row['number']} ({row['name']}), this version knows only "
                f"{len(known)}: it was migrated by a newer Waypost. Nothing was changed; run that version"
            )
        migration = known[row["number"] - 1]
        if migration.sha256 != row["sha256"]:
            raise SchemaError(
                f"migration {row['number']} ({row['name']}) was applied with another text than this version "
                "has. Nothing was changed; install the version that made this database, or restore the file"
            )
    return known[len(applied) :]


async def migrate(connection: Connection, schema: str = DEFAULT_SCHEMA) -> list[Migration]:
    """Apply what is pending, all in one transaction; what was applied. Safe from several workers at once."""
    async with connection.transaction():
        await connection.execute(statement("lock_migrations"))
        await connection.execute(statement("create_migrations", schema))
        todo = await pending(connection, schema)
        for migration in todo:
            await connection.execute(for_schema(migration.sql, schema))
            await connection.execute(
                statement("add_migration", schema), migration.number, migration.name, migration.sha256
            )
    return todo


async def check_schema(connection: Connection, schema: str = DEFAULT_SCHEMA) -> None:
    """SchemaError unless the database has exactly this version's migrations."""
    missing = await pending(connection, schema)
    if missing:
        raise SchemaError(
            f"the database lacks {len(missing)} migration(s), from {missing[0].number} ({missing[0].name}) on: "
            "run 'waypost migrate', or start the worker with WAYPOST_MIGRATE=true"
        )


async def migrate_dsn(dsn: str, schema: str = DEFAULT_SCHEMA, timeout: float = 10) -> list[Migration]:
    """:func:`migrate` over a connection of its own."""
    connection = await asyncpg.connect(dsn, timeout=timeout)
    try:
        return await migrate(connection, schema)
    finally:
        await connection.close(timeout=timeout)
