"""The real verification over a world's logs and database: where all is well it finds nothing, and where one row was
changed behind everybody's back it finds that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from tests.simulation.clients import SimulatedCommandLog, SimulatedResultsLog
from tests.simulation.copies import copy_to_begin_with
from tests.simulation.database import Tables
from tests.simulation.fleet import RESULTS_TOPIC
from tests.simulation.loop import Process

from waypost.model.index import SeenCommand
from waypost_worker.partition.ports import RefusedError, RejectedRow, StoredOutbox, UnavailableError
from waypost_worker.recovery.shares import Share, spread_of
from waypost_worker.recovery.verify.rows import (
    StoredCheckpoint,
    StoredCommand,
    StoredPartition,
    StoredSession,
    Stray,
    VerifiedRows,
)
from waypost_worker.recovery.verify.verification import (
    Verification,
    VerifyOptions,
    VerifyReport,
    VerifySources,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

_T = TypeVar("_T")
_SECONDS = 120.0
_ROOMS = (1, 2000, 10**9)  # bytes; what does not fit is verified in passes


class _Snapshot:
    """Rows of one partition, as Postgres shows them, or as a snapshot keeps them; tables are never changed once a
    transaction is done.
    """

    name = "kept"

    def __init__(self, tables: Tables | None) -> None:
        self._tables = tables or Tables(0)
        self._there = tables is not None

    async def partition(self) -> StoredPartition | None:
        tables = self._tables
        return (
            None
            if not self._there
            else StoredPartition(
                tables.partitions,
                tables.next_offset,
                tables.anchor,
                tables.emitted,
                tables.results_offset,
                tables.default_policy,
                list(tables.default_commands),
                tables.authority,
                tables.rejected_window,
                tables.foreign_results,
            )
        )

    def sessions(self, share: Share) -> AsyncIterator[StoredSession]:
        return _each(
            [
                StoredSession(
                    name,
                    row.counter,
                    row.policy,
                    row.checkpoints,
                    row.first_recorded_at,
                    row.last_recorded_at,
                    row.erased_at,
                )
                for name, row in self._tables.sessions.items()
                if share.holds(spread_of(name.encode()))
            ]
        )

    def checkpoints(self, share: Share) -> AsyncIterator[StoredCheckpoint]:
        return _each(
            [
                StoredCheckpoint(
                    session_id,
                    number,
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
                for (session_id, number), (entry, data, metadata) in self._tables.checkpoints.items()
                if share.holds(spread_of(session_id.encode()))
            ]
        )

    def commands(self, share: Share) -> AsyncIterator[StoredCommand]:
        return _each(
            [
                StoredCommand(session_id, one.position, one.command_id, one.number)
                for session_id, row in self._tables.sessions.items()
                if share.holds(spread_of(session_id.encode()))
                for one in row.recent.values()
            ]
        )

    def rejected(self, share: Share) -> AsyncIterator[RejectedRow]:
        rows = self._tables.rejected.values()
        return _each([row for row in rows if share.holds(spread_of(row.key, row.offset))])

    async def outbox(self) -> Sequence[StoredOutbox]:
        return [self._tables.outbox[first] for first in sorted(self._tables.outbox)]

    def count(self, table: str) -> int:
        if table == "recent_commands":
            return sum(len(row.recent) for row in self._tables.sessions.values())
        rows = {"rejected_commands": "rejected"}.get(table, table)
        return len(getattr(self._tables, rows))

    async def strays(self, partitions: int) -> Sequence[Stray]:
        return []


async def _each(rows: Sequence[_T]) -> AsyncIterator[_T]:
    for row in rows:
        await asyncio.sleep(0)
        yield row


class _Untold:
    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        pass

    def grow(self, commands: int) -> None:
        pass


async def verify(
    world: "World", partition: int, room: int, tables: Callable[[], Tables | None], base: Tables | None
) -> VerifyReport:
    """What the real verification says of a partition whose rows, whenever it looks, are ``tables()``. It begins with
    the log, or with a snapshot that holds ``base``.
    """

    @asynccontextmanager
    async def snapshot(partition: int) -> AsyncIterator[VerifiedRows]:
        yield _Snapshot(await world.database_of(partition).server.call(f"p{partition} snapshot", tables))

    log = SimulatedCommandLog(world.kafka, world.topic, partition)
    results = SimulatedResultsLog(
        world.kafka, world.results[partition], world.coordinator, f"verify.{partition}"
    )
    try:
        verification = Verification(
            partition,
            world.plan.partitions,
            RESULTS_TOPIC,
            VerifySources(log, results, snapshot, None if base is None else _Snapshot(base)),
            _Untold(),
            VerifyOptions(strict=True, room=room),
        )
        return await verification.run()
    finally:
        await asyncio.gather(log.close(), results.close())


def _tables_of(world: "World", partition: int) -> Tables | None:
    return world.database_of(partition).tables.get(partition)


def _same(tables: Tables | None) -> Tables | None:
    return tables


async def verify_now_and_then(world: "World") -> None:
    """While owners are at work, faults happen, and Postgres forgets: what is found is never a difference."""
    random = Random(f"verifying {world.plan.seed}")
    copies = Random(f"copies to verify {world.plan.seed}")
    if world.plan.disaster is not None:
        return
    while not world.healed:
        await asyncio.sleep(random.expovariate(1 / 5))
        partition = random.randrange(world.plan.partitions)
        base = copy_to_begin_with(world, partition, copies) if world.plan.snapshots else None
        try:
            verdict = await verify(
                world,
                partition,
                random.choice(_ROOMS),
                partial(_tables_of, world, partition),
                base,
            )
        except (UnavailableError, RefusedError):
            continue  # it says so: no answer, a log that was trimmed, a database that went back
        world.faults["verified"] = world.faults.get("verified", 0) + 1
        if verdict.differences:
            world.problems.append(f"verify found differences at work: p{partition}: {verdict.first}"[:500])


def verify_at_rest(world: "World") -> None:
    """Each partition as it is, and once more with one row changed."""
    random = Random(f"verifying {world.plan.seed}")
    copies = Random(f"copies to verify {world.plan.seed} at rest")
    process = Process("verify")
    world.processes.append(process)
    for partition in range(world.plan.partitions):
        tables = world.database_of(partition).tables.get(partition)
        if world.plan.disaster is not None or tables is None:
            continue
        if world.commands[partition].start > 0 and not world.plan.snapshots:
            continue
        base = copy_to_begin_with(world, partition, copies) if world.plan.snapshots else None
        changed, what = changed_at_random(tables, random)
        for seen, wanted in ((tables, False), (changed, True)):
            task = world.loop.start(
                process, verify(world, partition, random.choice(_ROOMS), partial(_same, seen), base)
            )
            world.tasks.append(task)
            if not world.loop.run(task.done, world.loop.time() + _SECONDS):
                world.problems.append(f"verify stuck: p{partition}")
            elif (error := task.exception()) is not None:
                world.problems.append(f"verify failed: p{partition}: {error!r}")
            elif bool(task.result().differences) is not wanted:
                said = f"missed: {what}" if wanted else f"found: {task.result().first}"
                begun = "" if base is None else f" from a copy at {base.next_offset}"
                world.problems.append(f"verify{begun} {said}: p{partition}"[:500])


def changed_at_random(tables: Tables, random: Random) -> tuple[Tables, str]:
    """The same tables with one row that is not what the log says, and which."""
    changed = tables.copy()
    ways: list[Callable[[], str]] = [lambda: _change_partition(changed, random)]
    if changed.checkpoints:
        ways += [lambda: _change_checkpoint(changed, random)] * 4
        ways += [lambda: _add_row(changed, random)] * 2
    if changed.sessions:
        ways += [lambda: _change_session(changed, random)] * 3
    if changed.rejected:
        ways.append(lambda: _change_rejected(changed, random))
    return changed, random.choice(ways)()


def _add_row(tables: Tables, random: Random) -> str:
    """A row that no command made."""
    (session_id, number), row = random.choice(list(tables.checkpoints.items()))
    match random.choice(("checkpoint", "session", "remembered command")):
        case "checkpoint":
            tables.checkpoints[session_id, number + 1000] = row
        case "session":
            tables.sessions["stranger"] = replace(tables.sessions[session_id], recent={})
        case "remembered command":
            known = tables.sessions[session_id]
            recent = {**known.recent, 10**6: SeenCommand(10**6, "stranger", None)}
            tables.sessions[session_id] = replace(known, recent=recent)
    return "a row more"


def _change_partition(tables: Tables, random: Random) -> str:
    if random.random() < 0.5:
        tables.default_commands = [*tables.default_commands, "another"]
        return "a default command more"
    tables.anchor = bytes(16)
    return "anchor"


def _change(rows: dict[Any, Any], key: Any, ways: dict[str, Any], random: Random) -> str:
    """Change a row in one of these ways, None being that it goes; which."""
    what = random.choice(list(ways))
    if ways[what] is None:
        del rows[key]
    else:
        rows[key] = ways[what]
    return what


def _change_checkpoint(tables: Tables, random: Random) -> str:
    key = random.choice(list(tables.checkpoints))
    entry, data, metadata = tables.checkpoints[key]
    ways: dict[str, Any] = {
        "missing": None,
        "data": (entry, data + b" ", metadata),
        "metadata": (entry, data, b'{"other":1}'),
        "pinned": (replace(entry, pinned=not entry.pinned), data, metadata),
        "name": (replace(entry, name=entry.name + "x"), data, metadata),
        "taken_at": (replace(entry, taken_at=entry.taken_at + 1), data, metadata),
        "recorded_at": (replace(entry, recorded_at=entry.recorded_at + 1), data, metadata),
        "command_id": (replace(entry, command_id="another"), data, metadata),
        "imported_id": (replace(entry, imported_id="another"), data, metadata),
    }
    return f"checkpoint {key} {_change(tables.checkpoints, key, ways, random)}"


def _change_session(tables: Tables, random: Random) -> str:
    name = random.choice(list(tables.sessions))
    row = tables.sessions[name]
    ways: dict[str, Any] = {
        "missing": None,
        "counter": replace(row, counter=row.counter + 1),
        "checkpoints": replace(row, checkpoints=row.checkpoints + 1),
        "first_recorded_at": replace(row, first_recorded_at=row.first_recorded_at - 1),
        "last_recorded_at": replace(row, last_recorded_at=row.last_recorded_at + 1),
        "erased_at": replace(row, erased_at=row.last_recorded_at if row.erased_at is None else None),
    }
    if row.recent:
        position = random.choice(list(row.recent))
        rest = {at: one for at, one in row.recent.items() if at != position}
        ways["remembered command missing"] = replace(row, recent=rest)
    return f"session {name} {_change(tables.sessions, name, ways, random)}"


def _change_rejected(tables: Tables, random: Random) -> str:
    offset = random.choice(list(tables.rejected))
    row = tables.rejected[offset]
    ways: dict[str, Any] = {
        "missing": None,
        "code": row._replace(code="another"),
        "value": row._replace(value=(row.value or b"") + b"x"),
        "recorded_at": row._replace(recorded_at=row.recorded_at + 1),
    }
    return f"rejected command {offset} {_change(tables.rejected, offset, ways, random)}"
