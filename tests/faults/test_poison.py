"""A burst of commands with poison in it: everything that a client can get wrong, among good commands.

Breaks: hundreds of records at once into every partition, half of them malformed in every way that Kafka lets
through: no value, no key, no headers, keys that are not UTF-8 or belong elsewhere, JSON that is cut, too deep, too
large or of another shape, NaN, U+0000, unknown types, times that no calendar has. Workers are killed meanwhile.
Must hold: each is refused with its own result, in its place; the good ones are applied; no partition stands still.
"""

import signal
import uuid

from tests.faults.scene import Scene
from tests.simulation.agents import Message, sessions_of
from tests.support.commands import structured_event

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType

GOOD = b'{"name":"n","data":{}}'
TIME = b"2026-11-24T08:24:59.123456Z"
BODIES: tuple[bytes | None, ...] = (
    None,
    b"",
    b'{"name": "n", "data": {',
    b"[1, 2, 3]",
    b'{"name":"n"}',
    b'{"name":7,"data":{}}',
    b'{"name":"","data":{}}',
    b'{"name":"n","data":{},"colour":"red"}',
    b'{"name":"n","data":{"x":NaN}}',
    b'{"name":"n","data":{"x":123456789012345678901234}}',
    b'{"name":"n","data":{"a":' + b"[" * 101 + b"]" * 101 + b"}}",
    b'{"name":"n","data":{},"metadata":{"x":"\\u0000"}}',
    b'{"name":"n","data":{"x":"\xff"}}',
    b'{"name":"n","data":{"x":"' + b"y" * 925_000 + b'"}}',
)


def headers(kind: bytes = EventType.CREATE.wire, time: bytes = TIME) -> list[tuple[str, bytes]]:
    return command_headers(uuid.uuid4().hex, b"/poison", kind, time)


def poison(session: bytes, elsewhere: bytes) -> list[Message]:
    """One of each."""
    structured = structured_event(
        {"id": uuid.uuid4().hex, "source": "/poison", "type": EventType.CLEAR}, 0, b'{"why":"no"}'
    )
    return [
        *((session, body, headers()) for body in BODIES),
        (None, GOOD, headers()),
        (b"", GOOD, headers()),
        (b"\xff\xfe", GOOD, headers()),
        (b"s" * 201, GOOD, headers()),
        (elsewhere, GOOD, headers()),
        (session, GOOD, []),
        (session, GOOD, headers(b"waypost.checkpoint.explode")),
        (session, GOOD, headers(time=b"99999-01-01T00:00:00Z")),
        (session, GOOD, [("ce_id", b"\xff"), *headers()[1:]]),
        (session, b'{"checkpoint_id":"somebody-else:1"}', headers(EventType.PIN.wire)),
        (session, b"\0\0\0\0\x07" + GOOD, headers()),
        (session, GOOD, [*headers(), ("ce_id", b"another")]),
        (session, GOOD, [*headers(), ("content-type", b"text/xml")]),
        (session, b"[]", [("content-type", b"application/cloudevents-batch+json")]),
        (session, structured, [("content-type", b"application/cloudevents+json")]),
        (session, b"{}", [("content-type", b"application/cloudevents+json")]),
    ]


async def test_burst_with_poison(shared: Scene) -> None:
    victim, _ = await shared.crew(2)
    for partition in range(shared.partitions):
        session, elsewhere = (
            sessions_of(one % shared.partitions, shared.partitions, 1)[0].encode()
            for one in (partition, partition + 1)
        )
        messages = [
            *poison(session, elsewhere),
            *poison(session, elsewhere),
            *((session, GOOD, headers()) for _ in range(50)),
        ]
        shared.random.shuffle(messages)
        await shared.load.burst(partition, messages)
        if partition == 1:
            await victim.end(signal.SIGKILL)
    await shared.worker()
    await shared.healed()
    await shared.judge()
