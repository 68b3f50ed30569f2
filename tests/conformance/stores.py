"""What the Store's conformance suite needs besides the port: databases, and a hand that commits batches.

A world is one database for any number of processes. `postgres_stores` is the real one; a simulated one offers
the same members, and is added to STORES.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import pytest

from waypost.model.index import Entry, Session
from waypost_worker.partition.ports import AcquiredState, Changes, Commit, Row, Store, StoredOutbox
from waypost_worker.postgres.group_acquire import GroupAcquirer
from waypost_worker.postgres.group_commit import GroupCommitter, overtaken
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.rows import PartitionCommit
from waypost_worker.postgres.statements import DEFAULT_SCHEMA, StatementForms, statement
from waypost_worker.postgres.store import PostgresStore

PARTITIONS = 4
MOMENT = 1_764_000_000_000_000


class Stores(Protocol):
    """One database."""

    async def open(self, partition: int = 0) -> Store:
        """A partition's store as one more process sees it, over connections of its own."""
        ...

    async def open_together(self, partitions: Sequence[int]) -> list[Store]:
        """Stores of several partitions as one more process sees them, which acquires and commits in groups."""
        ...

    async def request_skip(self, partition: int, offset: int) -> bool:
        """What 'waypost commands skip' does; whether owners may no longer apply the command."""
        ...

    async def rejected(self, partition: int) -> list[int]:
        """Offsets of the rejected commands that are stored."""
        ...


class AlwaysInGroups(GroupCommitter):
    """Commits even a single batch with the statement for several."""

    async def _commit_one(self, part: PartitionCommit) -> tuple[int, int]:
        places = await self._commit_several([part])
        if part.partition not in places:
            raise overtaken(part.partition)
        return places[part.partition]


class WholeForms(StatementForms):
    """Takes the whole statement, however little there is for it to do."""

    def choose(self, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        return self.whole, parameters


class AlwaysWhole(GroupCommitter):
    """Commits every batch with the whole statement."""

    def __init__(self, pool: Any, schema: str = DEFAULT_SCHEMA, timeout: float = 30) -> None:
        super().__init__(pool, schema, timeout)
        self._one = WholeForms("commit", schema)
        self._several = WholeForms("commit_group", schema)


class AlwaysWholeInGroups(AlwaysInGroups, AlwaysWhole):
    pass


class PostgresStores:
    """A migrated database on the real Postgres."""

    def __init__(self, dsn: str, committer: type[GroupCommitter]) -> None:
        self._dsn = dsn
        self.committer = committer
        self._pools: list[Any] = []

    async def open(self, partition: int = 0) -> Store:
        (store,) = await self.open_together([partition])
        return store

    async def open_together(self, partitions: Sequence[int]) -> list[Store]:
        pool = await open_pool(self._dsn, size=2, timeout=10)
        self._pools.append(pool)
        shared = {"committer": self.committer(pool), "acquirer": GroupAcquirer(pool)}
        return [PostgresStore(pool, partition, **shared) for partition in partitions]

    async def request_skip(self, partition: int, offset: int) -> bool:
        pool = await open_pool(self._dsn, size=1, timeout=10)
        self._pools.append(pool)
        async with pool.acquire() as connection:
            sql = statement("request_skip", DEFAULT_SCHEMA)
            return await connection.fetchval(sql, partition, offset) is not None

    async def rejected(self, partition: int) -> list[int]:
        async with self._pools[0].acquire() as connection:
            rows = await connection.fetch(
                'select "offset" from waypost.rejected_commands where partition = $1 order by "offset"',
                partition,
            )
        return [row["offset"] for row in rows]

    async def close(self) -> None:
        for pool in self._pools:
            await pool.close()


@asynccontextmanager
async def postgres_stores(
    request: pytest.FixtureRequest, committer: type[GroupCommitter] = GroupCommitter
) -> AsyncIterator[Stores]:
    stores = PostgresStores(request.getfixturevalue("database"), committer)
    try:
        yield stores
    finally:
        await stores.close()


# A batch is committed by one statement if it goes alone and by another if it goes in a group, and by a shorter form of
# either if it has nothing rare. All of them keep all promises.
STORES = [
    pytest.param(partial(postgres_stores, committer=committer), id=name, marks=pytest.mark.servers)
    for name, committer in (
        ("postgres", GroupCommitter),
        ("postgres-groups", AlwaysInGroups),
        ("postgres-whole", AlwaysWhole),
        ("postgres-whole-groups", AlwaysWholeInGroups),
    )
]


class Hand:
    """An owner without Kafka: it acquires, and commits batches one after the other."""

    def __init__(self, store: Store, state: AcquiredState) -> None:
        self.store = store
        self.state = state
        self.next_offset = state.next_offset
        self.emitted = state.emitted
        self.results_offset = state.results_offset

    def batch(self, changes: Changes | None = None, *, offsets: int = 10, by_owner: bool = True) -> Commit:
        """The next batch, of so many offsets."""
        first = self.next_offset
        return Commit(
            epoch=self.state.epoch,
            expected_offset=first,
            next_offset=first + offsets,
            anchor=b"anchor of %d" % (first + offsets - 1),
            emitted=self.emitted,
            results_offset=self.results_offset,
            outbox=StoredOutbox(first, first + offsets - 1, b"owed from %d" % first),
            changes=changes or Changes(),
            by_owner=by_owner,
        )

    async def commit(
        self, changes: Changes | None = None, *, offsets: int = 10, by_owner: bool = True
    ) -> Commit:
        """Commit the next batch."""
        batch = self.batch(changes, offsets=offsets, by_owner=by_owner)
        await self.store.commit(batch)
        self.next_offset = batch.next_offset
        return batch

    def emit(self, up_to: int) -> None:
        """Results up to this command offset are in the topic; the next batch says so."""
        self.emitted = up_to
        self.results_offset += 1


async def acquired(stores: Stores, partition: int = 0) -> Hand:
    """A process that just acquired the partition."""
    store = await stores.open(partition)
    return Hand(store, await store.acquire(PARTITIONS))


def entry(number: int, name: str = "step", **changes: Any) -> Entry:
    """A checkpoint as a create makes it."""
    fields = {
        "taken_at": MOMENT + number,
        "recorded_at": MOMENT + number + 5,
        "position": number,
        "command_id": f"command-{number}",
    }
    return Entry(number, name, **{**fields, **changes})


def data_of(number: int) -> bytes:
    return b'{"of": %d}' % number


def puts(session_id: str, entries: Sequence[Entry], **contents: bytes) -> Changes:
    """The changes of a batch after which the session holds exactly these entries, all of them new."""
    changes = Changes()
    changes.sessions[session_id] = (Session.restore(session_id, 0, None, list(entries), []), MOMENT)
    for one in entries:
        content = {"data": data_of(one.number), "metadata": b"{}", **contents}
        changes.puts[session_id, one.number] = Row(session_id, one, **content)
    return changes


def facts(sessions: Mapping[str, Session]) -> dict[str, tuple[Any, ...]]:
    """Sessions as values that compare."""
    return {
        session_id: (session.counter, session.policy, session.live(), session.recent)
        for session_id, session in sessions.items()
    }
