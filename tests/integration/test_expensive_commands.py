"""Commands that are small, or ordinary, and once stopped a partition by what they cost or answered.

A worker process gets each of them from real servers, with a limit on its memory and an ordinary command behind it.
tests/unit/test_expensive_bodies.py holds what bodies cost without servers, tests/fuzz/test_corpus.py sends many more.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from tests.fuzz.corpus import ROLLBACKS, named
from tests.fuzz.leg import Leg, Tally, leg

from waypost.subscriber.events import Event
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Endpoints, Servers
from waypost_worker.kafka.produce import MAX_BATCH_BYTES

# The event loop is held for 50 ms at most on the machine of the page in docs/measured, where the loop below takes
# 28 ms. Other programs take the machine, too: so much is allowed before that, and of what an idle worker shows.
HELD = 0.05
ALLOWED = 10
_UNIT = 0.028


@pytest.fixture
async def worker(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Leg]:
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, database)
    async with leg(endpoints, database, topic_prefix, tmp_path, Tally(), seed=1) as made:
        yield made


def machine() -> float:
    """How many times longer a loop of a million additions takes here than on the machine of the page."""
    began, total = time.perf_counter(), 0
    for number in range(1_000_000):
        total += number
    return max(1.0, (time.perf_counter() - began) / _UNIT)


async def events_after(worker: Leg, name: str) -> list[Event]:
    """Send an input of the corpus; the results of its commands, which passed without harm."""
    idle = await worker.loop_delay()
    factor = machine()
    assert await worker.judge([named(name)]) is None
    held = await worker.loop_delay()
    assert held < max(ALLOWED * HELD * max(factor, machine()), ALLOWED * idle), (held, idle, factor)
    found = [event for event in await worker.results() if event.type != EventType.ACQUIRED]
    assert max(len(event.raw_body) for event in found) < MAX_BATCH_BYTES // 4
    return found


async def test_an_import_of_10_000_items_with_the_longest_ids(worker: Leg) -> None:
    _, imported, _ = await events_after(worker, "an import of 10,000 items with the longest ids")
    assert imported.type == EventType.IMPORTED
    assert imported.body["imported"] == 10_000
    assert imported.body["ids"][-1].endswith(":10000")
    assert len(imported.raw_body) < 10_000  # as ranges


async def test_345_000_empty_items(worker: Leg) -> None:
    _, rejected, _ = await events_after(worker, "an import of 345,000 empty items")
    assert rejected.type == EventType.REJECTED
    assert rejected.body["code"] == "invalid-body"


async def test_a_lowered_default_and_then_an_import(worker: Leg) -> None:
    found = await events_after(worker, "imports and policies that list 20,000 of the longest ids")
    _, first, _, second, _ = found[1:-1]
    assert (first.body["imported"], second.body["imported"]) == (10_000, 10_000)
    assert len(first.removed) == 0
    assert len(second.removed) == 19_998
    assert len(second.raw_body) < 10_000


async def test_64_kb_of_rollbacks_with_large_results(worker: Leg) -> None:
    found = await events_after(worker, "64 KB of rollbacks with large results")
    rollbacks = [event for event in found if event.type == EventType.ROLLED_BACK]
    assert len(named("64 KB of rollbacks with large results").batches[-1]) < 70_000
    assert len(rollbacks) == ROLLBACKS
    assert sum(len(event.raw_body) for event in rollbacks) > 1000 * 64_000


async def test_a_trace_of_20_mb_in_a_batch_of_915_bytes(worker: Leg) -> None:
    assert max(map(len, named("a trace of 20 MB in 915 bytes").batches)) < 1000
    _, unpacked, *more = await events_after(worker, "a trace of 20 MB in 915 bytes")
    # It unpacks to more than a batch may hold, so nobody looks for a command in it.
    assert unpacked.body["code"] == "too-large"
    assert {event.traceparent for event in [unpacked, *more]} == {None}
    assert orjson.loads(unpacked.raw_body)["session_id"] is None
