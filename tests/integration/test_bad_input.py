"""What bad input gets: a rejected result with a code and a way out, the raw command kept, the partition going on."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from tests.support.commands import structured_event
from tests.support.deployment import CREATE, TIME, Deployment, deployment

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers

GOOD = b'{"name":"n","data":{}}'
SESSION = b"session-0"


def headers(**changes: bytes | None) -> list[tuple[str, bytes]]:
    """Good headers with some exchanged, or left out (None)."""
    found = dict(command_headers("id-1", b"/test", CREATE, TIME))
    for name, value in changes.items():
        found.pop(f"ce_{name}", None)
        if value is not None:
            found[f"ce_{name}"] = value
    return list(found.items())


def deep(levels: int) -> bytes:
    return b'{"name":"n","data":{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}}"


def structured(body: bytes) -> dict[str, Any]:
    event = structured_event({"id": "id-1", "source": "/test", "type": CREATE.decode()}, 0, body)
    return {"value": event, "headers": [("content-type", b"application/cloudevents+json")]}


# What is sent, the code that comes back, and words of the message that say what to do.
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "broken JSON": ({"value": b'{"name": "n", '}, "invalid-body", "not JSON"),
    "an array": ({"value": b"[1]"}, "invalid-body", "must be a JSON object, not an array"),
    "a missing field": ({"value": b'{"name":"n"}'}, "invalid-body", "data"),
    "an unknown field": (
        {"value": b'{"name":"n","data":{},"colour":1}'},
        "invalid-body",
        "colour: unknown field",
    ),
    "an unknown field with odd characters": (
        {"value": b'{"name":"n","data":{},"a\\u0000\\u001b[31m":1}'},
        "invalid-body",
        "unknown field",
    ),
    "a wrong type": ({"value": b'{"name":7,"data":{}}'}, "invalid-body", "name"),
    "an empty name": ({"value": b'{"name":"","data":{}}'}, "invalid-body", "name: is empty"),
    "a name too long": (
        {"value": b'{"name":"' + b"n" * 201 + b'","data":{}}'},
        "invalid-body",
        "201 characters",
    ),
    "NaN": ({"value": b'{"name":"n","data":{"x":NaN}}'}, "invalid-body", "not JSON"),
    "an infinite number": ({"value": b'{"name":"n","data":{"x":1e400}}'}, "invalid-body", "not JSON"),
    "an integer beyond 64 bits": (
        {"value": b'{"name":"n","data":{"x":18446744073709551616}}'},
        "invalid-body",
        "64 bits: send it as a string",
    ),
    "101 levels": ({"value": deep(101)}, "invalid-body", "100 levels: flatten it"),
    "thousands of levels": ({"value": deep(50_000)}, "invalid-body", "100 levels"),
    "U+0000 in metadata": (
        {"value": b'{"name":"n","data":{},"metadata":{"x":"\\u0000"}}'},
        "invalid-body",
        "U+0000",
    ),
    "large metadata": (
        {"value": b'{"name":"n","data":{},"metadata":{"x":"' + b"m" * 17_000 + b'"}}'},
        "too-large",
        "16384",
    ),
    "large data": (
        {"value": b'{"name":"n","data":{"x":"' + b"d" * 925_000 + b'"}}'},
        "too-large",
        "keep a reference",
    ),
    "a key twice": ({"value": b'{"name":"n","data":{},"data":{}}'}, "invalid-body", "appears twice"),
    "a time beyond the calendar": (
        {"value": GOOD, "headers": headers(time=b"10000-01-01T00:00:00Z")},
        "invalid-envelope",
        "ce_time",
    ),
    "a time without a zone": (
        {"value": GOOD, "headers": headers(time=b"2026-11-24T08:24:59")},
        "invalid-envelope",
        "zone",
    ),
    "no key": ({"value": GOOD, "key": None}, "invalid-envelope", "no key: send the session id"),
    "a key that is not UTF-8": ({"value": GOOD, "key": b"\xff\xfe"}, "invalid-envelope", "UTF-8"),
    "a long session id": ({"value": GOOD, "key": b"s" * 201}, "invalid-envelope", "201 characters"),
    "a control character in the session id": (
        {"value": GOOD, "key": b"a\x00b"},
        "invalid-envelope",
        "control",
    ),
    "no headers": ({"value": GOOD, "headers": []}, "invalid-envelope", "no headers: send ce_specversion"),
    "a null value": ({"value": None}, "invalid-envelope", "null value"),
    "an unknown type": (
        {"value": GOOD, "headers": headers(type=b"waypost.checkpoint.explode")},
        "unsupported-type",
        "known are",
    ),
    "no id": ({"value": GOOD, "headers": headers(id=None)}, "invalid-envelope", "ce_id is missing"),
    "a long id": ({"value": GOOD, "headers": headers(id=b"i" * 65)}, "invalid-envelope", "65 characters"),
    "an id that is not UTF-8": (
        {"value": GOOD, "headers": headers(id=b"\xff")},
        "invalid-envelope",
        "not UTF-8",
    ),
    "no source": ({"value": GOOD, "headers": headers(source=None)}, "invalid-envelope", "ce_source"),
    "an old specversion": (
        {"value": GOOD, "headers": headers(specversion=b"0.3")},
        "invalid-envelope",
        "'0.3'",
    ),
    "another content type": (
        {"value": GOOD, "headers": [*headers()[:-1], ("content-type", b"text/xml")]},
        "invalid-envelope",
        "application/json",
    ),
    "a type that only begins like JSON": (
        {"value": GOOD, "headers": [*headers()[:-1], ("content-type", b"application/json-seq")]},
        "invalid-envelope",
        "'application/json-seq' is not application/json",
    ),
    "a batch of events": (
        {"value": b"[]", "headers": [("content-type", b"application/cloudevents-batch+json; charset=utf-8")]},
        "invalid-envelope",
        "send each event in a record of its own",
    ),
    "two ids": (
        {"value": GOOD, "headers": [*headers(), ("ce_id", b"id-2")]},
        "invalid-envelope",
        "the header ce_id appears twice, with different values: send it once",
    ),
    "two types": (
        {"value": GOOD, "headers": [("ce_type", EventType.CLEAR.wire), *headers()]},
        "invalid-envelope",
        "the header ce_type appears twice",
    ),
    "two content types": (
        {"value": GOOD, "headers": [*headers(), ("content-type", b"application/cloudevents+json")]},
        "invalid-envelope",
        "the header content-type appears twice",
    ),
    "a registry's frame": (
        {"value": b"\0\0\0\x04\xd2" + GOOD},
        "invalid-body",
        "schema registry serializers",
    ),
    "a gzip body": (
        {"value": gzip.compress(GOOD)},
        "invalid-body",
        "it is compressed (gzip). Send it as it is",
    ),
    "a zlib body": ({"value": zlib.compress(GOOD)}, "invalid-body", "it is compressed (zlib)"),
    "a UTF-16 body": ({"value": GOOD.decode().encode("utf-16")}, "invalid-body", "it is UTF-16. Send UTF-8"),
    "a structured event in UTF-16": (
        {
            "value": structured(GOOD)["value"].decode().encode("utf-16-le"),
            "headers": [("content-type", b"application/cloudevents+json")],
        },
        "invalid-envelope",
        "it is UTF-16. Send UTF-8",
    ),
    "a structured event with base64": (
        {
            "value": b'{"specversion":"1.0","id":"i","source":"s","type":"t","data_base64":"e30="}',
            "headers": [("content-type", b"application/cloudevents+json")],
        },
        "invalid-envelope",
        "has data_base64",
    ),
    "null header values": (
        {"value": GOOD, "headers": [("ce_specversion", None), ("content-type", None)]},
        "invalid-envelope",
        "headers",
    ),
    "a structured event that is broken": (
        {"value": b"{", "headers": [("content-type", b"application/cloudevents+json")]},
        "invalid-envelope",
        "structured",
    ),
    "a structured event without data": (
        {
            "value": b'{"specversion":"1.0","id":"i","source":"s","type":"t"}',
            "headers": [("content-type", b"application/cloudevents+json")],
        },
        "invalid-envelope",
        "no data",
    ),
    "a bad body in a structured event": (structured(b'{"name":1}'), "invalid-body", "name"),
    "another session's checkpoint": (
        {
            "value": b'{"checkpoint_id":"somebody-else:1"}',
            "headers": headers(type=EventType.PIN.wire, id=b"id-2"),
        },
        "unknown-checkpoint",
        "belongs to another session",
    ),
    "a default policy with a key": (
        {"value": b"{}", "headers": headers(type=EventType.CONFIGURE_DEFAULTS.wire)},
        "invalid-envelope",
        "without a key",
    ),
    "a policy out of bounds": (
        {"value": b'{"max_checkpoints":1}', "headers": headers(type=EventType.CONFIGURE.wire)},
        "invalid-body",
        "max_checkpoints",
    ),
}


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=2) as made:
        yield made


async def test_each_kind_of_bad_input_is_rejected_with_a_way_out_and_the_partition_continues(
    here: Deployment,
) -> None:
    home = 0
    session = here.sessions(home, 1)[0]
    for sent, _, _ in BAD.values():
        key = sent.get("key", session.encode())
        await here.send(sent["value"], key, headers=sent.get("headers", headers()), partition=home)
        await here.create(session, "good")
    here.own(home)
    await here.answered(2 * len(BAD))
    found = [
        (dict(record.headers)["ce_type"], orjson.loads(record.value))
        for record in (await here.results())[home]
        if dict(record.headers)["ce_type"] != EventType.ACQUIRED.wire
    ]
    for (kind, (_, code, words)), (result_type, body) in zip(BAD.items(), found[::2], strict=True):
        assert result_type == EventType.REJECTED.wire, kind
        assert body["code"] == code, (kind, body)
        assert words in body["message"], (kind, body["message"])
        assert body["message"].isprintable(), kind
    assert {result_type for result_type, _ in found[1::2]} == {EventType.CREATED.wire}
    await here.balanced()

    kept = await here.pool.fetch('select * from waypost.rejected_commands order by "offset"')
    for (kind, (sent, code, _)), row in zip(BAD.items(), kept, strict=True):
        assert row["code"] == code, kind
        assert row["value"] == sent["value"], kind
        assert row["key"] == sent.get("key", session.encode()), kind
        names = [name for name, _ in orjson.loads(row["headers"])]
        assert names == [name for name, _ in sent.get("headers", headers())], kind


async def test_a_rejection_in_the_wrong_partition_names_the_partitioner_to_use(here: Deployment) -> None:
    session = here.sessions(0, 1)[0]
    await here.send(GOOD, session.encode(), partition=1)
    here.own(1)
    await here.answered(1)
    body = orjson.loads((await here.results())[1][-1].value)
    assert body["code"] == "misrouted"
    assert "partitioner=murmur2_random" in body["message"]


async def test_a_rejected_command_is_judged_again_when_it_comes_again(here: Deployment) -> None:
    session = here.sessions(0, 1)[0]
    pin = (b'{"checkpoint_id":"' + session.encode() + b':1"}', session.encode(), EventType.PIN.wire)
    here.own(0)
    await here.send(*pin, command_id="the-pin")
    await here.create(session)
    await here.send(*pin, command_id="the-pin")
    await here.answered(3)
    types = [dict(record.headers)["ce_type"] for record in (await here.results())[0]]
    assert types[-3:] == [
        EventType.REJECTED.wire,
        EventType.CREATED.wire,
        EventType.PINNED.wire,
    ]


async def test_a_header_name_that_no_client_can_read_stops_nothing(here: Deployment) -> None:
    session = here.sessions(0, 1)[0]
    plain = AIOKafkaProducer(bootstrap_servers=here.endpoints.bootstrap_servers)
    await plain.start()
    batch = plain.create_batch()
    batch.append(timestamp=None, key=session.encode(), value=GOOD, headers=[*headers(), ("oddname", b"")])
    batch.close()
    batch._builder = _OddName(batch._builder)
    async with asyncio.timeout(30):
        await (await plain.send_batch(batch, here.topics.commands, partition=0))
    await plain.stop()
    await here.create(session, "after")
    owner = here.own(0)
    await here.answered(2)
    await owner.stop()
    # The record is also the anchor that the next owner reads again.
    await here.pool.execute("update waypost.partitions set next_offset = next_offset")
    here.own(0)
    await here.create(session, "later")
    await here.answered(3)
    assert await here.pool.fetchval("select count(*) from waypost.checkpoints") == 3


class _OddName:
    """A built batch in which a header name is not UTF-8, with a right checksum."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def build(self) -> bytearray:
        from aiokafka.record.util import calc_crc32c

        raw = bytearray(self._builder.build())
        at = raw.find(b"oddname")
        raw[at : at + 2] = b"\xff\xfe"
        raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
        return raw
