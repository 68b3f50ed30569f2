"""Groups of commits, seen from Postgres: what holds one of their members up, and whether a group waits for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import asyncpg
from tests.faults.scene import Scene

from waypost_worker.postgres.statements import StatementForms, statement


def _beginnings(name: str) -> list[str]:
    """Return what Postgres shows first of either form. It shows 1,024 bytes."""
    forms = StatementForms(name)
    return [forms.whole[:200], forms.short[:200]]


_GROUP: Final = _beginnings("commit_group")
_SINGLE: Final = _beginnings("commit")
# A commit of this partition takes as long as the table says; taking the partition over takes as long as ever.
_SLOW: Final = """
create table public.slow (partition integer primary key, seconds float8, group_begins text[]);
create sequence public.slow_groups;
create function public.slow_down() returns trigger language plpgsql as $$
begin
    perform nextval('public.slow_groups') from public.slow s
    where s.partition = new.partition
    and exists (select from unnest(s.group_begins) as begins where starts_with(current_query(), begins));
    perform pg_sleep(seconds) from public.slow s where s.partition = new.partition;
    return new;
end $$;
create trigger slow_down before update on waypost.partitions for each row
when (new.next_offset > old.next_offset) execute function public.slow_down();
"""


class Rows:
    """The partitions' rows: ``holder`` can hold one, ``watcher`` sees who waits for it."""

    def __init__(self, stage: Scene, holder: Any, watcher: Any) -> None:
        self._stage = stage
        self._holder = holder
        self._watcher = watcher

    @asynccontextmanager
    async def _held_against_a_group(self, sql: str, *parameters: Any) -> AsyncIterator[None]:
        """Run ``sql``, which locks a partition's row, in a transaction that is committed when the block ends.

        In the block, a statement that commits for this partition and others waits for that transaction.
        """
        while True:
            transaction = self._holder.transaction()
            await transaction.start()
            await self._holder.fetch(sql, *parameters)
            await self._stage.until(self._commit_waits)
            if await self._commits(_GROUP, "Lock"):
                break
            await transaction.rollback()  # its owner committed alone this time
        try:
            yield
        finally:
            await transaction.commit()

    def held(self, partition: int) -> AbstractAsyncContextManager[None]:
        """Hold a row as any other transaction might."""
        return self._held_against_a_group(
            "select from waypost.partitions where partition = $1 for update", partition
        )

    def taken_over(self, partition: int) -> AbstractAsyncContextManager[None]:
        """Raise the row's epoch, with the statement with which workers take partitions over."""
        return self._held_against_a_group(statement("acquire"), [partition], [self._stage.partitions], False)

    async def slow_down(self, partition: int, seconds: float) -> None:
        """From now on, Postgres needs so long for each commit of a partition."""
        await self._watcher.execute("insert into public.slow values ($1, $2, $3)", partition, seconds, _GROUP)

    async def as_fast_as_before(self) -> None:
        """End that."""
        await self._watcher.execute("delete from public.slow")

    async def group_sleeps(self) -> bool:
        """Whether a group has come to the partition that is slow."""
        return await self._commits(_GROUP, "Timeout")

    async def slow_groups(self) -> int:
        """How many groups have come to the partition that is slow, rolled back or not."""
        found: int = await self._watcher.fetchval(
            "select case when is_called then last_value else 0 end from public.slow_groups"
        )
        return found

    async def single_sleeps(self) -> bool:
        """Whether the partition that is slow is committed by itself."""
        return await self._commits(_SINGLE, "Timeout")

    async def _commits(self, beginnings: Sequence[str], wait: str) -> bool:
        """Whether a commit whose statement begins in one of these ways waits for this type of event."""
        found: bool = await self._watcher.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database() "
            "and state = 'active' and wait_event_type = $2 "
            "and exists (select from unnest($1::text[]) as begins where starts_with(query, begins)))",
            beginnings,
            wait,
        )
        return found

    async def _commit_waits(self) -> bool:
        return await self._commits(_GROUP, "Lock") or await self._commits(_SINGLE, "Lock")


@asynccontextmanager
async def rows_of(stage: Scene) -> AsyncIterator[Rows]:
    """The rows of a stage's partitions, none of them slow yet."""
    connections = [await asyncpg.connect(stage.endpoints.postgres_dsn) for _ in range(2)]
    try:
        await connections[0].execute(_SLOW)
        yield Rows(stage, *connections)
    finally:
        for connection in connections:
            await connection.close()


class Others:
    """The members of groups that nothing happened to."""

    def __init__(self, stage: Scene, members: Sequence[int]) -> None:
        self._stage = stage
        self._members = members
        self._terms = self._now()

    async def continue_while_it_waits(self, member: int) -> None:
        """Everything that is published now for the others is answered, and nothing for this member."""
        stage = self._stage
        mark = await stage.load.mark(member)
        for _ in range(3):
            await stage.healed(self._members)
        assert stage.live.answered[member] < mark

    def began_anew(self) -> list[int]:
        """Those whose terms have ended since the beginning, as often as they did."""
        return [one for one, terms in self._now().items() for _ in range(terms - self._terms[one])]

    def _now(self) -> dict[int, int]:
        return {one: self._stage.live.terms[one] for one in self._members}
