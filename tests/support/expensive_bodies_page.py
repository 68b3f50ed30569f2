"""Measure the most expensive bodies: `python -m tests.support.expensive_bodies_page` writes its page in docs."""

import gc
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import orjson
from tests.support.expensive_bodies import AT_ONCE, WHOLE, ExpensiveBody, expensive_bodies

from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import PARTITION_TYPES
from waypost_worker.partition.batch import Batch, Decoded, decode
from waypost_worker.partition.encode import ResultEncoder

PAGE: Final = Path(__file__).parents[2] / "docs/measured/expensive-bodies.md"
_TURNS: Final = 5
_INTRODUCTION: Final = """\
# The most expensive bodies

The bodies that cost a worker the most for their size. `python -m tests.support.expensive_bodies_page` measures them and
writes this page; `tests/unit/test_expensive_bodies.py` measures them in every test run and checks the limits.

CPU time is in units of a loop of a million additions in the same run, which takes 28 ms on an idle Intel Xeon core at
2.1 GHz with Python 3.11. **Decoding** is from the record to a command or a rejection. **Deciding** includes the result.
**Memory** is Python's peak while decoding, as a multiple of the body; simdjson adds 14 times the body, outside of
Python.

A body above 256 KiB is decoded in a thread, so it blocks the event loop only while Waypost decides on the command.
"""


@dataclass(frozen=True)
class Cost:
    """What a body costs: CPU in units of the loop, memory as a multiple of the body."""

    case: ExpensiveBody
    outcome: str
    decoding: float
    deciding: float
    memory: float


@dataclass
class _Record:
    value: bytes
    headers: list[tuple[str, bytes]]
    key: bytes | None = b"s"
    offset: int = 1
    timestamp: int = 1_800_000_000_000


def measure(bodies: Iterable[ExpensiveBody], turns: int = _TURNS) -> list[Cost]:
    """Measure bodies, the best of several turns each."""
    with _collector_as_in_a_worker():
        unit = min(_seconds(_loop) for _ in range(_TURNS))
        return [_cost(case, unit, turns) for case in bodies]


def _cost(case: ExpensiveBody, unit: float, turns: int) -> Cost:
    headers = command_headers("c-1", b"/agent", case.kind.wire, b"2026-11-24T08:24:59.000000Z")
    key = None if case.kind in PARTITION_TYPES else b"s"
    record: Any = _Record(case.body, headers, key)
    decoded = decode(record, 0, 1)
    decoding = min(_seconds(lambda: decode(record, 0, 1)) for _ in range(turns))
    deciding = min(_seconds(lambda: _decide(decoded)) for _ in range(turns))
    outcome = _decide(decoded)
    tracemalloc.start()
    decode(record, 0, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Cost(case, outcome, decoding / unit, deciding / unit, peak / len(case.body))


def _decide(decoded: Decoded) -> str:
    batch = Batch(ResultEncoder("results", 0), {}, PartitionState())
    batch.add(decoded)
    ((_, result),), _ = batch.finish({})
    kind = dict(result.headers)["ce_type"].decode().rpartition(".")[2]
    return str(orjson.loads(result.value)["code"]) if kind == "rejected" else kind


def _loop() -> None:
    total = 0
    for number in range(1_000_000):
        total += number


def _seconds(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@contextmanager
def _collector_as_in_a_worker() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 10, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def table(costs: list[Cost]) -> str:
    """Return the costs as a table, the most expensive of each type first."""
    rows = ["| command | body | answer | decoding | deciding | memory |", "|---|---|---|---|---|---|"]
    for kind, group in groupby(costs, key=lambda cost: cost.case.kind):
        for cost in sorted(group, key=lambda cost: -cost.decoding):
            rows.append(
                f"| `{kind.removeprefix('waypost.')}` | {cost.case.what} | `{cost.outcome}` | {cost.decoding:.2f} | "
                f"{cost.deciding:.2f} | {cost.memory:.0f} |"
            )
    return "\n".join(rows) + "\n"


def page() -> str:
    """Measure, and return the page."""
    parts = [_INTRODUCTION]
    for title, size in (
        ("1 MiB, the most that a topic accepts by default", WHOLE),
        ("256 KiB, the most that is decoded on the event loop", AT_ONCE),
    ):
        parts.append(f"## Bodies of {title}\n\n{table(measure(expensive_bodies(size)))}")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
