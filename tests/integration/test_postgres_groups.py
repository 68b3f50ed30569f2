"""Group commit on the real Postgres: what goes in one statement, and what its failure means to each batch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from tests.conformance.stores import PARTITIONS, Hand, entry, puts
from tests.support.timeouts import PATIENCE

from waypost_worker.partition.ports import Changes, Commit, FencedError, TimedOutError, UnavailableError
from waypost_worker.postgres.group_commit import GroupCommitter
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.rows import PartitionCommit
from waypost_worker.postgres.statements import StatementForms, statement
from waypost_worker.postgres.store import PostgresStore


class RecordingCommitter(GroupCommitter):
    """Keeps which partitions went together, statement by statement."""

    def __init__(self, pool: Any, **options: Any) -> None:
        super().__init__(pool, **options)
        self.groups: list[list[int]] = []

    async def _run(self, parts: Sequence[PartitionCommit]) -> Sequence[tuple[int, int] | Exception]:
        self.groups.append([part.partition for part in parts])
        return await super()._run(parts)


class Process:
    """Owners of all partitions over one pool."""

    def __init__(self, pool: Any, **options: Any) -> None:
        self.pool = pool
        self.committer = RecordingCommitter(pool, **options)
        self.hands: list[Hand] = []

    def store(self, partition: int) -> PostgresStore:
        return PostgresStore(self.pool, partition, committer=self.committer)

    async def acquire(self) -> None:
        stores = [self.store(partition) for partition in range(PARTITIONS)]
        self.hands = [Hand(store, await store.acquire(PARTITIONS)) for store in stores]

    async def commit(self, changes: dict[int, Changes | None]) -> list[Any]:
        """Commit at the same time; None for each batch that counts, else its error."""
        outcomes = await asyncio.gather(
            *(self.hands[partition].commit(one) for partition, one in changes.items()), return_exceptions=True
        )
        return [None if isinstance(outcome, Commit) else outcome for outcome in outcomes]

    async def offsets(self) -> list[int]:
        rows = await self.pool.fetch("select next_offset from waypost.partitions order by partition")
        return [row["next_offset"] for row in rows]


@pytest.fixture
async def process(database: str) -> AsyncIterator[Process]:
    pool = await open_pool(database, size=PARTITIONS)
    made = Process(pool)
    await made.acquire()
    yield made
    pool.terminate()


def one_each(**others: Changes) -> dict[int, Changes | None]:
    """A small batch for each partition; ``p2`` for the changes of partition 2, say."""
    return {at: others.get(f"p{at}", puts(f"session of {at}", [entry(1)])) for at in range(PARTITIONS)}


# What goes together.


async def test_concurrent_commits_go_in_one_transaction(process: Process) -> None:
    assert await process.commit(one_each()) == [None] * PARTITIONS
    assert process.committer.groups == [[0, 1, 2, 3]]
    count = "select count(distinct xmin::text) from waypost.partitions"
    assert await process.pool.fetchval(count) == 1
    assert await process.pool.fetchval("select count(distinct xmin::text) from waypost.checkpoints") == 1


async def test_a_large_batch_is_committed_outside_the_group(process: Process) -> None:
    large = puts("large", [entry(number) for number in range(1, 3)], data=b'"%s"' % (b"x" * 100_000))
    assert await process.commit(one_each(p1=large)) == [None] * PARTITIONS
    assert sorted(process.committer.groups) == [[0, 2, 3], [1]]


async def test_partitions_with_a_session_in_common_are_committed_one_by_one(process: Process) -> None:
    """No log has such sessions; if one had, the rows of one partition must not count as another's."""
    same = {at: puts("same", [entry(at + 1)]) for at in range(2)}
    assert await process.commit({**same, 2: None}) == [None] * 3
    assert sorted(process.committer.groups) == [[0], [0, 1, 2], [1], [2]]


STATEMENTS = {name: statement(name) for name in ("commit_group", "record_claim", "save_position")}
STATEMENTS["short commit_group"] = StatementForms("commit_group").short


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS)
async def test_the_statement_finds_rows_by_their_place_in_the_order_of_partitions(
    process: Process, sql: str
) -> None:
    async with process.pool.acquire() as connection:
        await connection.execute(f"prepare guarded as {sql}")
        nothing = ", ".join(["null"] * max(number for number in range(1, 80) if f"${number}" in sql))
        plan = [row[0] for row in await connection.fetch(f"explain execute guarded({nothing})")]
        await connection.execute("deallocate guarded")
    assert not [line for line in plan if "Seq Scan" in line or "Hash" in line or "Merge" in line], plan
    update = next(at for at, line in enumerate(plan) if "Update on partitions" in line)
    join, outer, inner = plan[update + 1 : update + 4]
    assert "Nested Loop" in join
    assert "Function Scan on" in outer
    assert "Tid Scan on partitions" in inner


# Several processes.


async def until_waiting(connection: Any, statements: int) -> None:
    """Wait until this many statements wait for a lock."""
    async with asyncio.timeout(PATIENCE):
        while (
            await connection.fetchval("select count(distinct pid) from pg_locks where not granted")
            < statements
        ):
            pass


async def test_groups_of_two_processes_never_wait_for_each_other_in_a_circle(
    process: Process, database: str
) -> None:
    pool = await open_pool(database, size=2)
    twins = Process(pool)
    twins.hands = [Hand(twins.store(at), hand.state) for at, hand in enumerate(process.hands)]
    try:
        async with process.pool.acquire() as holder:
            async with holder.transaction():
                await holder.execute("select from waypost.partitions where partition = 0 for update")
                ours = asyncio.create_task(process.commit({0: None, 1: None}))
                await until_waiting(holder, 1)
                theirs = asyncio.create_task(twins.commit({1: None, 0: None}))
                await until_waiting(holder, 2)
            outcomes = [*await ours, *await theirs]
    finally:
        pool.terminate()
    assert outcomes[:2] == [None, None]
    assert [type(outcome) for outcome in outcomes[2:]] == [FencedError, FencedError]
    # A deadlock would be ended by Postgres, and one of the groups repeated one by one.
    assert (process.committer.groups, twins.committer.groups) == ([[0, 1]], [[1, 0]])


async def test_a_partition_that_is_being_acquired_holds_up_its_group_and_is_fenced_alone(
    process: Process,
) -> None:
    async with process.pool.acquire() as heir:
        async with heir.transaction():
            await heir.fetch(statement("acquire"), [2], [PARTITIONS], False)
            group = asyncio.create_task(process.commit(one_each()))
            await until_waiting(heir, 1)
        outcomes = await group
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), FencedError, type(None)]
    assert await process.offsets() == [10, 10, 0, 10]
    assert process.committer.groups == [[0, 1, 2, 3]]


# Statements that fail.

TRIGGER = """
create sequence public.calls;
create function public.act() returns trigger language plpgsql as $$
begin
    if new.session_id = 'odd' then
        perform nextval('public.calls');
        %s;
    end if;
    return new;
end $$;
create trigger act before insert on waypost.checkpoints for each row execute function public.act();
"""


async def calls(pool: Any) -> int:
    """How often a row of the odd session was about to be stored, rolled back or not."""
    found: int = await pool.fetchval(
        "select case when is_called then last_value else 0 end from public.calls"
    )
    return found


ODD = puts("odd", [entry(1)])


async def test_a_batch_that_postgres_does_not_take_fails_alone(process: Process) -> None:
    await process.hands[1].commit(puts("odd", [entry(1)]))
    outcomes = await process.commit(one_each(p1=ODD))
    assert isinstance(outcomes.pop(1), asyncpg.UniqueViolationError)
    assert outcomes == [None] * 3
    assert await process.offsets() == [10, 10, 10, 10]
    assert sorted(process.committer.groups[1:]) == [[0], [0, 1, 2, 3], [1], [2], [3]]


async def test_a_partition_whose_commit_failed_goes_alone_until_one_counts(process: Process) -> None:
    await process.hands[1].commit(puts("odd", [entry(1)]))
    await process.commit(one_each(p1=ODD))
    for changes, groups in ((ODD, [[0, 2, 3], [1]]), (None, [[0, 2, 3], [1]]), (None, [[0, 1, 2, 3]])):
        process.committer.groups.clear()
        outcomes = await process.commit({0: None, 1: changes, 2: None, 3: None})
        assert (outcomes[1] is None) is (changes is None)
        assert outcomes[0] is outcomes[2] is outcomes[3] is None
        assert sorted(process.committer.groups) == groups


async def test_a_batch_that_can_t_be_sent_fails_alone(process: Process) -> None:
    odd = puts("odd", [entry(1, "\ud800")])
    outcomes = await process.commit(one_each(p3=odd))
    assert isinstance(outcomes.pop(3), TypeError)
    assert outcomes == [None] * 3


@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
async def test_a_batch_that_takes_too_long_for_the_server_fails_alone_and_names_the_limit(
    database: str, limit: str
) -> None:
    pool = await open_pool(database, size=PARTITIONS)
    act = "perform pg_sleep(10)" if limit == "statement_timeout" else "perform pg_advisory_xact_lock(1)"
    await pool.execute(TRIGGER % act)
    await pool.execute(
        f"do $$ begin execute 'alter database ' || current_database() || ' set {limit} = 200'; end $$"
    )
    await pool.expire_connections()
    process = Process(pool)
    await process.acquire()
    try:
        async with pool.acquire() as holder:
            await holder.execute("select pg_advisory_lock(1)")
            outcomes = await process.commit(one_each(p2=ODD))
        slow = outcomes.pop(2)
        if limit == "statement_timeout":
            assert isinstance(slow, TimedOutError)
            assert limit in slow.setting
        else:
            assert isinstance(slow, UnavailableError)
        assert outcomes == [None] * 3
        assert await process.offsets() == [10, 10, 0, 10]
        assert await calls(pool) == 2
    finally:
        pool.terminate()


async def test_a_group_that_takes_too_long_for_the_worker_blames_nobody_until_each_was_tried_alone(
    database: str,
) -> None:
    pool = await open_pool(database, size=PARTITIONS, timeout=10)
    await pool.execute(TRIGGER % "perform pg_advisory_xact_lock(1)")
    process = Process(pool, timeout=0.5)
    await process.acquire()
    try:
        async with pool.acquire() as holder:
            await holder.execute("select pg_advisory_lock(1)")
            outcomes = await process.commit(one_each(p2=ODD))
            assert [type(outcome) for outcome in outcomes] == [UnavailableError] * PARTITIONS
            assert len({id(outcome) for outcome in outcomes}) == PARTITIONS
            await process.acquire()
            outcomes = await process.commit(one_each(p2=ODD))
            assert isinstance(outcomes[2], TimedOutError)
            assert "WAYPOST_REQUEST_TIMEOUT" in outcomes.pop(2).setting
            assert outcomes == [None] * 3
        assert sorted(process.committer.groups) == [[0], [0, 1, 2, 3], [1], [2], [3]]
        process.committer.groups.clear()
        assert await process.commit({0: None, 1: None}) == [None] * 2
        assert process.committer.groups == [[0, 1]]
    finally:
        pool.terminate()


async def test_after_a_lost_connection_all_of_the_group_is_in_doubt_and_nothing_is_repeated(
    process: Process,
) -> None:
    await process.pool.execute(TRIGGER % "perform pg_terminate_backend(pg_backend_pid())")
    outcomes = await process.commit(one_each(p2=ODD))
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * PARTITIONS
    assert process.committer.groups == [[0, 1, 2, 3]]
    assert await calls(process.pool) == 1
    await process.pool.execute("drop trigger act on waypost.checkpoints")
    await process.acquire()
    assert await process.commit(one_each(p2=ODD)) == [None] * PARTITIONS
