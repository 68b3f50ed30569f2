"""Partitions acquired in groups on the real Postgres: what goes in one transaction, and what its failure means."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from tests.conformance.stores import PARTITIONS
from tests.support.timeouts import PATIENCE

from waypost_worker.partition.ports import AcquiredState, Fence, FencedError, RefusedError, UnavailableError
from waypost_worker.postgres.group_acquire import AcquiredRow, Acquisition, GroupAcquirer, Update
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.store import PostgresStore


class RecordingAcquirer(GroupAcquirer):
    """Keeps which partitions went together, transaction by transaction."""

    def __init__(self, pool: Any, **options: Any) -> None:
        super().__init__(pool, **options)
        self.groups: list[list[int]] = []

    async def _acquire(self, group: Sequence[Acquisition]) -> Sequence[AcquiredRow | Exception]:
        self.groups.append([one.partition for one in group])
        return await super()._acquire(group)

    async def _update(self, sql: str, group: Sequence[Update]) -> Sequence[tuple[int, int] | Exception]:
        self.groups.append([update[0] for update in group])
        return await super()._update(sql, group)


class Process:
    """Owners of all partitions over one pool."""

    def __init__(self, pool: Any, **options: Any) -> None:
        self.pool = pool
        self.acquirer = RecordingAcquirer(pool, **options)
        self.stores = [
            PostgresStore(pool, partition, acquirer=self.acquirer) for partition in range(PARTITIONS)
        ]

    async def acquire(self, counts: dict[int, int] | None = None) -> list[Any]:
        """Acquire all partitions at the same time; a state or an error for each. ``counts`` are what owners see."""
        counts = counts or {}
        return await asyncio.gather(
            *(store.acquire(counts.get(at, PARTITIONS)) for at, store in enumerate(self.stores)),
            return_exceptions=True,
        )

    async def transactions(self) -> int:
        """How many transactions left the rows as they are."""
        found: int = await self.pool.fetchval("select count(distinct xmin::text) from waypost.partitions")
        return found


@pytest.fixture
async def process(database: str) -> AsyncIterator[Process]:
    pool = await open_pool(database, size=PARTITIONS)
    yield Process(pool)
    pool.terminate()


def epochs(states: Sequence[Any]) -> list[Any]:
    return [state.epoch if isinstance(state, AcquiredState) else type(state) for state in states]


async def test_partitions_acquired_together_go_in_one_transaction(process: Process) -> None:
    for epoch in (1, 2):
        assert epochs(await process.acquire()) == [epoch] * PARTITIONS
        assert await process.transactions() == 1
    await asyncio.gather(*(store.record_claim(2, Fence(1, 1)) for store in process.stores))
    assert await process.transactions() == 1
    await asyncio.gather(*(store.save_position(2, 0, 1) for store in process.stores))
    assert await process.transactions() == 1
    assert process.acquirer.groups == [[0, 1, 2, 3]] * 4


async def test_a_row_that_another_transaction_holds_is_waited_for_alone(process: Process) -> None:
    await process.acquire()
    process.acquirer.groups.clear()
    async with process.pool.acquire() as older, older.transaction():
        await older.execute("update waypost.partitions set next_offset = 1 where partition = 2")
        await older.execute("insert into waypost.outbox values (2, 0, 0, 'owed')")
        acquiring = [asyncio.create_task(store.acquire(PARTITIONS)) for store in process.stores]
        held = acquiring.pop(2)
        async with asyncio.timeout(PATIENCE):
            assert epochs(await asyncio.gather(*acquiring)) == [2, 2, 2]
        assert not held.done()
    state = await held
    assert (state.epoch, state.next_offset) == (2, 1)
    assert [entry.payload for entry in state.outbox] == [b"owed"]
    assert process.acquirer.groups == [[0, 1, 2, 3], [2]]


async def test_the_first_one_does_not_hold_up_those_that_come_after_it(process: Process) -> None:
    await process.acquire()
    process.acquirer.groups.clear()
    async with process.pool.acquire() as older, older.transaction():
        await older.execute("update waypost.partitions set next_offset = 1 where partition = 2")
        held = asyncio.create_task(process.stores[2].acquire(PARTITIONS))
        await until_waiting(older, 1)
        async with asyncio.timeout(PATIENCE):
            assert (await process.stores[0].acquire(PARTITIONS)).epoch == 2
        assert not held.done()
    assert (await held).next_offset == 1
    assert process.acquirer.groups == [[2], [2], [0]]


async def until_waiting(connection: Any, statements: int) -> None:
    """Wait until this many statements wait for a lock."""
    count = "select count(distinct pid) from pg_locks where not granted"
    async with asyncio.timeout(PATIENCE):
        while await connection.fetchval(count) < statements:
            pass


async def test_groups_of_two_processes_never_wait_for_each_other_in_a_circle(
    process: Process, database: str
) -> None:
    await process.acquire()
    pool = await open_pool(database, size=2)
    twins = Process(pool)
    process.acquirer.groups.clear()
    try:
        async with process.pool.acquire() as holder:
            async with holder.transaction():
                await holder.execute("select from waypost.partitions where partition = 0 for update")
                ours = [asyncio.create_task(process.stores[at].save_position(1, 0, 1)) for at in (0, 1)]
                await until_waiting(holder, 1)
                theirs = [asyncio.create_task(twins.stores[at].save_position(1, 0, 1)) for at in (1, 0)]
                await until_waiting(holder, 2)
            await asyncio.gather(*ours, *theirs, return_exceptions=True)
    finally:
        pool.terminate()
    # A deadlock would be ended by Postgres, and one of the groups repeated one by one.
    assert (process.acquirer.groups, twins.acquirer.groups) == ([[0, 1]], [[1, 0]])


async def test_one_that_is_refused_has_the_others_acquired_one_by_one(process: Process) -> None:
    await process.acquire()
    process.acquirer.groups.clear()
    assert epochs(await process.acquire({1: PARTITIONS + 1})) == [2, RefusedError, 2, 2]
    assert sorted(process.acquirer.groups) == [[0], [0, 1, 2, 3], [1], [2], [3]]


async def test_a_statement_that_fails_for_one_partition_is_repeated_one_by_one(process: Process) -> None:
    await process.acquire()
    await process.pool.execute(
        """
        create function public.act() returns trigger language plpgsql as $$
        begin
            if new.partition = 2 then raise exception 'odd' using errcode = '53200'; end if;
            return new;
        end $$;
        create trigger act before update on waypost.partitions for each row execute function public.act();
        """
    )
    assert epochs(await process.acquire()) == [2, 2, UnavailableError, 2]
    for call in (
        lambda store: store.record_claim(2, Fence(7, 7)),
        lambda store: store.save_position(2, 0, 1),
    ):
        found = await asyncio.gather(*map(call, process.stores), return_exceptions=True)
        assert [type(outcome) for outcome in found] == [
            type(None),
            type(None),
            FencedError,  # its epoch is still the first
            type(None),
        ]


async def test_a_lost_connection_costs_no_partition_its_term(process: Process) -> None:
    await process.acquire()
    await process.pool.execute(
        """
        create sequence public.call;
        create function public.act() returns trigger language plpgsql as $$
        begin
            if nextval('public.call') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
            return new;
        end $$;
        create trigger act before update on waypost.partitions for each row execute function public.act();
        """
    )
    assert epochs(await process.acquire()) == [2] * PARTITIONS


async def test_after_a_lost_connection_a_group_of_updates_is_in_doubt_and_nothing_is_repeated(
    process: Process,
) -> None:
    await process.acquire()
    await process.pool.execute(
        """
        create function public.act() returns trigger language plpgsql as $$
        begin
            perform pg_terminate_backend(pg_backend_pid());
            return new;
        end $$;
        create trigger act before update on waypost.partitions for each row execute function public.act();
        """
    )
    process.acquirer.groups.clear()
    found = await asyncio.gather(
        *(store.record_claim(1, Fence(7, 7)) for store in process.stores), return_exceptions=True
    )
    assert [type(outcome) for outcome in found] == [UnavailableError] * PARTITIONS
    assert len({id(outcome) for outcome in found}) == PARTITIONS
    assert process.acquirer.groups == [[0, 1, 2, 3]]


async def test_an_outage_is_reported_to_each_owner_and_ends(database: str) -> None:
    pool = await open_pool(database, size=1)
    process = Process(pool, timeout=0.5)
    try:
        async with pool.acquire():  # nothing else is free
            found = await process.acquire()
            assert all(isinstance(outcome, UnavailableError) for outcome in found)
            assert len({id(outcome) for outcome in found}) == PARTITIONS
        assert epochs(await process.acquire()) == [1] * PARTITIONS
    finally:
        pool.terminate()


async def test_more_partitions_than_a_group_takes_are_all_acquired(database: str) -> None:
    pool = await open_pool(database, size=2)
    acquirer = RecordingAcquirer(pool)
    stores = [PostgresStore(pool, partition, acquirer=acquirer) for partition in range(100)]
    try:
        states = await asyncio.gather(*(store.acquire(100) for store in stores))
    finally:
        pool.terminate()
    assert epochs(states) == [1] * 100
    assert [len(group) for group in acquirer.groups] == [32, 32, 32, 4]
