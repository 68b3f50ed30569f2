"""The Store port on asyncpg: one partition's rows, and the transaction of a batch."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import orjson

from waypost.retention import Policy
from waypost.session import Entry, Remembered, Session
from waypost.text import canonical_metadata
from waypost_worker.partition.ports import (
    Changes,
    Claim,
    Commit,
    Fence,
    FencedError,
    RefusedError,
    StoredOutbox,
    UnavailableError,
)
from waypost_worker.postgres.pool import Pool
from waypost_worker.postgres.statements import DEFAULT_SCHEMA, statement

_COLUMNS: Final = (
    "session_id",
    "number",
    "imported_id",
    "name",
    "taken_at",
    "recorded_at",
    "data",
    "metadata",
    "pinned",
    "command_id",
    "position",
)
# What passes by itself or with an operator's help, and says nothing about the statement: SQLSTATE classes 08,
# 28, 40, 53, 57, 58, a server that became a standby, and all that asyncpg says about its connections.
_PASSING: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InternalClientError,
)


class PostgresStore:
    """One partition in Postgres, for its owner."""

    def __init__(self, pool: Pool, partition: int, schema: str = DEFAULT_SCHEMA) -> None:
        self._pool = pool
        self._partition = partition
        self._schema = schema

    async def acquire(self, partitions: int) -> Claim:
        """See :meth:`waypost_worker.partition.ports.Store.acquire`."""
        async with self._transaction() as connection:
            row = await connection.fetchrow(self._sql("acquire"), self._partition, partitions)
            if row["partitions"] != partitions:
                raise RefusedError(
                    f"the command topic has {partitions} partitions, but this database was made for "
                    f"{row['partitions']}: with another count sessions move to other partitions and lose their "
                    "order. Nothing was changed. Make a topic with the old count, or publish to a new topic "
                    "prefix with a new database"
                )
            outbox = await connection.fetch(self._sql("read_outbox"), self._partition)
        return Claim(
            epoch=row["epoch"],
            next_offset=row["next_offset"],
            anchor=row["anchor"],
            emitted=row["emitted"],
            results_offset=row["results_offset"],
            partitions=row["partitions"],
            producer_id=row["producer_id"],
            default_policy=_policy(row["default_policy"]) or Policy(),
            default_commands=orjson.loads(row["default_commands"]),
            outbox=[StoredOutbox(*entry) for entry in outbox],
        )

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        """See the port."""
        async with self._connection() as connection:
            self._own(await connection.fetchval(self._sql("record_claim"), self._partition, epoch, *fence))

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        """See the port."""
        async with self._connection() as connection:
            self._own(
                await connection.fetchval(
                    self._sql("save_position"), self._partition, epoch, emitted, results_offset
                )
            )

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """See the port."""
        async with self._connection() as connection:
            rows = await connection.fetch(self._sql("load_sessions"), session_ids)
            if not rows:
                return {}
            known = [row["session_id"] for row in rows]
            entries: dict[str, list[Entry]] = {session_id: [] for session_id in known}
            recent: dict[str, list[Remembered]] = {session_id: [] for session_id in known}
            for session_id, *fields in await connection.fetch(self._sql("load_entries"), known):
                entries[session_id].append(Entry(*fields))
            for session_id, *fields in await connection.fetch(self._sql("load_recent"), known):
                recent[session_id].append(Remembered(*fields))
        return {
            session_id: Session.restore(
                session_id, counter, _policy(policy), entries[session_id], recent[session_id]
            )
            for session_id, counter, policy in rows
        }

    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        """See the port."""
        listed = list(keys)
        async with self._connection() as connection:
            rows = await connection.fetch(
                self._sql("read_contents"), [key[0] for key in listed], [key[1] for key in listed]
            )
        return {
            (session_id, number): (data, canonical_metadata(orjson.loads(metadata)))
            for session_id, number, data, metadata in rows
        }

    async def commit(self, commit: Commit) -> None:
        """See the port. The order within the transaction: ownership, drops, puts, the rest."""
        async with self._transaction() as connection:
            self._own(
                await connection.fetchval(
                    self._sql("advance"),
                    self._partition,
                    commit.epoch,
                    commit.expected_offset,
                    commit.next_offset,
                    commit.anchor,
                    commit.emitted,
                    commit.results_offset,
                    *commit.outbox,
                )
            )
            await self._write(connection, commit.changes)

    async def _write(self, connection: Any, changes: Changes) -> None:
        if changes.drops:
            await connection.execute(
                self._sql("drop_checkpoints"),
                [key[0] for key in changes.drops],
                [key[1] for key in changes.drops],
            )
        if changes.puts:
            await connection.copy_records_to_table(
                "checkpoints",
                schema_name=self._schema,
                columns=_COLUMNS,
                records=[
                    (
                        session_id,
                        entry.number,
                        entry.imported_id,
                        entry.name,
                        entry.taken_at,
                        entry.recorded_at,
                        data,
                        metadata,
                        entry.pinned,
                        entry.command_id,
                        entry.position,
                    )
                    for session_id, entry, data, metadata in changes.puts.values()
                ],
            )
        if changes.pins:
            await connection.execute(
                self._sql("pin_checkpoints"),
                [key[0] for key in changes.pins],
                [key[1] for key in changes.pins],
                list(changes.pins.values()),
            )
        if changes.sessions:
            touched = [session for session, _ in changes.sessions.values()]
            await connection.execute(
                self._sql("upsert_sessions"),
                self._partition,
                [session.session_id for session in touched],
                [session.counter for session in touched],
                [_policy_json(session.policy) for session in touched],
                [len(session) for session in touched],
                [recorded_at for _, recorded_at in changes.sessions.values()],
            )
        await self._write_memory(connection, changes)
        if changes.rejected:
            await self._write_rejected(connection, changes)
        if changes.defaults is not None:
            policy, commands = changes.defaults
            await connection.execute(
                self._sql("set_defaults"), self._partition, _policy_json(policy), orjson.dumps(commands)
            )

    async def _write_memory(self, connection: Any, changes: Changes) -> None:
        # What one batch adds and forgets at once never needs to be written.
        added = [
            (session_id, remembered)
            for session_id, remembered in changes.remembered
            if remembered.position >= changes.forgotten.get(session_id, 0)
        ]
        if changes.forgotten:
            await connection.execute(
                self._sql("forget_commands"), list(changes.forgotten), list(changes.forgotten.values())
            )
        if added:
            await connection.execute(
                self._sql("remember_commands"),
                [session_id for session_id, _ in added],
                [remembered.position for _, remembered in added],
                [remembered.command_id for _, remembered in added],
                [remembered.number for _, remembered in added],
            )

    async def _write_rejected(self, connection: Any, changes: Changes) -> None:
        rows = changes.rejected
        await connection.execute(
            self._sql("keep_rejected"),
            self._partition,
            [row.offset for row in rows],
            [row.session_id for row in rows],
            [row.command_id for row in rows],
            [row.code for row in rows],
            [row.message for row in rows],
            [row.key for row in rows],
            [row.value for row in rows],
            [
                orjson.dumps(
                    [[name, None if raw is None else raw.decode("latin-1")] for name, raw in row.headers]
                )
                for row in rows
            ],
            [row.recorded_at for row in rows],
        )

    def _sql(self, name: str) -> str:
        return statement(name, self._schema)

    def _own(self, found: int | None) -> None:
        if found is None:
            raise FencedError(
                f"another worker took partition {self._partition} over in Postgres: its epoch is higher now"
            )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire() as connection:
                yield connection
        except _PASSING as error:
            raise UnavailableError(f"Postgres: {type(error).__name__}: {error}") from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        async with self._connection() as connection, connection.transaction():
            yield connection


def _policy(raw: bytes | None) -> Policy | None:
    return None if raw is None else Policy(**orjson.loads(raw))


def _policy_json(policy: Policy | None) -> bytes | None:
    if policy is None:
        return None
    return orjson.dumps(
        {
            "max_checkpoints": policy.max_checkpoints,
            "compress_after": policy.compress_after,
            "keep_recent": policy.keep_recent,
            "max_age": policy.max_age,
        }
    )
