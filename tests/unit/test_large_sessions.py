"""A session full of pins, or of names, or with an age, costs its partition what any other session costs."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from waypost.model.index import Entry, Session
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Batch, Decoded, decode
from waypost_worker.partition.encode import ResultEncoder

YEAR = 365 * 24 * 3600 * 1_000_000
NOW_MS = 1_700_000_000_000
FULL = 9_998
ENCODER = ResultEncoder("results", 0)
Commands = Iterator[tuple[EventType, bytes]]


def creates_and_pins(numbers: range) -> Commands:
    for number in numbers:
        yield EventType.CREATE, b'{"name":"step-%d","data":{"a":1}}' % (number % 5)
        yield EventType.PIN, b'{"checkpoint_id":"s:%d"}' % number
        yield EventType.UNPIN, b'{"checkpoint_id":"s:%d"}' % number
        yield EventType.ROLLBACK, b'{"checkpoint_id":"s:%d"}' % number


def unpinned_one_by_one(numbers: range) -> Commands:
    """Each create drops what was just unpinned at the beginning, and the next one has all the pins before it."""
    for number in numbers:
        yield EventType.UNPIN, b'{"checkpoint_id":"s:%d"}' % number
        yield EventType.CREATE, b'{"name":"step","data":{"a":1}}'
        yield EventType.CREATE, b'{"name":"step","data":{"a":1}}'


def imports_of_one(numbers: range) -> Commands:
    item = b'{"id":"s:%d","name":"n","timestamp":"2026-11-24T08:24:59Z","data":{}}'
    for number in numbers:
        yield EventType.IMPORT, b'{"checkpoints":[%b],"on_conflict":"replace"}' % (item % number)


def session(size: int, pins: int, policy: RetentionPolicy) -> Session:
    entries = [
        Entry(n, f"name-{n}", 0, NOW_MS * 1000, n, f"made-{n}", None, n <= pins) for n in range(1, size + 1)
    ]
    return Session.restore("s", size, policy, entries, [])


def decoded(commands: Commands) -> list[Decoded]:
    records: list[Any] = [
        SimpleNamespace(
            offset=20_000 + index,
            timestamp=NOW_MS + index,
            key=b"s",
            value=body,
            headers=command_headers(f"c-{index}", b"/a", kind.wire, b"2026-11-24T08:24:59.000000Z"),
        )
        for index, (kind, body) in enumerate(commands)
    ]
    return [decode(record, 0, 1) for record in records]


def seconds(held: Session, commands: list[Decoded]) -> float:
    """CPU per command, once the session is at hand with what it needs."""
    batch = Batch(ENCODER, {"s": held}, PartitionState())
    for command in commands[:12]:
        batch.add(command)
    began = time.process_time()
    for command in commands[12:]:
        batch.add(command)
    return (time.process_time() - began) / (len(commands) - 12)


POLICIES = {
    "cap": RetentionPolicy(10_000, 10_000, 20),
    "names": RetentionPolicy(10_000, 50, 20),
    "age": RetentionPolicy(10_000, 10_000, 20, YEAR),
}


CASES = [
    (creates_and_pins, 0),
    (creates_and_pins, FULL - 2),
    (unpinned_one_by_one, FULL - 2),
    (imports_of_one, 0),
    (imports_of_one, FULL - 2),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("stream", "pins"), CASES, ids=lambda one: getattr(one, "__name__", f"{one}-pins"))
def test_ten_thousand_checkpoints_hardly_slow_it(
    stream: Callable[[range], Commands], pins: int, policy: str
) -> None:
    large = POLICIES[policy]
    small = RetentionPolicy(60, min(large.compress_after, 60), large.keep_recent, large.max_age)
    # The same commands, on checkpoints that both have, in a session of 58; the best of several turns each.
    best = {"small": 1.0, "large": 1.0}
    for _ in range(5):
        for _ in range(4):
            short = decoded(stream(range(2, 30)))
            best["small"] = min(best["small"], seconds(session(58, 56 if pins else 0, small), short))
        long = decoded(stream(range(2, 120)))
        best["large"] = min(best["large"], seconds(session(FULL, pins, large), long))
    # It is 0.8 to 2; with a look at all of them it was up to 300.
    assert best["large"] < 3 * best["small"], best
