"""Batches leave the same rows behind, whether the short form of a commit may be taken or never is."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.conformance.stores import (
    MOMENT,
    PARTITIONS,
    AlwaysWhole,
    Hand,
    PostgresStores,
    data_of,
    entry,
)
from tests.support.database_state import all_rows

from waypost.model.index import SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost_worker.devserver import Servers
from waypost_worker.partition.ports import Changes, RejectedRow, Row
from waypost_worker.postgres.group_commit import GroupCommitter

TABLES = ("sessions", "checkpoints", "recent_commands", "rejected_commands", "partitions", "outbox")
RARE = ("drop", "pin", "forget", "outdate", "erase", "reject")
examples = settings(
    deadline=None,
    max_examples=40,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a shorter example would take minutes to find
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

_touches = st.fixed_dictionaries(
    {
        "session": st.integers(0, 2),
        "creates": st.integers(0, 3),
        "pinned": st.booleans(),
        "remembers": st.integers(0, 2),
        "policy": st.none() | st.integers(2, 100).map(RetentionPolicy),
        "begun": st.integers(0, 5),
        "erased_at": st.none() | st.just(MOMENT),
    }
)
_batches = st.fixed_dictionaries(
    {
        "touches": st.lists(_touches, max_size=3, unique_by=lambda touch: touch["session"]),
        "default_policy": st.none() | st.integers(2, 100).map(RetentionPolicy),
        "emitted": st.booleans(),
        "by_owner": st.booleans(),
        "rare": st.lists(st.sampled_from(RARE), max_size=1),
    }
)
steps = st.lists(
    st.dictionaries(st.integers(0, PARTITIONS - 1), _batches, min_size=1), min_size=1, max_size=6
)


@dataclass
class Writer:
    """Makes batches of what was drawn, for one example. Numbers and ids are given once."""

    last: int = 0
    live: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def next(self) -> int:
        self.last += 1
        return self.last

    def changes(self, partition: int, offset: int, batch: dict[str, Any]) -> Changes:
        changes = Changes(default_policy=batch["default_policy"])
        for rare in batch["rare"]:  # about what was there before the batch
            self.add_rare(changes, rare, f"{partition}:0", offset)
        for touch in batch["touches"]:
            self.add_touch(changes, f"{partition}:{touch['session']}", touch)
        return changes

    def add_touch(self, changes: Changes, name: str, touch: dict[str, Any]) -> None:
        entries = [entry(self.next(), pinned=touch["pinned"]) for _ in range(touch["creates"])]
        recent = [SeenCommand(self.next(), f"seen-{self.last}", None) for _ in range(touch["remembers"])]
        session = Session.restore(name, self.last, touch["policy"], entries, recent, None, touch["erased_at"])
        changes.sessions[name] = (session, MOMENT + self.last)
        changes.begun[name] = MOMENT + self.last - touch["begun"]
        changes.remembered += [(name, one) for one in recent]
        changes.puts |= {
            (name, one.number): Row(name, one, data_of(one.number), b'{"a":1}') for one in entries
        }
        self.live[name] += [one.number for one in entries]

    def add_rare(self, changes: Changes, rare: str, name: str, offset: int) -> None:
        if rare == "drop":
            changes.drops = {(name, number): None for number in self.live[name][:2]}
        elif rare == "pin":
            changes.pins = {(name, number): True for number in self.live[name][-2:]}
        elif rare == "forget":
            changes.sessions[name] = (Session(name, self.last), MOMENT)
            changes.forgotten[name] = self.last
        elif rare == "outdate":
            changes.rejected_below = offset
        elif rare == "erase":
            changes.erased[name] = offset
        else:
            session_id = name if self.last % 2 else None
            changes.rejected = [RejectedRow(offset, session_id, "id", "c", "m", None, b"v", [], MOMENT)]


class World:
    """A database, and the owners of its partitions in one process."""

    def __init__(self, dsn: str, committer: type[GroupCommitter]) -> None:
        self.dsn = dsn
        self.stores = PostgresStores(dsn, committer)
        self.hands: list[Hand] = []

    async def begin(self) -> None:
        """Begin with empty tables and new owners."""
        connection: Any = await asyncpg.connect(self.dsn)
        await connection.execute(f"truncate {', '.join(f'waypost.{table}' for table in TABLES)}")
        await connection.close()
        opened = await self.stores.open_together(range(PARTITIONS))
        self.hands = [Hand(store, await store.acquire(PARTITIONS)) for store in opened]

    async def commit(self, step: dict[int, dict[str, Any]], changes: dict[int, Changes]) -> None:
        for partition, batch in step.items():
            hand = self.hands[partition]
            if batch["emitted"]:
                hand.emit(hand.next_offset - 1)
        commits = [self.hands[at].commit(one, by_owner=step[at]["by_owner"]) for at, one in changes.items()]
        await asyncio.gather(*commits)

    async def end(self) -> dict[str, list[str]]:
        """Return all rows, and close the connections."""
        await self.stores.close()
        self.stores = PostgresStores(self.dsn, self.stores.committer)
        return await all_rows(self.dsn, TABLES)


@pytest.fixture
def second_database(servers: Servers, database: str, database_template: str) -> Iterator[str]:
    name = f"{database.rpartition('/')[2].partition('?')[0]}_whole"
    yield servers.postgres.create_database(name, template=database_template)
    servers.postgres.drop_database(name)


@pytest.fixture
async def worlds(database: str, second_database: str) -> AsyncIterator[tuple[World, World]]:
    made = World(database, GroupCommitter), World(second_database, AlwaysWhole)
    yield made
    for world in made:
        await world.stores.close()


@examples
@given(steps)
async def test_both_forms_leave_the_same_rows_behind(
    worlds: tuple[World, World], steps: list[dict[int, dict[str, Any]]]
) -> None:
    for world in worlds:
        await world.begin()
    writer = Writer()
    for step in steps:
        offsets = [hand.next_offset for hand in worlds[0].hands]
        changes = {at: writer.changes(at, offsets[at], batch) for at, batch in step.items()}
        for world in worlds:
            await world.commit(step, changes)
    chosen, whole = [await world.end() for world in worlds]
    assert chosen == whole
