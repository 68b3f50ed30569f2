"""Orders of a partition's authority to skip a command, found by looking ahead in the log.

An order is a command further down than the one that it names. Whether it is valid depends on nothing but the commands
about the partition before it, none of which can be skipped. So the orders in a log are known without applying any other
command: owner, replay and verify find the same ones, whatever they did with the commands in between.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from waypost.model.commands import Command, PartitionAction
from waypost.model.decisions import NotSkipped, Rejected
from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import KafkaRecord, is_structured
from waypost.wire.event_types import PARTITION_TYPES
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.batch import SKIPPED, Decoded, decode
from waypost_worker.partition.ports import CommandLog, RefusedError
from waypost_worker.partition.signatures import is_signed
from waypost_worker.partition.stretches import stretches

_TYPES: Final = frozenset(kind.wire for kind in PARTITION_TYPES)
_TURN: Final = 200  # signatures, at 0.1 ms each, before the event loop gets a turn


def concerns_partition(record: KafkaRecord) -> bool:
    """Return whether this may be a command about the whole partition. All others can be skipped."""
    if record.key is not None:
        return False
    types = [value for name, value in record.headers if name == "ce_type" and value is not None]
    return not _TYPES.isdisjoint(types) or is_structured(record)


class SkipOrder(NamedTuple):
    """A valid order: at ``position``, to skip the command at ``offset`` whose record has this hash."""

    offset: int
    record: bytes
    reason: str
    position: int

    def names(self, record: KafkaRecord) -> bool:
        """Return whether this is the record to skip."""
        return (
            record.offset == self.offset
            and not concerns_partition(record)
            and anchor_of(record) == self.record
        )


class SkipOrders:
    """The valid orders of a stretch of the log."""

    def __init__(self, orders: Iterable[SkipOrder] = ()) -> None:
        self._orders: dict[int, list[SkipOrder]] = {}
        for order in orders:
            self._orders.setdefault(order.offset, []).append(order)

    def of(self, record: KafkaRecord) -> SkipOrder | None:
        """Return the first order to skip this record."""
        return next((one for one in self._orders.get(record.offset, ()) if one.names(record)), None)

    def decode(self, record: KafkaRecord, partition: int, partitions: int) -> Decoded:
        """Understand a record, unless it must be skipped, in which case it is not read."""
        order = self.of(record) if self._orders else None
        if order is None:
            return decode(record, partition, partitions)
        rejection = Rejected(SKIPPED, f"an operator had this command skipped: {order.reason}")
        return Decoded(record, None, None, rejection, None)


NO_ORDERS: Final = SkipOrders()


class OrderScan:
    """Follows the outcomes of commands about a partition, and notes orders to skip.

    It begins at offset ``position``, where the partition is in ``state``.
    """

    def __init__(self, state: PartitionState, partition: int, partitions: int, position: int) -> None:
        self.state = PartitionState(state.policy, list(state.recent), state.authority)
        self.found: list[SkipOrder] = []
        self._partition = partition
        self._partitions = partitions
        self._position = position

    @property
    def orders(self) -> SkipOrders:
        """The valid orders so far."""
        return SkipOrders(self.found)

    async def advance(self, log: CommandLog) -> SkipOrders:
        """Continue to the current end of the log. Return the orders up to there. Moves the log's position."""
        end, taken = (await log.bounds())[1], 0
        async for records in stretches(log, self._position, end):
            for record in records:
                if not concerns_partition(record):
                    continue
                try:
                    self._take(record)
                except Exception:
                    # A bug. It must not stop the commands before this one; the process that applies this one will
                    # report it.
                    self._position = record.offset
                    return self.orders
                taken += 1
                if taken % _TURN == 0:
                    await asyncio.sleep(0)
        self._position = max(self._position, end)
        return self.orders

    def _take(self, record: KafkaRecord) -> None:
        _, envelope, action, _, _ = decode(record, self._partition, self._partitions)
        if envelope is None or not isinstance(action, PartitionAction):
            return
        command = Command(envelope.id, record.offset, envelope.taken_at, envelope.recorded_at, action)
        decision = self.state.take(command, action, partial(is_signed, envelope, self._partition))
        if isinstance(decision, NotSkipped):
            self.found.append(SkipOrder(*decision, record.offset))


async def find_orders(
    make_log: Callable[[], CommandLog], state: PartitionState, partition: int, position: int
) -> SkipOrders:
    """Return the valid orders of the log from ``position`` on, where the partition is in this state."""
    log = make_log()
    try:
        return await OrderScan(state, partition, await log.partitions(), position).advance(log)
    finally:
        await log.close()


class UnskippedError(RefusedError):
    """The log orders to skip a command that was applied."""


async def check_unmet(log: CommandLog, unmet: Sequence[tuple[NotSkipped, int]]) -> None:
    """Raise UnskippedError if one of these valid orders, whose commands were not skipped, names a record of the log."""
    for named, position in unmet:
        order = SkipOrder(*named, position)
        start, _ = await log.bounds()
        if order.offset < start:
            continue  # nobody can tell, or apply it again
        records = await log.read(order.offset, order.offset + 1)
        if records and order.names(records[0]):
            raise UnskippedError(
                f"the command at offset {order.offset} was applied, and the authority's order at offset "
                f"{order.position} says that it is skipped. Nothing was changed. Run this again if the "
                "order has just arrived; otherwise Postgres and the log disagree, and 'waypost replay' into "
                "an empty database "
                "follows the log"
            )
