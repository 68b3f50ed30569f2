"""Proving that Postgres is the fold of the log, partition by partition, while workers go on.

Most of the log is folded before anything is read. Then a snapshot of Postgres says at which offset it stands; the
little that is between is folded, and every row of the snapshot is held against the fold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from waypost.commands import Create
from waypost.envelope import KafkaRecord
from waypost_worker.partition import outbox
from waypost_worker.partition.apply import decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import CommandLog, RefusedError, ResultsLog, StoredOutbox
from waypost_worker.partition.tail import command_offset
from waypost_worker.recovery.comparator import Comparator, Difference, Tally
from waypost_worker.recovery.finding import is_fence
from waypost_worker.recovery.memory import MemoryFold
from waypost_worker.recovery.readable import first_difference
from waypost_worker.recovery.replay import Progress
from waypost_worker.recovery.sampling import sampled
from waypost_worker.recovery.stored import OpenSnapshot, Snapshot, StoredCheckpoint, StoredPartition
from waypost_worker.recovery.stretches import stretches

_ROLLED_BACK = b"waypost.session.rolled_back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in one partition, at ``next_offset``. ``purged`` refused commands are in the log and are no
    longer kept. ``fingerprint`` is a hash over all rows: two databases of one log at one offset share it.
    """

    partition: int
    next_offset: int
    rows: dict[str, int]
    differences: int
    first: Sequence[Difference]
    purged: int
    fingerprint: str


class Verification:
    """Verifies one partition. Holds all its sessions in memory, without their data."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        results_topic: str,
        log: CommandLog,
        results: ResultsLog,
        open_snapshot: OpenSnapshot,
        progress: Progress,
        *,
        below: int | None = None,
        strict: bool = False,
        limit: int = 10,
    ) -> None:
        self._partition = partition
        self._partitions = partitions
        self._encoder = ResultEncoder(results_topic, partition)
        self._log = log
        self._results = results
        self._open_snapshot = open_snapshot
        self._progress = progress
        self._below = below
        self._strict = strict
        self._tally = Tally(limit)
        self._owed: dict[int, outbox.Item] = {}

    async def run(self) -> Verdict:
        """Fold, read, compare. RefusedError if log and database can't be compared at all."""
        start, end = await self._log.bounds()
        if start > 0:
            raise RefusedError(
                f"retention removed the first {start} offsets of partition {self._partition} of the command "
                "topic, so what Postgres must hold can't be told from the log alone. Nothing was compared"
            )
        fold = MemoryFold(self._partition, self._partitions, self._wanted())
        async with self._open_snapshot(self._partition) as snapshot:
            settled = _settled(await snapshot.partition())
        await self._fold(fold, min(settled, end), fold.take)
        async with self._open_snapshot(self._partition) as snapshot:
            row = await snapshot.partition()
            await self._catch_up(fold, row)
            comparator = Comparator(fold, self._tally, self._strict)
            if row is not None:
                comparator.partition(row)
            async for session in snapshot.sessions(self._below):
                comparator.session(session)
            async for checkpoint in snapshot.checkpoints(self._below):
                comparator.checkpoint(checkpoint)
            async for command in snapshot.commands(self._below):
                comparator.command(command)
            async for rejected in snapshot.rejected(self._below):
                comparator.rejected(rejected)
            comparator.finish()
            if self._below is None:
                await self._whole(snapshot, row)
        return Verdict(
            self._partition,
            fold.next_offset,
            self._tally.rows,
            self._tally.count,
            [await self._explained(one) for one in self._tally.found],
            self._tally.purged,
            self._tally.fingerprint,
        )

    def _wanted(self) -> Callable[[bytes | None], bool] | None:
        below = self._below
        return None if below is None else lambda key: sampled(key, below)

    async def _fold(self, fold: MemoryFold, end: int, take: Callable[[Sequence[KafkaRecord]], None]) -> None:
        async for records in stretches(self._log, fold.next_offset, end):
            take(records)
            self._progress.advanced(self._partition, len(records), fold.next_offset)

    async def _catch_up(self, fold: MemoryFold, row: StoredPartition | None) -> None:
        """Fold on to where the snapshot stands; what is not emitted by then is noted as owed."""
        if row is None:
            return
        if row.next_offset < fold.next_offset:
            raise RefusedError(
                f"partition {self._partition} of Postgres went back from offset {fold.next_offset} to "
                f"{row.next_offset} meanwhile: was it restored? Nothing was compared; verify again"
            )
        end = (await self._log.bounds())[1]
        if row.next_offset > end:
            raise RefusedError(
                f"Postgres has applied partition {self._partition} up to offset {row.next_offset - 1}, the topic "
                f"ends at {end}: it was recreated or cut, or this is another cluster. Nothing was compared"
            )
        await self._fold(fold, _settled(row), fold.take)

        def take_owed(records: Sequence[KafkaRecord]) -> None:
            wanted, finish = fold.take_with_items(records, self._encoder)
            # What a rollback shows is data, which is compared where it is stored.
            for item in finish(dict.fromkeys(wanted, (b"{}", b"{}"))):
                self._owed[item[0]] = orjson.loads(orjson.dumps(item))

        await self._fold(fold, row.next_offset, take_owed)

    async def _whole(self, snapshot: Snapshot, row: StoredPartition | None) -> None:
        """What can be told only where all rows are looked at."""
        if self._partition == 0:
            for stray in await snapshot.strays(self._partitions):
                text = "the row is in Postgres and should not be: it belongs to no session or partition"
                self._tally.differs(Difference(stray.table, stray.key, text))
        if row is not None:
            await self._check_outbox(await snapshot.outbox(), row)

    async def _check_outbox(self, entries: Sequence[StoredOutbox], row: StoredPartition) -> None:
        missing = dict(self._owed)
        for entry in entries:
            self._tally.rows["outbox"] = self._tally.rows.get("outbox", 0) + 1
            for item in outbox.unpack(entry.payload):
                if item[0] <= row.emitted:
                    continue
                expected = missing.pop(item[0], None)
                if expected is None or not _same_item(item, expected):
                    key = f"{self._partition}/{item[0]}"
                    text = "what is kept of its result is not what the log gives"
                    self._tally.differs(Difference("outbox", key, text))
        if not missing:
            return
        start, end = await self._results.bounds()
        async for piece in self._results.read(max(start, min(row.results_offset, end)), end):
            for record in piece:
                if not is_fence(record):
                    missing.pop(command_offset(record), None)
        for offset in sorted(missing):
            text = "the row is missing in Postgres: the result is neither in the topic nor owed"
            self._tally.differs(Difference("outbox", f"{self._partition}/{offset}", text))

    async def _explained(self, difference: Difference) -> Difference:
        """With the place in the data at which it differs, where the log still tells."""
        stored, position = difference.stored, difference.position
        if stored is None or position is None:
            return difference
        records = await self._log.read(position, position + 1)
        action = decode(records[0], self._partition, self._partitions).action if records else None
        if not isinstance(action, Create):
            return difference._replace(text=f"{difference.text}; it was imported by command {position}")
        return difference._replace(text=_content_text(stored, action, position))


def _settled(row: StoredPartition | None) -> int:
    return 0 if row is None else min(row.emitted + 1, row.next_offset)


def _same_item(stored: outbox.Item, expected: outbox.Item) -> bool:
    if len(stored) == len(expected) == 4 and ["ce_type", _ROLLED_BACK.decode()] in expected[2]:
        return bool(stored[:3] == expected[:3])
    return bool(stored == expected)


def _content_text(stored: StoredCheckpoint, action: Create, position: int) -> str:
    for name, kept, given in (
        ("data", stored.data, action.data),
        ("metadata", stored.metadata, action.metadata),
    ):
        if kept != given:
            where = first_difference(kept, given, "Postgres", f"command {position}")
            if where == "they are the same":
                where = "only in white space or the spelling of the JSON"
            return f"{name} differs {where}"
    return "data or metadata differs"


def shown(partition: int, difference: Difference) -> dict[str, Any]:
    """A difference for programs."""
    return {
        "partition": partition,
        "table": difference.table,
        "key": difference.key,
        "difference": difference.text,
    }
