"""A log with everything in it, from a seed: every command type, repetitions, misrouted and unreadable records."""

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from tests.support.commands import create_body

from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of

TIME = b"2026-11-24T08:24:59.123456Z"


class Command(NamedTuple):
    """A record to be published."""

    partition: int
    key: bytes | None
    headers: list[tuple[str, bytes]]
    value: bytes | None


def commands(
    seed: int, count: int, partitions: int, sessions: int = 20, size: int = 200, erasing: bool = False
) -> Iterator[Command]:
    """``count`` commands over so many sessions; creates have about ``size`` bytes of data.

    With ``erasing``, some sessions are erased for good, and others take their places.
    Some sessions expire for real: what was idle since now, as seen here, is idle since a moment ago to the broker.
    """
    chance = random.Random(seed)
    names = [f"run-{seed}-{number}" for number in range(sessions)]
    made = dict.fromkeys(names, 0)
    ids: list[str] = []
    for number in range(count):
        session = chance.choice(names)
        kind, body = _one(chance, session, made, size, erasing)
        if kind == "session.erase" and chance.random() < 0.8:
            names[names.index(session)] = another = f"run-{seed}-{sessions + number}"
            made[another] = 0
        command_id = chance.choice(ids) if ids and chance.random() < 0.02 else f"{seed}-{number}"
        ids = [*ids[-50:], command_id]
        headers = command_headers(command_id, b"/workload", f"waypost.{kind}".encode(), TIME)
        key: bytes | None = session.encode()
        home = partition_of(session, partitions)
        if kind == "defaults.configure":
            key, home = None, chance.randrange(partitions)
        elif chance.random() < 0.005:
            home = chance.randrange(partitions)  # misrouted, more often than not
        value: bytes | None = orjson.dumps(body) if not isinstance(body, bytes) else body
        if chance.random() < 0.005:
            value = chance.choice([None, b"{", b'{"name":""}', b"\xff\x00"])
            if key is None and value is None:
                value = b""  # aiokafka sends no record that has neither
        yield Command(home, key, headers, value)


def creates(
    seed: int, count: int, partitions: int, sessions: int = 2000, size: int = 1000
) -> Iterator[Command]:
    """``count`` creates, as agents at work publish them."""
    body = create_body("tool_called", {"text": "x" * size})
    for number in range(count):
        session = f"agent-{seed}-{number % sessions}"
        headers = command_headers(f"{seed}-{number}", b"/workload", EventType.CREATE.wire, TIME)
        yield Command(partition_of(session, partitions), session.encode(), headers, body)


def _one(
    chance: random.Random, session: str, made: dict[str, int], size: int, erasing: bool
) -> tuple[str, Any]:
    recent = f"{session}:{max(1, made[session] - chance.randrange(6))}"
    roll = chance.random()
    if roll < 0.8:
        made[session] += 1
        data = {"step": made[session], "text": "x" * chance.randrange(size)}
        return "checkpoint.create", create_body(
            chance.choice(["started", "tool_called", "done"]), data, {"n": roll} if roll < 0.1 else None
        )
    if roll < 0.86:
        return f"checkpoint.{chance.choice(['pin', 'pin', 'unpin'])}", {"checkpoint_id": recent}
    if roll < 0.89:
        return "checkpoint.delete", {"checkpoint_id": recent}
    if roll < 0.94:
        return "session.rollback", {"checkpoint_id": recent, "discard_later": roll < 0.91}
    if roll < 0.96:
        items = [
            {
                "id": identifier,
                "name": "imported",
                "timestamp": "2026-11-24T08:00:00Z",
                "data": {"of": identifier, "n": roll},
            }
            for identifier in (recent, f"other:{chance.randrange(5)}")
        ]
        return "session.import", {
            "checkpoints": items,
            "on_conflict": chance.choice(["skip", "replace", "reject"]),
        }
    if roll < 0.985:
        return "session.configure", {"max_checkpoints": chance.randrange(5, 60), "compress_after": 30}
    if roll < 0.988:
        return "session.clear", {}
    if erasing and roll < 0.9885:
        return "session.erase", {}
    if roll < 0.99:
        since = time.time() if chance.random() < 0.8 else chance.choice([0, 4e9])
        return "session.expire", {"idle_since": format_micros(round(since * 1e6)), "pinned": roll < 0.9885}
    return "defaults.configure", {"max_checkpoints": chance.randrange(40, 200)}


async def publish(producer: Any, topic: str, wanted: Iterator[Command]) -> int:
    """Publish them all in order, for each partition; how many."""
    sent = [
        await producer.send(topic, one.value, key=one.key, headers=one.headers, partition=one.partition)
        for one in wanted
    ]
    await asyncio.gather(*sent)
    return len(sent)
