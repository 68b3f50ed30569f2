"""An owner's needs from the outside: the command log, the results log, the store, and a clock.

One conformance suite checks these promises for every implementation, including the simulated ones. All offsets are
Kafka offsets; a ``next`` or ``end`` offset is one past the last record.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from waypost.model.authority import Authority
from waypost.model.decisions import Rejected
from waypost.model.index import Entry, SeenCommand, Session
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.wire.envelope import KafkaRecord


class OwnerError(Exception):
    """Base of what stops an owner's present term. Nothing is lost: the next term reads the truth again."""


class FencedError(OwnerError):
    """Another owner took the partition: this one's epoch is no longer the highest."""


class UnavailableError(OwnerError):
    """Kafka or Postgres did not answer, or answered with an error that passes. Whether the call took effect
    is unknown.
    """


class TimedOutError(UnavailableError):
    """The store answers, but could not finish this within a time limit. Whether it took effect is unknown.

    ``setting`` names the limit, for a person to raise.
    """

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class RefusedError(OwnerError):
    """The partition must not be processed until an operator acts: the message says why and what to do."""


class ForeignWriterError(OwnerError):
    """Results were appended at an offset that this owner did not expect: somebody else wrote there."""


class UnreadableRecord(NamedTuple):
    """Stands for an offset of the command topic whose record can't be read, although a broker accepted it.

    It has the attributes of a record. ``value`` holds the bytes of the whole batch for the last offset of that batch,
    and is empty for the others. ``timestamp`` is the largest of the batch, in milliseconds.
    """

    offset: int
    timestamp: int
    value: bytes
    rejection: Rejected
    key: None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class ResultRecord(NamedTuple):
    """A record for the results topic. ``headers`` as Kafka takes them."""

    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]]


class FetchedResult(Protocol):
    """A record read back from the results topic, in whatever form the client has it."""

    @property
    def offset(self) -> int:
        """Position in the partition."""
        ...

    @property
    def key(self) -> bytes | None:
        """The session id, UTF-8; none for what concerns a whole partition."""
        ...

    @property
    def value(self) -> bytes:
        """The body."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and raw values."""
        ...


class Fence(NamedTuple):
    """The producer id and epoch under which this owner appends from now on."""

    producer_id: int
    producer_epoch: int


class ReadProgress(NamedTuple):
    """The progress of a reader of committed records in a partition, according to Kafka's last answer.

    ``position`` is the offset at which the next fetch starts. Everything before it was returned, or is nothing that
    a reader sees: transaction markers and aborted records. ``stable_end`` is where the oldest open transaction
    begins, or else the log's ``end``. Both are None before the first fetch.
    """

    position: int
    stable_end: int | None = None
    end: int | None = None

    @property
    def held_back(self) -> int:
        """Return how many offsets can't be read until a client's open transaction ends, if nothing else is in the
        way.
        """
        if self.stable_end is None or self.end is None or self.position < self.stable_end:
            return 0
        return max(0, self.end - self.stable_end)


class CommandLog(Protocol):
    """One partition of the command topic, for one owner."""

    @property
    def progress(self) -> ReadProgress:
        """Return the position of ``fetch`` since ``seek``."""
        ...

    @property
    def disturbances(self) -> int:
        """Return how often something happened that may mean that the log has a new leader or is a different log.

        A log that can tell that it is another one raises RefusedError by itself. Not all brokers can.
        """
        ...

    async def partitions(self) -> int:
        """Return how many partitions the topic has. From here on, everything that is read comes from the topic as it is
        now.
        """
        ...

    async def bounds(self) -> tuple[int, int]:
        """The log start offset and the end offset (one past the last record that a reader may see)."""
        ...

    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        """All records from ``first`` up to but without ``end``; offsets may have gaps.

        RefusedError if ``first`` lies before the log start or behind its end, or if the topic is another one of the
        same name. Bounded in time.
        """
        ...

    async def seek(self, offset: int) -> None:
        """Make ``fetch`` continue from ``offset``. The next ``fetch`` shows whether the log has it."""
        ...

    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        """The next records, at most ``most``, in order, each exactly once since ``seek``.

        Waits for the first for a bounded time (about a second) and returns nothing if none came. May return
        a few more than ``most``. RefusedError if the log does not hold the next offset, was cut before it, or is that
        of another topic of the same name: never a reset.
        """
        ...

    async def close(self) -> None:
        """Give up connections. Never raises."""
        ...


class ResultsLog(Protocol):
    """One partition of the results topic, for one owner."""

    async def claim(self) -> Fence:
        """Take a producer epoch above all earlier ones of this partition (KIP-98 InitProducerId)."""
        ...

    async def append(self, records: Sequence[ResultRecord]) -> int:
        """Append under the claimed epoch, in order and without gaps; the offset of the first record.

        They become one batch of Kafka's (at most 16 MiB), which is visible as a whole or not at all.

        FencedError if a newer epoch has appended. UnavailableError if the outcome is unknown; then the records may be
        in the log. RefusedError if the topic rejects them. After any of these, and after a canceled call, nothing more
        may be appended under this claim.
        """
        ...

    async def bounds(self) -> tuple[int, int]:
        """The log start offset and the end offset."""
        ...

    def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        """All records from ``first`` up to but without ``end``, in pieces; offsets may have gaps.

        RefusedError if ``first`` lies before the log start or behind its end.
        """
        ...

    def producer_of(self, record: FetchedResult) -> int:
        """The id of the producer that wrote a record of the piece that ``read`` gave last; -1 if it has none."""
        ...

    @property
    def broker_time(self) -> float | None:
        """The broker's clock when it took the last append, in seconds since 1970.

        None before the first append, or if the topic keeps the time that its clients tell.
        """
        ...

    @property
    def unanswered_append_seconds(self) -> float:
        """Return how long an append that a former owner sent may still take effect."""
        ...

    async def close(self) -> None:
        """Give up connections. Never raises."""
        ...


class RejectedWindow(NamedTuple):
    """Which rejected commands of a partition are kept, the newest ones (see ``partition.kept``).

    They are counted from offset ``since`` on, in ``parts``: the first offset and the number of commands of each,
    oldest first. ``newest_bytes`` is the size of the last part.
    """

    since: int = 0
    parts: tuple[tuple[int, int], ...] = ((0, 0),)
    newest_bytes: int = 0

    @property
    def below(self) -> int:
        """Rejected commands of lower offsets were dropped."""
        return self.parts[0][0]


class ForeignRecord(NamedTuple):
    """A record of the results topic that no owner wrote and an operator accepted (see ``partition.foreign``)."""

    offset: int
    digest: bytes


class StoredOutbox(NamedTuple):
    """Results of one committed batch that may not have been emitted. See ``partition.outbox``."""

    first_offset: int
    last_offset: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class AcquiredState:
    """The findings of step 1 of acquiring in Postgres, under the new epoch.

    ``next_offset`` is P. ``emitted`` and ``results_offset`` are the results position (E, F): E is the highest
    command offset among the results below results offset F. ``anchor`` is the hash of command record P - 1,
    None before the first. ``producer_id`` is the last owner's. ``owners`` are the producer ids of all owners that may
    have written results behind F and left no fence record there; None if they are not known. ``outbox`` is in order of
    offsets.
    ``skip_offset`` is a command at or behind P that an operator asked to have skipped: it must not be applied.
    """

    epoch: int
    next_offset: int
    anchor: bytes | None
    emitted: int
    results_offset: int
    partitions: int
    producer_id: int | None
    default_policy: RetentionPolicy
    default_commands: list[str]
    authority: Authority
    skip_offset: int | None
    outbox: Sequence[StoredOutbox]
    rejected_window: RejectedWindow = field(default_factory=RejectedWindow)
    foreign_results: Sequence[ForeignRecord] = ()
    owners: frozenset[int] | None = None

    def state(self) -> PartitionState:
        """Return what commands about the whole partition came to so far."""
        return PartitionState(self.default_policy, list(self.default_commands), self.authority)


class Row(NamedTuple):
    """A checkpoint to be stored."""

    session_id: str
    entry: Entry
    data: bytes
    metadata: bytes


class RejectedRow(NamedTuple):
    """A rejected command as received. ``recorded_at`` in microseconds.

    ``value_bytes`` and ``headers_bytes`` are the sizes of a value and of headers that were cut (see
    ``partition.kept``); None if they are kept whole.
    """

    offset: int
    session_id: str | None
    command_id: str | None
    code: str
    message: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    recorded_at: int
    value_bytes: int | None = None
    headers_bytes: int | None = None


@dataclass(slots=True)
class Changes:
    """All that one batch changes in the store, netted: apply ``drops`` first, then ``puts``, then the rest.

    ``sessions`` maps each touched session to the recorded_at (microseconds) of its last command, ``begun`` to
    that of its first one in the batch. ``rejected_window`` is the new window, None if it stays. Rejected commands
    below ``rejected_below`` make room for newer ones, ``rejected_dropped`` in number: those that are stored are
    deleted, and those of this batch are not stored. The last three are None if they stay as they are.
    ``erased`` maps each session that was erased to the offset of the last erase command: its rejected commands of
    lower offsets are treated alike.
    """

    drops: dict[tuple[str, int], None] = field(default_factory=dict)
    puts: dict[tuple[str, int], Row] = field(default_factory=dict)
    pins: dict[tuple[str, int], bool] = field(default_factory=dict)
    sessions: dict[str, tuple[Session, int]] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    remembered: list[tuple[str, SeenCommand]] = field(default_factory=list)
    forgotten: dict[str, int] = field(default_factory=dict)
    erased: dict[str, int] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    rejected_window: RejectedWindow | None = None
    rejected_below: int = 0
    rejected_dropped: int = 0
    default_policy: RetentionPolicy | None = None
    partition_commands: list[str] | None = None
    authority: Authority | None = None

    def kept_rejections(self) -> list[RejectedRow]:
        """Return the rejected commands that this batch stores."""
        return [
            row
            for row in self.rejected
            if row.offset >= self.rejected_below
            and (row.session_id is None or row.offset > self.erased.get(row.session_id, -1))
        ]


@dataclass(frozen=True, slots=True)
class Commit:
    """One batch's Postgres transaction: from P to ``next_offset``, under ``epoch``.

    ``outbox`` is the batch's own entry; entries that end at or below ``emitted`` are confirmed and dropped. ``anchor``
    is None only if the record before ``next_offset`` no longer exists. Without ``by_owner``, as a replay commits,
    anybody may have written the results after ``results_offset``.
    """

    epoch: int
    expected_offset: int
    next_offset: int
    anchor: bytes | None
    emitted: int
    results_offset: int
    outbox: StoredOutbox
    changes: Changes
    by_owner: bool = True


class Store(Protocol):
    """The database, as one partition's owner sees it."""

    async def acquire(self, partitions: int) -> AcquiredState:
        """Raise the epoch and read everything under it, in one transaction (step 1).

        Makes the partition's row on first sight, with ``partitions`` as the topic's partition count.
        RefusedError if the row of any partition has another count, above all that of an added partition.
        """
        ...

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        """Record the producer id and epoch that belong to ``epoch``.

        Raise FencedError if ``epoch`` is outdated, or if another owner has recorded its producer since this store's
        last acquire: after a restore, two owners may have the same epoch. Called once nobody can append under another
        producer id.
        """
        ...

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        """Save a results position that no batch carries (at release, after finishing the outbox).

        Drops the outbox entries that it confirms. FencedError if ``epoch`` is outdated, or the partition is no longer
        at the offset where this store's last acquire or commit left it, or another producer is recorded.
        """
        ...

    async def note_blocked(self, offset: int) -> None:
        """Note that owners fail at the command at this offset, for the operator who may have it skipped."""
        ...

    async def is_skip_requested(self) -> bool:
        """Return whether an operator asked to have a command at or behind the next offset skipped."""
        ...

    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        """Return how many live checkpoints the stored sessions among these have; unknown ones are absent."""
        ...

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """The stored sessions among these; unknown ones are absent."""
        ...

    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        """Data and canonical metadata of stored checkpoints."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Apply all of a batch or nothing.

        FencedError if the partition is no longer at (``expected_offset``, ``epoch``), or if another producer is
        recorded than the one that this store found or recorded. UnavailableError if the outcome is unknown.
        TimedOutError, here and when reading, if a smaller batch might have been done in time.
        """
        ...


class Clock(Protocol):
    """Time for waiting and for the age of a proof of ownership; never part of what a command means."""

    def boottime(self) -> float:
        """Seconds that also pass while the machine is suspended (CLOCK_BOOTTIME)."""
        ...

    def walltime(self) -> float:
        """Seconds since 1970. Somebody may set it, but it alone catches up after a hypervisor's pause."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class RenewalDueError(OwnerError):
    """The last proof of ownership is too old to act on: acquire again before anything else."""


class StuckError(OwnerError):
    """The consumer returns nothing although the log grows, a known failure of Kafka clients."""


@dataclass(frozen=True, slots=True)
class Ports:
    """An owner's access to the outside. Log and results are created again for each term."""

    make_log: Callable[[], CommandLog]
    make_results: Callable[[], ResultsLog]
    store: Store
    clock: Clock
    # A log that shows what lies ahead where ``make_log`` ends before.
    make_log_ahead: Callable[[], CommandLog] | None = None
