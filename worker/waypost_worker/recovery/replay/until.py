"""Time travel: the end of each partition's replay, and a log that ends there."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from typing_extensions import override

from waypost.model.checkpoint import own_number
from waypost.wire.envelope import KafkaRecord
from waypost.wire.topics import partition_of
from waypost_worker.partition.ports import CommandLog, ReadProgress, RefusedError
from waypost_worker.partition.skips import OrderScan, check_unmet
from waypost_worker.partition.stretches import passed_over, stretches
from waypost_worker.recovery.memory_fold import MemoryFold


class DatedLog(CommandLog, Protocol):
    """A command log that can be asked for a time."""

    async def offset_at(self, milliseconds: int) -> int | None:
        """The offset of the first record with this timestamp (ms since 1970) or a later one; None if none has."""
        ...


class LogPosition(NamedTuple):
    """A record of the command topic."""

    partition: int
    offset: int


async def until_end(logs: Mapping[int, DatedLog]) -> dict[int, int]:
    """Each log's end as it is now."""
    return {partition: (await log.bounds())[1] for partition, log in logs.items()}


async def until_time(logs: Mapping[int, DatedLog], micros: int) -> dict[int, int]:
    """For each partition the offset behind the last record that came before this time."""
    ends = await until_end(logs)
    for partition, log in logs.items():
        found = await log.offset_at(max(0, math.ceil(micros / 1000)))
        if found is not None:
            ends[partition] = found
    return ends


async def until_places(logs: Mapping[int, DatedLog], places: Sequence[LogPosition]) -> dict[int, int]:
    """Up to these records and with them; other partitions up to the latest time among theirs.

    RefusedError if a log does not hold one of them.
    """
    latest = 0
    ends = {}
    for place in places:
        log = logs.get(place.partition)
        if log is None:
            raise RefusedError(
                f"there is no partition {place.partition}: the topic has {len(logs)}. Nothing was changed"
            )
        start, end = await log.bounds()
        held = start <= place.offset < end
        records = await log.read(place.offset, place.offset + 1) if held else ()
        if not records:
            raise RefusedError(
                f"no command is at offset {place.offset} of partition {place.partition}, which holds {start} to "
                f"{end - 1}. Nothing was changed"
            )
        latest = max(latest, records[0].timestamp)
        ends[place.partition] = place.offset + 1
    rest = {partition: log for partition, log in logs.items() if partition not in ends}
    return {**await until_time(rest, (latest + 1) * 1000), **ends}


async def find_checkpoint(logs: Mapping[int, DatedLog], checkpoint_id: str) -> LogPosition:
    """Return where the checkpoint was created. Raise RefusedError if the log creates no such one."""
    session_id, _, _ = checkpoint_id.rpartition(":")
    number = own_number(session_id, checkpoint_id) if session_id else None
    if number is None:
        raise RefusedError(f"{checkpoint_id!r} is not a checkpoint id, which looks like session:number")
    partition = partition_of(session_id, len(logs))
    log = logs[partition]
    start, end = await log.bounds()
    if start > 0:
        raise RefusedError(
            f"retention removed the first {start} offsets of partition {partition}, so the log no longer "
            f"shows where {checkpoint_id!r} was created. Nothing was changed; use --until-offset or "
            "--until-time"
        )
    key = session_id.encode()
    fold = MemoryFold(partition, len(logs))
    fold.orders = await OrderScan(fold.state, partition, len(logs), 0).advance(log)
    async for records in stretches(log, 0, end):
        for record in records:
            if record.key is not None and record.key != key and fold.orders.of(record) is None:
                continue
            fold.take([record])
            session = fold.sessions.get(session_id)
            if session is not None and number in session.entries:
                return LogPosition(partition, record.offset)
        await check_unmet(log, fold.take_unmet())
    raise RefusedError(f"the log never created a checkpoint {checkpoint_id!r}. Nothing was changed")


class BoundedLog(CommandLog):
    """A command log up to ``end``; ``drained`` is called when an owner asks for more."""

    def __init__(self, log: CommandLog, end: int, drained: Callable[[], None]) -> None:
        self._log = log
        self._end = end
        self._drained = drained
        self._position = 0

    @property
    @override
    def disturbances(self) -> int:
        return self._log.disturbances

    @override
    async def partitions(self) -> int:
        return await self._log.partitions()

    @override
    async def bounds(self) -> tuple[int, int]:
        start, end = await self._log.bounds()
        return start, min(end, self._end)

    @override
    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        return await self._log.read(first, min(end, self._end))

    @property
    @override
    def progress(self) -> ReadProgress:
        return self._log.progress

    @override
    async def seek(self, offset: int) -> None:
        self._position = offset
        await self._log.seek(offset)

    @override
    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        if self._position >= self._end:
            self._drained()
            return ()
        records = await self._log.fetch(most)
        if not records and await passed_over(self._log, self._position, self._end) == self._end:
            self._position = self._end
            return ()
        kept = [record for record in records if record.offset < self._end]
        if records:
            self._position = records[-1].offset + 1
        return kept

    @override
    async def close(self) -> None:
        await self._log.close()
