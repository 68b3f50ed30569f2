"""Pending results of a partition: each answer that is not emitted yet must be in the outbox, as the log gives it, or in
the topic by now.
"""

from collections.abc import Sequence

import orjson

from waypost.wire.envelope import KafkaRecord
from waypost.wire.event_types import EventType
from waypost_worker.partition import outbox
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import ResultsLog, StoredOutbox
from waypost_worker.partition.tail import command_offset, essence
from waypost_worker.recovery.log_scan import is_fence
from waypost_worker.recovery.memory_fold import MemoryFold
from waypost_worker.recovery.verify.comparator import Difference, Tally
from waypost_worker.recovery.verify.rows import StoredPartition

_ROLLED_BACK = ("ce_type", EventType.ROLLED_BACK.wire)


class ExpectedOutbox:
    """The answers that one pass of a verification gives. Only the ``first`` looks at what belongs to no session."""

    def __init__(self, partition: int, encoder: ResultEncoder, *, first: bool) -> None:
        self._partition = partition
        self._encoder = encoder
        self._first = first
        self._items: dict[int, outbox.Item] = {}
        self._elsewhere: set[int] = set()  # reported by another pass
        self._begin = 0

    def begin(self, entries: Sequence[StoredOutbox], begin: int, emitted: int) -> None:
        """Return the pending results of a snapshot that ends before ``begin``, if Postgres knows ``emitted`` to be
        emitted.
        """
        self._begin = begin
        for entry in entries if self._first else ():
            for item in outbox.unpack(entry.payload):
                if item[0] > emitted:
                    self._items[item[0]] = item

    def take(self, fold: MemoryFold, records: Sequence[KafkaRecord]) -> None:
        """Fold records whose answers are not known to be emitted."""
        wanted, finish = fold.take_with_items(records, self._encoder)
        self._elsewhere.update(record.offset for record in records)
        keyless = {record.offset for record in records if record.key is None}
        # A rollback returns data, which is compared where it is stored.
        for item in finish(dict.fromkeys(wanted, (b"{}", b"{}"))):
            if self._first or item[0] not in keyless:
                self._items[item[0]] = orjson.loads(orjson.dumps(item))
                self._elsewhere.discard(item[0])

    async def compare(
        self, entries: Sequence[StoredOutbox], row: StoredPartition, results: ResultsLog, tally: Tally
    ) -> None:
        """Hold the outbox against them."""
        missing = dict(self._items)
        for entry in entries:
            if self._first:
                tally.rows["outbox"] = tally.rows.get("outbox", 0) + 1
            for item in outbox.unpack(entry.payload):
                if item[0] <= row.emitted or self._is_told_elsewhere(item[0]):
                    continue
                expected = missing.pop(item[0], None)
                if expected is None or not _same_item(item, expected):
                    key = f"{self._partition}/{item[0]}"
                    text = "what is kept of its result is not what the log gives"
                    tally.differs(Difference("outbox", key, text))
        if not missing:
            return
        start, end = await results.bounds()
        async for piece in results.read(max(start, min(row.results_offset, end)), end):
            for record in piece:
                if not is_fence(record):
                    missing.pop(command_offset(record), None)
        for offset in sorted(missing):
            text = "the row is missing in Postgres: the result is neither in the topic nor in the outbox"
            tally.differs(Difference("outbox", f"{self._partition}/{offset}", text))

    def _is_told_elsewhere(self, offset: int) -> bool:
        if offset in self._items:
            return False
        # Unknown results before the beginning are not reported; the first pass reports those of no record at all.
        return offset < self._begin or offset in self._elsewhere or not self._first


def _same_item(stored: outbox.Item, expected: outbox.Item) -> bool:
    if stored == expected:
        return True
    if not len(stored) == len(expected) == 4:
        return False
    try:
        was, now = outbox.whole_result(stored), outbox.whole_result(expected)
        if (was.key, was.headers) != (now.key, now.headers):
            return False
        return _ROLLED_BACK in now.headers or essence(was) == essence(now)
    except (AttributeError, TypeError, ValueError):
        return False  # the stored data is not a result
