"""Commits of several partitions of one database, grouped: one statement for all that come while another is under way.

A commit has fixed costs: a round trip, about 200 µs of Postgres CPU time, and a flush of the write-ahead log. Owners
are independent here; each gets its own outcome.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from waypost_worker.partition.grouping import Grouper, UndoneError
from waypost_worker.partition.ports import Commit, FencedError, OwnerError, UnavailableError
from waypost_worker.postgres.errors import owner_connection
from waypost_worker.postgres.pool import Pool
from waypost_worker.postgres.rows import PartitionCommit, commit_parameters, group_parameters
from waypost_worker.postgres.statements import DEFAULT_SCHEMA, StatementForms

_Place = tuple[int, int]

_ROW_BYTES: Final = 200  # besides data
# From this size on, the fixed costs are a small part of a commit's own.
_HEAVY: Final = 64 * 1024
# The most that a group may keep others waiting for.
_MOST_BYTES: Final = 512 * 1024
_MOST_PARTITIONS: Final = 128


class GroupCommitter:
    """Commits batches of any partitions of the database behind ``pool``.

    A statement takes at most ``timeout`` seconds, including the wait for a free connection, so a commit takes at most
    three times as long: it may wait for a running group, and may be repeated alone.
    """

    def __init__(self, pool: Pool, schema: str = DEFAULT_SCHEMA, timeout: float = 30) -> None:
        self._pool = pool
        self._timeout = timeout
        self._one = StatementForms("commit", schema)
        self._several = StatementForms("commit_group", schema)
        # Partitions whose last commit failed. Their next ones go alone until one counts: alone, a batch shows whether
        # it is what was slow or wrong, and if it is, it disturbs nobody.
        self._failed: set[int] = set()
        self._grouper = Grouper(self._run, most_items=_MOST_PARTITIONS, most_weight=_MOST_BYTES, heavy=_HEAVY)

    async def commit(self, part: PartitionCommit) -> _Place:
        """Commit a batch and return where the partition's row is now. Errors are those of the Store port."""
        try:
            if part.partition in self._failed:
                place = await self._grouper.run_alone(part)
            else:
                place = await self._grouper.submit(part, _weight(part.commit))
        except FencedError:
            self._failed.discard(part.partition)
            raise
        except Exception:
            self._failed.add(part.partition)
            raise
        self._failed.discard(part.partition)
        return place

    async def _run(self, parts: Sequence[PartitionCommit]) -> Sequence[_Place | Exception]:
        if len(parts) == 1:
            return [await self._commit_one(parts[0])]
        try:
            places = await self._commit_several(sorted(parts, key=lambda part: part.partition))
        except UnavailableError as error:
            # All of them took effect, or none. If it took too long, that says nothing about any single batch. Each
            # owner gets its own error, to keep or to chain.
            return [in_group(error) for _ in parts]
        return [places.get(part.partition) or overtaken(part.partition) for part in parts]

    async def _commit_one(self, part: PartitionCommit) -> _Place:
        values = [part.partition, part.place, *commit_parameters(part.commit), *part.producer]
        sql, parameters = self._one.choose(values)
        async with owner_connection(self._pool, self._timeout) as connection:
            place: _Place | None = await connection.fetchval(sql, *parameters)
        if place is None:
            raise overtaken(part.partition)
        return place

    async def _commit_several(self, parts: Sequence[PartitionCommit]) -> dict[int, _Place]:
        """Return where the rows of the partitions are that passed. UndoneError if the statement was rolled back."""
        try:
            sql, parameters = self._several.choose(group_parameters(parts))
        except Exception as error:  # a bug in one of the batches, such as a session that two of them have
            raise UndoneError(error) from error
        rows = await run_together(self._pool, self._timeout, sql, parameters)
        return {row["partition"]: row["place"] for row in rows}


async def run_together(pool: Pool, timeout: float, sql: str, parameters: Sequence[Any]) -> list[Any]:
    """Run a statement for several partitions, and return its rows.

    Raises:
        UndoneError: Nothing took effect.
        UnavailableError: All of it took effect, or nothing.
    """
    try:
        async with owner_connection(pool, timeout) as connection:
            try:
                rows: list[Any] = await connection.fetch(sql, *parameters)
            except asyncpg.PostgresError as error:
                if getattr(error, "severity_en", None) != "ERROR":  # it ended the connection
                    raise
                raise UndoneError(error) from error
    except (OwnerError, UndoneError):
        raise
    except Exception as error:
        # A bug, such as a value that can't be encoded. If the statement did take effect, no harm is done, because each
        # compare-and-set of the repetition fails.
        raise UndoneError(error) from error
    return rows


def overtaken(partition: int) -> FencedError:
    """Return the error of an owner whose partition is not where it left it."""
    return FencedError(
        f"another worker took partition {partition} over in Postgres, or it was moved on there: "
        "nothing was changed; the partition is read again"
    )


def _weight(commit: Commit) -> int:
    """Return about how many bytes a commit sends."""
    changes = commit.changes
    rows = len(changes.puts) + len(changes.drops) + len(changes.sessions) + len(changes.rejected)
    data = sum([len(row.data) for row in changes.puts.values()])
    rejected = sum([len(row.value or b"") for row in changes.rejected])
    return rows * _ROW_BYTES + data + rejected + len(commit.outbox.payload)


def in_group(error: UnavailableError) -> UnavailableError:
    """Return an error that one owner of a group may keep or chain."""
    own = UnavailableError(f"{error}, for a group of partitions")
    own.__cause__ = error.__cause__
    return own
