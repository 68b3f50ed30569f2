"""Restoring a snapshot into an empty database, or several: all of it, in one transaction on each, or nothing.

The tables are made as they were when the snapshot was taken, filled, and brought up to this version. The rest of the
log is then applied by a worker, or by a replay, which begin at the position that was restored.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import uuid4

import asyncpg

from waypost.shards import shard_of
from waypost.statements import load_statement
from waypost.wire.topics import Topics
from waypost_worker.postgres.migrate import applied, migrate, migrations
from waypost_worker.postgres.shards import check_found, check_set
from waypost_worker.postgres.statements import statement as postgres_statement
from waypost_worker.snapshots.files import stream_of
from waypost_worker.snapshots.manifest import TABLES, Manifest, Part
from waypost_worker.snapshots.storage import SnapshotError, Storage

_statement: Final = partial(load_statement, "waypost_worker.snapshots")
OnProgress = Callable[[int, int], None]  # files done, of
_GRACE_SECONDS: Final = 1.0


def check_origin(manifest: Manifest, topics: Topics) -> None:
    """Raise SnapshotError if the snapshot belongs to other topics, or to a database that this version does not know."""
    if manifest.commands_topic != topics.commands:
        raise SnapshotError(
            f"the snapshot {manifest.name!r} is of the topic {manifest.commands_topic!r}, not of "
            f"{topics.commands!r}. Nothing was changed: use one of this deployment, or see --topic-prefix"
        )
    known = migrations()
    for migration in manifest.migrations:
        if migration.number > len(known):
            raise SnapshotError(
                f"the snapshot {manifest.name!r} is of a database with migration {migration.number} "
                f"({migration.name}), this version knows only {len(known)}. Nothing was changed: use Waypost "
                f"{manifest.waypost} or newer"
            )
        if known[migration.number - 1].sha256 != migration.sha256:
            raise SnapshotError(
                f"the snapshot {manifest.name!r} is of a database whose migration {migration.number} "
                f"({migration.name}) had different text in this version. Nothing was changed: use the version "
                f"that took it, Waypost {manifest.waypost}"
            )


async def check_target(connection: Any, manifest: Manifest, schema: str) -> None:
    """Raise SnapshotError unless the database has no Waypost schema, or an empty one like the snapshot's."""
    have = [tuple(row) for row in await applied(connection, schema)]
    if not have:
        return
    filled = await connection.fetchval(_statement("rows_in_target", schema))
    if filled is not None:
        raise SnapshotError(
            f"the schema {schema!r} is not empty: there are rows in {filled!r}. Nothing was changed: restore into "
            "a new database, or another --schema"
        )
    if have != [(each.number, each.name, each.sha256) for each in manifest.migrations]:
        raise SnapshotError(
            f"the schema {schema!r} is empty, but has other migrations than the snapshot's database had. Nothing "
            f"was changed: drop it ('drop schema {schema} cascade' in psql); restoring creates it again, and brings "
            "it up to date"
        )


async def restore(
    connections: Sequence[Any], storage: Storage, manifest: Manifest, schema: str, progress: OnProgress
) -> None:
    """Fill empty databases, each with its partitions. SnapshotError, or what Postgres raises, and then nothing was
    changed; unless a database did not answer its commit, or could not commit after another had: the error says which
    are restored, and what to do.

    ``connections`` are asyncpg's, without a time limit for statements, one to each database.
    """
    found = await check_set(connections, schema)
    set_id = check_found(found) or uuid4()
    done, total = 0, sum(len(part.files) for part in manifest.parts)

    async def counted(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        nonlocal done
        async for piece in pieces:
            yield piece
            done += 1
            progress(done, total)

    transactions: list[Any] = []
    committed, committing = 0, False
    try:
        for shard, connection in enumerate(connections):
            transactions.append(connection.transaction(isolation="read_committed"))
            await transactions[-1].start()
            try:
                await _prepare(connection, manifest, schema)
            except SnapshotError as error:
                if len(connections) == 1:
                    raise
                raise SnapshotError(f"shard {shard} of {len(connections)}: {error}") from error
        progress(done, total)
        for part in manifest.parts:
            connection = connections[shard_of(part.partition, len(connections))]
            await _restore_part(connection, storage, manifest, part, schema, counted)
        for shard, connection in enumerate(connections):
            await migrate(connection, schema)
            if len(connections) > 1:
                await connection.execute(
                    postgres_statement("shard_note", schema), shard, len(connections), set_id
                )
        committing = True
        for transaction in transactions:
            await transaction.commit()
            committed += 1
    except Exception as error:
        if committing:
            raise SnapshotError(_half_done(committed, len(connections), schema, error)) from error
        raise
    finally:
        for transaction in transactions[committed:]:
            # If the cancel request can't be sent, the statement ends with its connection.
            with suppress(
                asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError
            ):
                await transaction.rollback()


def _half_done(committed: int, databases: int, schema: str, error: Exception) -> str:
    """Return the message if the commit after the ``committed`` ones failed. It may have taken effect nevertheless."""
    said = str(error) or type(error).__name__
    if databases == 1:
        return (
            f"the database did not say whether the restore took effect: {said}. Look with 'waypost verify': either all "
            "of the snapshot is there, or the database is as it was; then restore again"
        )
    restored = [f"shard {shard}" for shard in range(committed)]
    unsure = f"shard {committed}"
    done = f"restored: {', '.join(restored)}; " if restored else ""
    rest = f"; any after it of the {databases} is as it was" if committed + 1 < databases else ""
    return (
        f"the restore is not complete. {done}not known, as it did not answer: {unsure}{rest} ({said}). The snapshot is "
        f"whole. In {' and '.join([*restored, unsure])} run 'drop schema if exists {schema} cascade' in psql, and "
        "restore again"
    )


async def _prepare(connection: Any, manifest: Manifest, schema: str) -> None:
    """Make the tables as they were, and hold them empty."""
    # Held to the end, so that neither a migration nor another restore comes between.
    await connection.execute(postgres_statement("lock_migrations", schema))
    await connection.execute(_statement("wait_for_others", schema))
    await check_target(connection, manifest, schema)
    await migrate(connection, schema, last=len(manifest.migrations))
    await connection.execute(_statement("lock_target", schema))
    await check_target(connection, manifest, schema)


async def _restore_part(
    connection: Any,
    storage: Storage,
    manifest: Manifest,
    part: Part,
    schema: str,
    counted: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]],
) -> None:
    for table in TABLES:
        files = [file for file in part.files if file.table == table]
        rows = 0
        if files:
            copying = connection.copy_to_table(
                table,
                schema_name=schema,
                columns=manifest.columns[table],
                source=counted(stream_of(storage, manifest.name, files)),
                format="binary",
            )
            status = await _while_connected(connection, copying)
            rows = int(status.rpartition(" ")[2])
        if rows != part.rows[table]:
            raise SnapshotError(
                f"partition {part.partition} of the snapshot {manifest.name!r} has {rows} rows of {table!r} instead "
                f"of {part.rows[table]}. Nothing was changed: use another snapshot"
            )


async def _while_connected(connection: Any, copying: Coroutine[Any, Any, str]) -> str:
    """Return the result of ``copying``. Raise ConnectionDoesNotExistError once the connection is lost.

    asyncpg waits indefinitely to write more if the server disappears in the middle of a COPY.
    """
    lost = asyncio.Event()

    def tell(_: Any) -> None:
        lost.set()

    task, losing = asyncio.ensure_future(copying), asyncio.ensure_future(lost.wait())
    connection.add_termination_listener(tell)
    try:
        await asyncio.wait({task, losing}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise asyncpg.ConnectionDoesNotExistError("the connection was lost in the middle of a COPY")
    finally:
        connection.remove_termination_listener(tell)
        losing.cancel()
        task.cancel()
        await asyncio.wait({task, losing}, timeout=_GRACE_SECONDS)
