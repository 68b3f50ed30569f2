"""Orders to skip commands are found in a log whatever else is in it, and only looked at if anybody still can."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.simulation.broker import CommandRecord
from tests.support.signing import public_key
from tests.unit.test_until_checkpoint import Log

from waypost.model.decisions import NotSkipped
from waypost.model.partition_state import PartitionState
from waypost.wire.encode import authority_body, skip_body
from waypost.wire.event_types import EventType
from waypost_worker.partition import skips
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.skips import OrderScan, UnskippedError, check_unmet
from waypost_worker.partition.stretches import passed_over


def order(log: Log, named: CommandRecord) -> CommandRecord:
    return log.signed(EventType.SKIP, skip_body(named.offset, anchor_of(named), "a bug"))


async def test_a_bug_at_a_command_about_the_partition_hides_no_order_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: Any = Log()
    log.signed(EventType.CONFIGURE_AUTHORITY, authority_body(public_key("one")))
    first, second = log.create("s"), log.create("s")
    order(log, first)
    bad = order(log, second)
    decode = skips.decode

    def failing_decode(record: Any, partition: int, partitions: int) -> Any:
        if record.offset == bad.offset:
            raise ZeroDivisionError
        return decode(record, partition, partitions)

    monkeypatch.setattr(skips, "decode", failing_decode)
    scan = OrderScan(PartitionState(), 0, 1, 0)
    orders = await scan.advance(log)
    assert orders.of(first) is not None
    assert orders.of(second) is None
    monkeypatch.undo()
    assert (await scan.advance(log)).of(second) is not None, "it goes on where the bug was"


class TrimmedLog(Log):
    """Retention removed the first records."""

    start = 0

    async def bounds(self) -> tuple[int, int]:
        return self.start, len(self.records)

    async def read(self, first: int, end: int) -> Sequence[CommandRecord]:
        assert first >= self.start, "a log refuses to read what it no longer holds"
        return await super().read(first, end)


async def test_an_order_for_what_retention_removed_is_in_nobodys_way() -> None:
    log: Any = TrimmedLog()
    named = log.create("s")
    unmet = [(NotSkipped(named.offset, anchor_of(named), "a bug"), 1)]
    with pytest.raises(UnskippedError):
        await check_unmet(log, unmet)
    log.start = 1
    await check_unmet(log, unmet)


async def test_a_long_stretch_without_records_is_looked_at_a_piece_at_a_time() -> None:
    """All of it may not fit into memory, should there be records after all."""
    log: Any = Log()
    assert await passed_over(log, 0, 12_000) == 12_000
    assert log.looks == [(0, 5000), (5000, 10_000), (10_000, 12_000)]
    log.create("s")
    assert await passed_over(log, 0, 12_000) == 0
