"""Clients that do almost what the contract says, and a worker behind a pooler that it was not told of.

Breaks: under load, every partition gets bodies with the frame of a schema registry, compressed ones, UTF-16, a batch of
events, other media types, and headers that contradict themselves. In the other scenario the workers connect through a
pgbouncer in transaction mode, first without the setting that this needs.
Must hold: each of these commands gets a rejection that names what is wrong, in its place, and the others are applied;
the worker names the setting, and with it all goes on within 30 s; nothing is lost, doubled or out of order.
"""

import gzip
import itertools
import signal
import uuid
from typing import Final

import orjson
import pytest
from tests.faults.scene import Scene
from tests.oracle.books import read_all
from tests.simulation.agents import Message
from tests.support.pgbouncer import pgbouncer

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of

GOOD: Final = b'{"name":"n","data":{}}'
TIME: Final = b"2026-11-24T08:24:59.123456Z"
SETTING: Final = "WAYPOST_POSTGRES_STATEMENT_CACHE=0"


def headers(*more: tuple[str, bytes], content_type: bytes = b"application/json") -> list[tuple[str, bytes]]:
    made = command_headers(uuid.uuid4().hex, b"/foreign", EventType.CREATE.wire, TIME)
    return [*(one for one in made if one[0] != "content-type"), ("content-type", content_type), *more]


def odd(session: bytes) -> dict[str, Message]:
    """A command of each kind, by words of the message that it must get."""
    batch = [("content-type", b"application/CloudEvents-Batch+json;charset=utf-8")]
    return {
        "as schema registry serializers write it": (session, b"\0\0\0\0\x07" + GOOD, headers()),
        "compressed (gzip)": (session, gzip.compress(GOOD), headers()),
        "UTF-16": (session, GOOD.decode().encode("utf-16"), headers()),
        "send each event in a record of its own": (session, b"[]", batch),
        "is not application/json": (session, GOOD, headers(content_type=b"application/jsonx")),
        "the header ce_id appears twice": (session, GOOD, headers(("ce_id", b"another"))),
        "the header ce_type appears twice": (session, GOOD, headers(("ce_type", b"waypost.session.clear"))),
    }


def own_session(partition: int, partitions: int) -> bytes:
    """A session of this partition that the load leaves alone: its agents erase sessions and require encryption."""
    names = (f"foreign-{number}" for number in itertools.count())
    return next(name for name in names if partition_of(name, partitions) == partition).encode()


async def test_foreign_clients(shared: Scene) -> None:
    await shared.crew(1)
    wanted: dict[tuple[int, int | None], str] = {}
    applied: list[tuple[int, int | None]] = []
    for partition in range(shared.partitions):
        session = own_session(partition, shared.partitions)
        kinds = odd(session)
        offsets = await shared.load.send(partition, list(kinds.values()))
        wanted |= {(partition, offset): words for offset, words in zip(offsets, kinds, strict=True)}
        # Media types are compared without case and parameters, and a header may come twice if it says the same.
        good = headers(("ce_specversion", b"1.0"), content_type=b"Application/JSON; charset=UTF-8")
        (offset,) = await shared.load.send(partition, [(session, GOOD, good)])
        applied.append((partition, offset))
    await shared.healed()
    messages = {}
    for partition, records in (await read_all(shared.endpoints, shared.topics.results)).items():
        for record in records:
            if dict(record.headers)["ce_type"] == EventType.REJECTED.wire:
                body = orjson.loads(record.value)
                messages[partition, body["command"]["offset"]] = body["message"]
    for place, words in wanted.items():
        assert words in messages.get(place, ""), place
    assert {place: messages[place] for place in applied if place in messages} == {}
    await shared.judge()


@pytest.mark.long
async def test_behind_a_pooler(shared: Scene) -> None:
    direct = shared.worker_dsn
    async with pgbouncer(direct) as pooled:
        shared.worker_dsn = pooled
        untold = [await shared.worker() for _ in range(2)]

        def is_named() -> bool:
            return any(SETTING in worker.log.read_text(errors="replace") for worker in untold)

        await shared.until(is_named)
        for worker in untold:
            await worker.end(signal.SIGTERM)
        told = await shared.worker(postgres_statement_cache="0")
        await shared.healed()
        await shared.load.stop()
        await shared.all_answered()
        assert await told.end(signal.SIGTERM) == 0
    await shared.judge()
