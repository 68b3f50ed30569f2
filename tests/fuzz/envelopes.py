"""Envelopes: headers and keys of valid commands, changed at a few places."""

from random import Random
from typing import Final

from tests.fuzz.bodies import Members, any_object, changed, garbled, text
from tests.fuzz.commands import SESSIONS, TIME, Header, command_batch, valid_headers

from waypost.wire.event_types import COMMAND_TYPES

_NAMES: Final = [
    *(
        b"",
        b"ce_",
        b"CE_ID",
        b"Ce_Type",
        b"ce-id",
        b"ce_id ",
        b"ce_id\0",
        b"id",
        b"traceparent",
        b"tracestate",
    ),
    *(
        b"Content-Type",
        b"content-type",
        b"ce_datacontenttype",
        b"ce_dataschema",
        b"ce_subject",
        b"ce_partitionkey",
    ),
    *(
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xc3\xa9",
        b"\xe2\x80\xae",
        b"a\nb",
        b"\x1b[2J",
        b"x" * 300,
        b"__class__",
    ),
]
_VALUES: Final = [
    *(
        None,
        b"",
        b" ",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"1",
        b"1.0",
        b"1.0 ",
        b"a\nb",
        b"\x1b[31m",
        b"\xc2\x9b",
    ),
    *(
        b"\xe2\x80\xa8",
        b"'; drop table waypost.checkpoints; --",
        b"%s%n",
        b"{}",
        b"null",
        b"a" * 64,
        b"a" * 65,
    ),
    *(b"\xf0\x9f\x99\x82" * size for size in (63, 64, 65, 200, 201)),
]
_TIMES: Final = [
    *(
        b"0000-01-01T00:00:00Z",
        b"0001-01-01T00:00:00Z",
        b"9999-12-31T23:59:59.999999Z",
        b"10000-01-01T00:00:00Z",
    ),
    *(b"2026-02-30T00:00:00Z", b"2026-11-24T23:59:60Z", b"2026-11-24T24:00:00Z", b"2026-11-24T08:24:59"),
    *(b"2026-11-24T08:24:59+23:59", b"2026-11-24T08:24:59+99:99", b"2026-11-24t08:24:59z", b"1764000000"),
    *(
        b"0001-01-01T00:00:00+23:59",
        b"9999-12-31T23:59:59-23:59",
        b"2026-11-24T08:24:59." + b"9" * 5000 + b"Z",
    ),
    *("\uff12\uff10\uff12\uff16-11-24T08:24:59Z".encode(), b"-001-01-01T00:00:00Z", b"2026-W48-2", b"now"),
]
_TRACES: Final = [
    *(b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
    *(b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01"),
    *(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-" + b"x" * 5000, b"0" * 100_000),
]
_CONTENT_TYPES: Final = [
    *(
        b"application/json; charset=utf-8",
        b"application/json;charset=utf-16",
        b"text/plain",
        b"application/jsonx",
    ),
    *(b"application/cloudevents+json", b"application/cloudevents-batch+json", b"APPLICATION/JSON", b"\xff"),
    *(b"application/cloudevents", b"application/avro", b"application/json" + b" " * 70_000),
]
_TYPES: Final = [
    *(b"waypost.partition.skip", b"waypost.partition.acquired", b"waypost.checkpoint.created", b"waypost"),
    *(b"waypost.checkpoint.create ", b"WAYPOST.CHECKPOINT.CREATE", b"t" * 256, b"t" * 257, b"t" * 5000),
]
_SIZES: Final = [100, 1000, 2048, 2049, 65_000, 65_536, 70_000, 300_000, 900_000]
_KEYS: Final = [
    *(
        None,
        b"",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"a\0b",
        b"a\nb",
        b" ",
        b"\xe2\x80\xae",
        b"\xc2\x85",
        b"'",
        b"%",
    ),
    *(b"s" * size for size in (199, 200, 201, 800, 801, 5000, 100_000)),
    *("\U0001f642".encode() * size for size in (200, 201)),
    *("é".encode(), "e\u0301".encode(), b"fuzz-0:1", b"..", b"/", b"a:b:c", b"1" * 200),
]


def _headers(chance: Random, kind: str, number: int) -> tuple[list[Header], str]:
    found = valid_headers(f"{chance.randrange(10**9)}-{number}", kind)
    said = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        said.append(_change(chance, found))
    return found, ", ".join(said)


def _change(chance: Random, found: list[Header]) -> str:
    at = chance.randrange(len(found)) if found else 0
    name = found[at][0] if found else b"ce_id"
    match chance.randrange(12):
        case 0:
            del found[at : at + 1]
            return "a missing header"
        case 1:
            found.insert(chance.randrange(len(found) + 1), (name, chance.choice(_VALUES)))
            return "a repeated header"
        case 2:
            found[at : at + 1] = [(chance.choice(_NAMES), b"v")]
            return "a renamed header"
        case 3:
            found.append((chance.choice(_NAMES), chance.choice(_VALUES)))
            return "an odd header"
        case 4:
            found[at : at + 1] = [(name, chance.choice(_VALUES))]
            return "an odd value"
        case 5:
            size = chance.choice(_SIZES[:-2] if chance.random() < 0.9 else _SIZES)
            found[at : at + 1] = [(name, chance.choice([b"a", b"\xff", b"0"]) * size)]
            return f"a value of {size} bytes"
        case 6:
            count = chance.choice([10, 993, 994, 995, 1001, 5000, 33_000])
            found[at:at] = [chance.choice([(b"", None), (b"h", b"v"), (name, b"v")])] * count
            return f"{count} headers more"
        case 7:
            _set(found, b"ce_time", chance.choice(_TIMES))
            return "an odd time"
        case 8:
            _set(found, b"traceparent", chance.choice(_TRACES))
            return "an odd trace"
        case 9:
            _set(found, b"content-type", chance.choice(_CONTENT_TYPES))
            return "an odd content type"
        case 10:
            _set(found, b"ce_type", chance.choice([*_TYPES, *[kind.encode() for kind in COMMAND_TYPES]]))
            return "another type"
        case _:
            chance.shuffle(found)
            return "another order"


def _set(found: list[Header], name: bytes, value: bytes | None) -> None:
    found[:] = [(one, value if one == name else content) for one, content in found]
    if all(one != name for one, _ in found):
        found.append((name, value))


def _valid_body(chance: Random, kind: str) -> bytes:
    if kind == "waypost.checkpoint.create":
        return b'{"name":"n","data":{"x":%d}}' % chance.randrange(1000)
    return chance.choice([b"{}", b'{"checkpoint_id":"x"}', b'{"checkpoints":[]}', b'{"max_checkpoints":50}'])


def headers(chance: Random) -> tuple[str, bytes]:
    """Return a batch of commands with changed headers."""
    commands, said, room = [], "", 1_000_000
    for number in range(chance.choice([1, 1, 3, 10])):
        kind = chance.choice([*COMMAND_TYPES, "waypost.checkpoint.create"])
        made, what = _headers(chance, kind, number)
        room -= sum(len(name) + len(value or b"") + 12 for name, value in made)
        if room < 0:
            break
        said = said or what
        value = None if chance.random() < 0.02 else _valid_body(chance, kind)
        commands.append((chance.choice(SESSIONS).encode(), value, made))
    return said or "nothing", command_batch(chance, commands)


def keys(chance: Random) -> tuple[str, bytes]:
    """Return a batch of valid commands with odd keys, and other partitions' keys."""
    commands = []
    for number in range(chance.choice([1, 3, 8])):
        key = chance.choice([*_KEYS, f"any-{chance.randrange(1000)}".encode()])
        kind = chance.choice(COMMAND_TYPES)
        commands.append(
            (key, _valid_body(chance, kind), valid_headers(f"{chance.randrange(10**9)}-{number}", kind))
        )
    key = commands[0][0]
    return "no key" if key is None else f"a key of {len(key)} bytes", command_batch(chance, commands)


def structured(chance: Random) -> tuple[str, bytes]:
    """Return a batch of commands in structured mode with changed events."""
    commands, said = [], ""
    for number in range(chance.choice([1, 1, 4])):
        kind = chance.choice([*COMMAND_TYPES, "waypost.checkpoint.create"])
        data = Members([("name", "n"), ("data", any_object(chance, 3))])
        event: object = Members(
            [
                ("specversion", "1.0"),
                ("id", f"{chance.randrange(10**9)}-{number}"),
                ("source", "/fuzz"),
                ("type", kind),
                ("time", TIME.decode()),
                ("datacontenttype", "application/json"),
                ("data", data),
            ]
        )
        what = "valid"
        for _ in range(chance.choice([0, 1, 1, 2, 4])):
            event, what = changed(chance, event, 100_000)
        value = text(chance, event)
        if chance.random() < 0.1:
            value, what = garbled(chance, value)
        said = said or what
        kept: list[Header] = [(b"content-type", b"application/cloudevents+json; charset=utf-8")]
        if chance.random() < 0.2:
            kept.append((chance.choice(_NAMES), chance.choice(_VALUES)))
        commands.append((chance.choice(SESSIONS).encode(), value[:500_000], kept))
    return said, command_batch(chance, commands[:1] if len(commands[0][1] or b"") > 100_000 else commands)
