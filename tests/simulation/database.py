"""A simulated Postgres, and the Store port over it.

A statement takes effect as a whole when it lands, or not at all. Every transaction is kept with what it
changed, so that a failover or a restore can lose the last ones. What the real schema would refuse (a key that
is there already, say) is noted as a violation, for no owner may ever do it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tests.simulation.group_commit import Groups, Statement
from tests.simulation.loop import current_process
from tests.simulation.network import Server

from waypost.model.authority import Authority
from waypost.model.index import Entry, SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import (
    AcquiredState,
    Commit,
    Fence,
    FencedError,
    ForeignRecord,
    RefusedError,
    RejectedRow,
    RejectedWindow,
    StoredOutbox,
    UnavailableError,
)

Key = tuple[str, int]


@dataclass(slots=True)
class SessionRow:
    """A row of ``sessions``. ``recent`` stands for its rows in ``recent_commands``, by position."""

    counter: int
    policy: RetentionPolicy | None
    checkpoints: int
    first_recorded_at: int
    last_recorded_at: int
    erased_at: int | None = None
    recent: dict[int, SeenCommand] = field(default_factory=dict)


@dataclass(slots=True)
class Tables:
    """All rows of one partition. Never changed in place once a transaction is done: see :meth:`copy`."""

    partitions: int
    epoch: int = 0
    next_offset: int = 0
    anchor: bytes | None = None
    emitted: int = -1
    results_offset: int = 0
    producer: Fence | None = None
    default_policy: RetentionPolicy = field(default_factory=RetentionPolicy)
    default_commands: list[str] = field(default_factory=list)
    rejected_window: RejectedWindow = field(default_factory=RejectedWindow)
    foreign_results: tuple[ForeignRecord, ...] = ()
    former_producer_ids: tuple[int, ...] | None = None
    authority: Authority = field(default_factory=Authority)
    blocked_offset: int | None = None
    skip_offset: int | None = None
    outbox: dict[int, StoredOutbox] = field(default_factory=dict)
    checkpoints: dict[Key, tuple[Entry, bytes, bytes]] = field(default_factory=dict)
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    rejected: dict[int, RejectedRow] = field(default_factory=dict)

    @property
    def owners(self) -> frozenset[int] | None:
        """As an AcquiredState has them."""
        if self.producer is None or self.former_producer_ids is None:
            return None
        return frozenset((self.producer.producer_id, *self.former_producer_ids))

    def copy(self) -> "Tables":
        """A copy whose rows may be replaced, not changed."""
        return replace(
            self,
            outbox=dict(self.outbox),
            checkpoints=dict(self.checkpoints),
            sessions=dict(self.sessions),
            rejected=dict(self.rejected),
        )


class Branch:
    """What one primary holds: tables by partition, and what each transaction replaced, oldest first."""

    def __init__(self, tables: dict[int, Tables], history: list[tuple[int, Tables | None]]) -> None:
        self.tables = tables
        self.history = history
        self.over = False  # whether it is there no more


class Database:
    """The server: tables by partition, and the transactions that made them.

    After a failover a former primary may go on to serve some processes for a while, of which nothing stays.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.applied: dict[int, int] = {}  # the highest next offset that there ever was, lost ones included
        self.copies: dict[int, list[Tables]] = {}  # by partition, after each transaction, lost ones included
        self.violations: list[str] = []
        self.read_only = False  # whether it answers, and takes no writes
        self._primary = self._serving = Branch({}, [])
        self._former = Branch({}, [])
        self._served_by_former: set[object] = set()

    @property
    def tables(self) -> dict[int, Tables]:
        """Those of the primary that is serving a statement, which is the real one outside of statements."""
        return self._serving.tables

    def branch_of(self, process: object) -> Branch:
        """Which primary this process is connected to."""
        return self._former if process in self._served_by_former else self._primary

    def served(self, branch: Branch, effect: Callable[[], Any]) -> Any:
        """What a statement gives at this primary; UnavailableError if that is not there any more."""
        if branch.over:
            raise UnavailableError("the server closed the connection")
        self._serving = branch
        try:
            return effect()
        finally:
            self._serving = self._primary

    def split(self, processes: Iterable[object], lost: int) -> int:
        """Fail over, while the former primary goes on to serve these processes until :meth:`join`; how many
        transactions the new one has lost.
        """
        self.join()
        former = Branch(dict(self.tables), list(self._primary.history))
        lost = self.fail_over(lost)
        self._former, self._served_by_former = former, set(processes)
        return lost

    def join(self) -> None:
        """The former primary is gone, and with it what it alone had. Connections are made anew unnoticed."""
        self._former.over = True
        self._served_by_former = set()

    def fail_over(self, lost: int) -> int:
        """Lose the last ``lost`` transactions, and all connections; how many were there to lose."""
        self.server.break_connections()
        history = self._primary.history
        lost = min(lost, len(history))
        for _ in range(lost):
            partition, before = history.pop()
            if before is None:
                del self.tables[partition]
            else:
                self.tables[partition] = before
        return lost

    def put(self, partition: int, tables: Tables) -> None:
        """Commit a transaction that makes these the partition's tables; UnavailableError if nothing can be written."""
        if self.read_only:
            raise UnavailableError("cannot execute this in a read-only transaction")
        self._serving.history.append((partition, self.tables.get(partition)))
        self.tables[partition] = tables
        self.copies.setdefault(partition, []).append(tables)
        self.applied[partition] = max(self.applied.get(partition, 0), tables.next_offset)

    def owned(self, partition: int, epoch: int) -> Tables:
        """The tables, for a statement that only the owner of ``epoch`` may do."""
        tables = self.tables.get(partition)
        if tables is None or tables.epoch != epoch:
            raise FencedError(f"partition {partition} has epoch {tables and tables.epoch}, not {epoch}")
        return tables

    def violated(self, what: str) -> None:
        """Note what the schema would have refused, and refuse it."""
        self.violations.append(what)
        raise AssertionError(what)


def request_skip(database: Database, partition: int, offset: int) -> bool:
    """What sql/request_skip.sql does."""
    tables = database.tables.get(partition)
    if database.read_only or tables is None or tables.next_offset > offset or tables.blocked_offset != offset:
        return False
    tables = tables.copy()
    tables.skip_offset, tables.epoch = offset, tables.epoch + 1
    database.put(partition, tables)
    return True


def _ahead(offset: int | None, tables: Tables) -> int | None:
    return offset if offset is not None and offset >= tables.next_offset else None


class SimulatedStore:
    """One partition in the simulated Postgres, for one process. ``groups`` are shared by the stores of a process."""

    def __init__(self, database: Database, partition: int, groups: Groups | None = None) -> None:
        self._database = database
        self._partition = partition
        self._groups = groups or Groups.of(database)
        self._held: tuple[int, int] | None = None  # epoch and next offset, as the owner left them
        self._producer: Fence | None = None  # the one that is recorded, as the owner found or left it

    async def acquire(self, partitions: int) -> AcquiredState:
        acquired: AcquiredState
        acquisition = Statement(
            f"p{self._partition} acquire",
            partial(self._acquire, partitions),
            check=partial(self._check_count, partitions),
        )
        acquired, self._producer = await self._groups.acquisitions.run(acquisition)
        self._held = (acquired.epoch, acquired.next_offset)
        return acquired

    def _check_count(self, partitions: int) -> None:
        for known in self._database.tables.values():
            if known.partitions != partitions:
                raise RefusedError(
                    f"the command topic has {partitions} partitions, the database was created for {known.partitions}"
                )

    def _acquire(self, partitions: int) -> tuple[AcquiredState, Fence | None]:
        before = self._database.tables.get(self._partition)
        tables = Tables(partitions) if before is None else before.copy()
        tables.epoch += 1
        self._database.put(self._partition, tables)
        acquired = AcquiredState(
            epoch=tables.epoch,
            next_offset=tables.next_offset,
            anchor=tables.anchor,
            emitted=tables.emitted,
            results_offset=tables.results_offset,
            partitions=tables.partitions,
            producer_id=None if tables.producer is None else tables.producer.producer_id,
            default_policy=tables.default_policy,
            default_commands=list(tables.default_commands),
            authority=tables.authority,
            skip_offset=_ahead(tables.skip_offset, tables),
            outbox=[tables.outbox[first] for first in sorted(tables.outbox)],
            rejected_window=tables.rejected_window,
            foreign_results=tables.foreign_results,
            owners=tables.owners,
        )
        return acquired, tables.producer

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        what = f"p{self._partition} record {fence} for epoch {epoch}"
        await self._groups.claims.run(
            Statement(what, partial(self._record_claim, self._producer, epoch, fence))
        )
        self._producer = fence

    def _record_claim(self, found: Fence | None, epoch: int, fence: Fence) -> None:
        tables = self._owned(epoch, found).copy()
        former = tables.former_producer_ids
        if found is None:
            former = None
        elif found.producer_id != fence.producer_id and former is not None:
            former = (*former, found.producer_id)
        tables.producer, tables.former_producer_ids = fence, former
        self._database.put(self._partition, tables)

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        what = f"p{self._partition} save position ({emitted}, {results_offset}) under epoch {epoch}"
        effect = partial(self._save_position, self._held, self._producer, epoch, emitted, results_offset)
        await self._groups.positions.run(Statement(what, effect))

    def _save_position(
        self,
        held: tuple[int, int] | None,
        producer: Fence | None,
        epoch: int,
        emitted: int,
        results_offset: int,
    ) -> None:
        self._owned(epoch, producer)
        tables = self._tables(held).copy()
        if results_offset != tables.results_offset:
            tables.former_producer_ids = ()
        tables.emitted, tables.results_offset = emitted, results_offset
        _drop_confirmed(tables)
        self._database.put(self._partition, tables)

    async def note_blocked(self, offset: int) -> None:
        await self._call(f"note that {offset} blocks", partial(self._note_blocked, offset))

    def _note_blocked(self, offset: int) -> None:
        tables = self._database.tables.get(self._partition)
        if tables is not None and tables.next_offset <= offset:
            tables = tables.copy()
            tables.blocked_offset = offset
            self._database.put(self._partition, tables)

    async def is_skip_requested(self) -> bool:
        found: bool = await self._call("is a skip requested", self._is_skip_requested)
        return found

    def _is_skip_requested(self) -> bool:
        tables = self._database.tables.get(self._partition)
        return tables is not None and _ahead(tables.skip_offset, tables) is not None

    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = await self._call(
            f"sizes of {list(session_ids)}", partial(self._sizes, self._held, session_ids)
        )
        return found

    def _sizes(self, held: tuple[int, int] | None, session_ids: Sequence[str]) -> dict[str, int]:
        rows = self._tables(held).sessions
        return {name: rows[name].checkpoints for name in session_ids if name in rows}

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        found: dict[str, Session] = await self._call(
            f"load {list(session_ids)}", partial(self._load, self._held, session_ids)
        )
        return found

    def _load(self, held: tuple[int, int] | None, session_ids: Sequence[str]) -> dict[str, Session]:
        tables = self._tables(held)
        entries: dict[str, list[Entry]] = {session_id: [] for session_id in session_ids}
        for (session_id, _), (entry, _, _) in tables.checkpoints.items():
            if session_id in entries:
                entries[session_id].append(replace(entry))
        found = {}
        for session_id in session_ids:
            row = tables.sessions.get(session_id)
            if row is not None:
                recent = list(row.recent.values())
                found[session_id] = Session.restore(
                    session_id,
                    row.counter,
                    row.policy,
                    entries[session_id],
                    recent,
                    row.last_recorded_at,
                    row.erased_at,
                )
        return found

    async def contents(self, keys: Iterable[Key]) -> dict[Key, tuple[bytes, bytes]]:
        listed = list(keys)
        found: dict[Key, tuple[bytes, bytes]] = await self._call(
            f"contents of {listed}", partial(self._contents, self._held, listed)
        )
        return found

    def _contents(self, held: tuple[int, int] | None, keys: list[Key]) -> dict[Key, tuple[bytes, bytes]]:
        found = self._tables(held).checkpoints
        return {key: found[key][1:] for key in keys if key in found}

    async def commit(self, commit: Commit) -> None:
        span = f"{commit.expected_offset} to {commit.next_offset}"
        what = f"p{self._partition} commit {span} under epoch {commit.epoch}"
        effect = partial(self._commit, self._producer, commit, _frozen(commit))
        await self._groups.commits.run(Statement(what, effect))
        self._held = (commit.epoch, commit.next_offset)

    def _commit(
        self, producer: Fence | None, commit: Commit, write: Callable[["Database", Tables], None]
    ) -> None:
        tables = self._owned(commit.epoch, producer)
        if tables.next_offset != commit.expected_offset:
            raise FencedError(f"next offset is {tables.next_offset}, not {commit.expected_offset}")
        tables = tables.copy()
        tables.next_offset, tables.anchor = commit.next_offset, commit.anchor
        tables.emitted, tables.results_offset = commit.emitted, commit.results_offset
        if not commit.by_owner:
            tables.former_producer_ids = None
        _drop_confirmed(tables)
        if commit.outbox.first_offset in tables.outbox:
            self._database.violated(f"outbox entry {commit.outbox.first_offset} twice")
        tables.outbox[commit.outbox.first_offset] = commit.outbox
        write(self._database, tables)
        self._database.put(self._partition, tables)

    def _owned(self, epoch: int, producer: Fence | None) -> Tables:
        """The tables, for a statement of the owner of ``epoch`` that found or recorded this producer."""
        tables = self._database.owned(self._partition, epoch)
        if tables.producer != producer:
            raise FencedError(f"the partition's producer is {tables.producer}, not {producer}")
        return tables

    def _tables(self, held: tuple[int, int] | None) -> Tables:
        tables = self._database.tables.get(self._partition) or Tables(0)
        if held is not None and (tables.epoch, tables.next_offset) != held:
            raise FencedError(f"the partition is at {(tables.epoch, tables.next_offset)}, not at {held}")
        return tables

    async def _call(self, what: str, effect: Callable[[], Any]) -> Any:
        database = self._database
        branch = database.branch_of(current_process())
        return await database.server.call(
            f"p{self._partition} {what}", lambda: database.served(branch, effect)
        )


def _drop_confirmed(tables: Tables) -> None:
    for first in [first for first, entry in tables.outbox.items() if entry.last_offset <= tables.emitted]:
        del tables.outbox[first]


def _frozen(commit: Commit) -> Callable[[Database, Tables], None]:
    """The changes as they are now: what is sent does not change while it is under way."""
    changes = commit.changes
    puts = {key: (replace(row.entry), row.data, row.metadata) for key, row in changes.puts.items()}
    sessions = {
        session_id: (
            *(session.counter, session.policy, len(session), changes.begun.get(session_id, at)),
            *(at, session.erased_at),
        )
        for session_id, (session, at) in changes.sessions.items()
    }
    pins, drops = dict(changes.pins), list(changes.drops)
    forgotten = dict(changes.forgotten)
    # Positions don't tell what is forgotten: a checkpoint that is dropped later brings an older id back.
    recent = {session_id: set(changes.sessions[session_id][0].recent) for session_id in forgotten}
    remembered = [
        (session_id, one)
        for session_id, one in changes.remembered
        if session_id not in recent or one in recent[session_id]
    ]
    default_policy, authority = changes.default_policy, changes.authority
    commands = None if changes.partition_commands is None else list(changes.partition_commands)
    kept_from, window = changes.rejected_below, changes.rejected_window
    erased = dict(changes.erased)
    rejected = changes.kept_rejections()

    def write(database: Database, tables: Tables) -> None:
        for key in drops:
            tables.checkpoints.pop(key, None)
        for key, row in puts.items():
            if key in tables.checkpoints:
                database.violated(f"checkpoint {key} twice")
            tables.checkpoints[key] = row
        for key, pinned in pins.items():
            if key in tables.checkpoints:
                entry, data, metadata = tables.checkpoints[key]
                tables.checkpoints[key] = (replace(entry, pinned=pinned), data, metadata)
        for session_id, (counter, policy, checkpoints, begun, at, erased_at) in sessions.items():
            before = tables.sessions.get(session_id)
            first = begun if before is None else before.first_recorded_at
            recent = {} if before is None else dict(before.recent)
            row_now = SessionRow(counter, policy, checkpoints, first, at, erased_at, recent)
            tables.sessions[session_id] = row_now
        for session_id, below in forgotten.items():
            recent = tables.sessions[session_id].recent
            for position in [position for position in recent if position < below]:
                del recent[position]
        for session_id, one in remembered:
            recent = tables.sessions[session_id].recent
            if one.position in recent:
                database.violated(f"remembered command {session_id} {one.position} twice")
            recent[one.position] = one
        for offset in [offset for offset in tables.rejected if offset < kept_from]:
            del tables.rejected[offset]
        for offset, former in list(tables.rejected.items()):
            if former.session_id is not None and offset < erased.get(former.session_id, offset):
                del tables.rejected[offset]
        tables.rejected_window = window or tables.rejected_window
        for rejection in rejected:
            if rejection.offset in tables.rejected:
                database.violated(f"rejected command {rejection.offset} twice")
            tables.rejected[rejection.offset] = rejection
        if default_policy is not None:
            tables.default_policy = default_policy
        if commands is not None:
            tables.default_commands = commands
        if authority is not None:
            tables.authority = authority

    return write
