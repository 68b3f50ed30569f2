"""``python -m tests.tools.bench.cost``: what a command costs the worker in bytecode instructions and allocations.

Counts, not times: they are the same on a busy machine, so a commit that makes commands more expensive is visible. Only
Python's own instructions count, in the worker's and the model's code; the work of C libraries within a call does not.
The counts of the last record are in ``cost.json`` by Python version; ``--record`` replaces them, to be committed with
the change that explains them. CI reports the difference and never fails for it.
"""

import json
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from tests.support.commands import create_body
from tests.tools.bench.states import states

from waypost.model.index import Session
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.partition import outbox
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import Commit, StoredOutbox
from waypost_worker.postgres.rows import commit_parameters

RECORD: Final = Path(__file__).with_name("cost.json")
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_MOMENT: Final = 1_764_000_000_000
_SESSIONS: Final = 20
_COMMANDS: Final = 200


class Record(NamedTuple):
    """A record of the command topic, as the worker gets it."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Partition:
    """One partition's state, and batches to fold over it."""

    def __init__(self, policy: RetentionPolicy) -> None:
        names = (f"session-{number}" for number in range(10_000))
        self._names = [name for name in names if partition_of(name, 3) == 0][:_SESSIONS]
        self._bodies = [create_body("step", state) for state in states(1_024)]
        self._encoder = ResultEncoder("waypost.results", 0)
        self._sessions = {name: Session(name) for name in self._names}
        self._state = PartitionState(policy, [])
        self._offset = 0

    def creates(self, count: int) -> list[Record]:
        """The next commands, over all sessions in turn."""
        made = []
        for offset in range(self._offset, self._offset + count):
            at = format_micros(_MOMENT * 1000 + offset).encode()
            headers = command_headers(f"command-{offset:012d}", b"/cost", EventType.CREATE.wire, at)
            key = self._names[offset % _SESSIONS].encode()
            body = self._bodies[offset % len(self._bodies)]
            made.append(Record(offset, _MOMENT, key, body, tuple(headers)))
        self._offset += count
        return made

    def fold(self, records: list[Record]) -> list[Any]:
        """Do what an owner does with a batch between Kafka and Postgres."""
        batch = Batch(self._encoder, self._sessions, self._state)
        for record in records:
            batch.add(decode(record, 0, 3))
        _, items = batch.finish({})
        first, last = records[0].offset, records[-1].offset
        owed = StoredOutbox(first, last, outbox.pack(items))
        anchor = anchor_of(records[-1])
        return commit_parameters(Commit(1, first, last + 1, anchor, first - 1, 0, owed, batch.changes))


def instructions(work: Callable[[], Any]) -> int:
    """Return how many bytecode instructions ``work`` executes."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def allocated(work: Callable[[], Any]) -> int:
    """Bytes that are in use at the peak of ``work`` and were not before."""
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not running:
            tracemalloc.stop()


def measure() -> dict[str, int]:
    """Counts for each command, by what it is. The first batches fill caches and sessions and are not counted."""
    counts = {}
    full = RetentionPolicy(max_checkpoints=100, compress_after=10_000)
    for name, policy, before in (
        ("create", RetentionPolicy(10_000, 10_000), 5),
        ("create at the cap", full, 110),
    ):
        partition = Partition(policy)
        for _ in range(before):
            partition.fold(partition.creates(_SESSIONS))
        for unit, count in (("instructions", instructions), ("bytes", allocated)):
            batch = partial(partition.fold, partition.creates(_COMMANDS))
            counts[f"{name}, {unit}"] = round(count(batch) / _COMMANDS)
    return counts


def lines(counts: dict[str, int]) -> list[str]:
    """Return the counts next to those of the last record."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8")).get(PYTHON, {})
    told = []
    for name, count in counts.items():
        before = recorded.get(name)
        change = f"{before:,} recorded, {100 * (count - before) / before:+.1f} %" if before else "no record"
        told.append(f"{name:<34}{count:>8,}  ({change})")
    return told


def main(arguments: list[str]) -> int:
    """Print the counts; ``--record`` keeps them."""
    counts = measure()
    print("\n".join(lines(counts)) if RECORD.exists() else counts)
    if arguments == ["--record"]:
        known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        known[PYTHON] = counts
        RECORD.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
