"""A database with sessions of several tenants, and roles that read them.

The fixture `tenanted` (parametrize it indirectly with a schema's name; default `waypost`) creates the schema as its
migrator, fills it, and runs what `waypost migrate --roles` and `--tenants` print.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from waypost.model.tenants import tenant_of
from waypost.statements import for_schema
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers
from waypost_worker.postgres.migrate import migrate_dsn
from waypost_worker.postgres.statements import statement

#: Names that are next to each other in the order of ids, or that mean something to SQL, to LIKE or to Unicode.
TENANTS = (
    "acme",
    "acme2",
    "acme-",
    "acme0",
    "Acme",
    "a%",
    "a_me",
    "o'hara",
    '"; drop table waypost.sessions; --',
    "\\",
    "caf\u00e9",
    "cafe\u0301",
    "\U0001f642",
    " ",
)
#: Of no tenant.
LOOSE = ("acme", "acme2", "/acme", "//", "acme\u2215x", "zebra")
SESSIONS = (*(f"{tenant}/{name}" for tenant in TENANTS for name in ("", "run-1", "a/b")), *LOOSE)
#: Tables that have rows of sessions, and the view.
BY_SESSION = ("sessions", "checkpoints", "recent_commands", "rejected_commands", "checkpoint_json")
_FILL = """
insert into waypost.outbox values (0, 0, 0, 'results of all');
insert into waypost.rejected_commands (partition, "offset", code, message, headers, recorded_at)
values (0, 9999, 'c', 'no key', '[]', now());
"""
_FILL_SESSION = (
    "insert into waypost.sessions (session_id, partition, counter, checkpoints, first_recorded_at, last_recorded_at) "
    "values ($1, 0, 2, 2, now(), now())",
    "insert into waypost.checkpoints select $1, n, null, 'name', now(), now(), '{\"a\": 1}', '{}', false, null, n "
    "from generate_series(1, 2) n",
    "insert into waypost.recent_commands values ($1, 3, 'id', null)",
    'insert into waypost.rejected_commands (partition, "offset", session_id, code, message, headers, recorded_at) '
    "select 0, count(*), $1, 'code', 'message', '[]', now() from waypost.rejected_commands "
    "where session_id is not null",
)
_numbers = itertools.count(1)


def sessions_of(tenant: str) -> list[str]:
    """The sessions of a tenant, in order."""
    return sorted(each for each in SESSIONS if tenant_of(each) == tenant)


@dataclass
class Tenanted:
    """The database, and its DSN for each role."""

    admin: str
    schema: str
    number: int

    def dsn(self, role: str) -> str:
        parts = urlsplit(self.admin)
        return parts._replace(netloc=f"{role}:{role}@{parts.hostname}:{parts.port}").geturl()

    @asynccontextmanager
    async def connected(self, role: str | None = None) -> AsyncIterator[Any]:
        """A connection as a role, or as the administrator."""
        connection: Any = await asyncpg.connect(self.admin if role is None else self.dsn(role))
        try:
            yield connection
        finally:
            await connection.close()

    async def run(self, sql: str, *arguments: Any, role: str | None = None) -> list[Any]:
        async with self.connected(role) as connection:
            text = for_schema(sql, self.schema)
            if arguments:
                return list(await connection.fetch(text, *arguments))
            await connection.execute(text)
            return []

    async def role(self, tenant: str | None, options: str = "") -> str:
        """Create a role that reads for a tenant, or for the one that each transaction names."""
        name = f"reader_{self.number}_{next(_numbers)}"
        await self.run(f"create role {name} login password '{name}' in role waypost_tenant_reader {options}")
        await self.run("insert into waypost.tenant_roles values ($1, $2)", name, tenant)
        return name


async def fill(dsn: str, schema: str, partitions: int = 1, partition: int = 0) -> None:
    """Store the sessions of a partition."""
    sessions = [each for each in SESSIONS if partition_of(each, partitions) == partition]
    connection: Any = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            for_schema("insert into waypost.partitions (partition, partitions) values ($1, $2)", schema),
            partition,
            partitions,
        )
        await connection.execute(for_schema(_FILL, schema))
        for sql in _FILL_SESSION:
            await connection.executemany(for_schema(sql, schema), [(each,) for each in sessions])
    finally:
        await connection.close()


async def set_up(made: Tenanted) -> None:
    """Roles, schema, rows, and row-level security, each as the docs say."""
    await made.run(statement("roles", made.schema))
    for role in ("waypost_migrator", "waypost_worker", "waypost_reader"):
        await made.run(f"alter role {role} password '{role}'")
    await migrate_dsn(made.dsn("waypost_migrator"), made.schema)
    await made.run(statement("roles", made.schema))
    await made.run(statement("tenants", made.schema))
    await made.run("alter role waypost_tenant_reader password 'waypost_tenant_reader'")


@pytest.fixture
async def tenanted(
    request: pytest.FixtureRequest, servers: Servers, topic_prefix: str
) -> AsyncIterator[Tenanted]:
    name = topic_prefix.replace("-", "_")
    made = Tenanted(
        servers.postgres.create_database(name), getattr(request, "param", "waypost"), next(_numbers)
    )
    try:
        await set_up(made)
        await fill(made.admin, made.schema)
        yield made
    finally:
        # Roles are the cluster's: what a test made goes with what it may do here.
        made_roles = await _roles(made)
        for role in made_roles:
            await made.run(f"drop owned by {role} cascade; drop role {role}")
        servers.postgres.drop_database(name)


async def _roles(made: Tenanted) -> list[str]:
    async with made.connected() as connection:
        sql = "select rolname from pg_roles where rolname like $1"
        return [row[0] for row in await connection.fetch(sql, f"reader\\_{made.number}\\_%")]
