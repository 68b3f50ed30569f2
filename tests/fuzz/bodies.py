"""Bodies of every command type: valid by its JSON Schema, then changed at a few places.

Bodies are trees whose objects are lists of members, so that a name can stand twice, and whose leaves may be any bytes.
"""

import json
import re
import string
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.commands import SESSIONS, Command, Header, command_batch, joined, valid_headers
from tests.support.expensive_bodies import LARGE_BODIES, large_body
from tests.support.hostile_batches import GZIP, LZ4, ZSTD, batch
from tests.support.variant import packed

from waypost.wire.event_types import COMMAND_TYPES

_SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "json"


class Members(list[Any]):
    """An object: pairs of a name and a value."""


class Raw(bytes):
    """A value as it stands in the text, valid or not."""


# Valid trees.
_ENCRYPTED: Final = re.compile(rb'("encrypted"\s*:\s*)true')


def schema_of(command_type: str) -> dict[str, Any]:
    """Return the published JSON Schema of a command's body."""
    loaded: dict[str, Any] = json.loads((_SCHEMAS / f"{command_type}.schema.json").read_bytes())
    return loaded


def valid(chance: Random, schema: dict[str, Any], session: str, root: dict[str, Any], field: str = "") -> Any:
    """Return a tree that the schema allows. Ids are mostly those of checkpoints that may exist."""
    if "$ref" in schema:
        return valid(chance, root["$defs"][schema["$ref"].rpartition("/")[2]], session, root, field)
    if "anyOf" in schema:
        return valid(chance, chance.choice(schema["anyOf"]), session, root, field)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema.get("type"):
        case "object" if schema.get("additionalProperties") is True:
            return any_object(chance, 3)
        case "object":
            required = schema.get("required", ())
            return Members(
                (name, valid(chance, one, session, root, name))
                for name, one in schema.get("properties", {}).items()
                if name in required or chance.random() < 0.5
            )
        case "array":
            count = min(schema.get("maxItems", 5), chance.choice([0, 1, 2, 5, 20]))
            return [valid(chance, schema["items"], session, root) for _ in range(count)]
        case "string":
            return _string(chance, session, field)
        case "integer" | "number":
            low = int(schema.get("minimum", 0))
            return chance.choice([low, low + 1, low + 10, int(schema.get("maximum", 1000))])
        case "boolean":
            return chance.random() < 0.5
        case _:
            return None


def _string(chance: Random, session: str, field: str) -> str:
    if field in ("id", "checkpoint_id"):
        own = f"{session}:{chance.choice([1, 2, 3, 7, 40, 10**6])}"
        return chance.choice(
            [own, own, own, f"foreign-{chance.randrange(5)}", f"{chance.choice(SESSIONS)}:1"]
        )
    if field == "timestamp":
        return f"20{chance.randrange(10, 40)}-0{chance.randrange(1, 10)}-1{chance.randrange(10)}T08:24:59.5Z"
    return chance.choice(["started", "done", "tool called", "日本語", "a" * chance.randrange(1, 200)])


def any_object(chance: Random, depth: int) -> Members:
    """Return a small JSON object."""
    return Members(
        (chance.choice(string.ascii_lowercase) * 3 + str(number), _any(chance, depth - 1))
        for number in range(chance.randrange(4))
    )


def _any(chance: Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth > 0 else 6)
    if kind == 7:
        return any_object(chance, depth)
    if kind == 6:
        return [_any(chance, depth - 1) for _ in range(chance.randrange(4))]
    return (None, True, chance.randrange(-(2**40), 2**40), chance.random(), "text", "")[kind]


# Changes.

_NUMBERS: Final = [
    *(b"0", b"-0", b"-1", b"1e308", b"1e309", b"-1e400", b"1E-400", b"0.1", b"1.0", b"1e2", b"2.5e0"),
    *(b"%d" % (2**power + step) for power in (31, 32, 53, 63, 64) for step in (-1, 0, 1)),
    *(b"-%d" % (2**63 + step) for step in (-1, 0, 1)),
    *(b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x10", b"1_000", b"--1"),
]
_ESCAPES: Final = [
    *(b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u2028\\u202e"', b'"\\x41"'),
    *(b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"\x00"', b'"\x1b[31m"'),
    *(b'"\n"', b'"\xc2\x9b"', b'"\xe2\x80\xae"', b'"\\uD83', b'"', b"''", b'"\\"', b'"\xef\xbb\xbf"'),
]
_TOKENS: Final = [
    b"",
    b"nul",
    b"True",
    b"[",
    b"}",
    b",",
    b"/* */ 1",
    b"undefined",
    b"[1,]",
    b'{"a":1,}',
    b'{"a"}',
]
_LENGTHS: Final = [0, 1, 63, 64, 65, 199, 200, 201, 255, 256, 257, 800, 801, 2048, 16_383, 16_384, 16_385]
# Sizes next to limits, up to the largest record that a topic takes. Drawn rarely: each is a megabyte in the log.
_LARGE: Final = [65_535, 65_536, 262_143, 262_145, 921_599, 921_600, 921_601, 1_030_000]
_UNITS: Final = [
    b"[]",
    b"{}",
    b'{"":0}',
    b"0",
    b"1e308",
    b'"{"',
    b'"\\n"',
    b"null",
    b"17000000000000000000",
    b'"\\ud800"',
]


def changed(chance: Random, tree: Any, most_bytes: int) -> tuple[Any, str]:
    """Return the tree with one change, and what it is."""
    parent, at = chance.choice(list(_places(tree)))
    old = tree if parent is None else _value(parent, at)
    what, new = _replacement(chance, old, most_bytes)
    if isinstance(parent, Members):
        name = parent[at][0]
        match chance.randrange(10):
            case 0:
                del parent[at]
                return tree, "a missing field"
            case 1:
                parent.insert(chance.randrange(len(parent) + 1), (name, new))
                return tree, f"a repeated field, {what}"
            case 2:
                known = name if isinstance(name, str) else "raw"
                odd = ["", known.upper(), f"{known} ", "\0", "x" * chance.choice(_LENGTHS), "__proto__"]
                parent[at] = (chance.choice(odd), parent[at][1])
                return tree, "a renamed field"
            case 3:
                parent.append((chance.choice(["", "extra", "é", "a\nb", Raw(b'"\\ud800"'), Raw(b"1")]), new))
                return tree, f"an unknown field, {what}"
            case _:
                parent[at] = (name, new)
    elif isinstance(parent, list):
        parent[at] = new
    else:
        tree = new
    return tree, what


def _places(tree: Any, parent: Any = None, at: int = 0) -> Iterator[tuple[Any, int]]:
    yield parent, at
    if isinstance(tree, list):
        for index in range(len(tree)):
            yield from _places(_value(tree, index), tree, index)


def _value(parent: list[Any], at: int) -> Any:
    return parent[at][1] if isinstance(parent, Members) else parent[at]


def _replacement(chance: Random, old: Any, most_bytes: int) -> tuple[str, Any]:
    large = [size for size in _LARGE if size <= most_bytes]
    length = chance.choice(large) if large and chance.random() < 0.04 else chance.choice(_LENGTHS)
    match chance.randrange(9):
        case 0:
            return "another type", chance.choice([None, True, 0, "", [], Members(), [[]], [None]])
        case 1:
            return "an odd number", Raw(chance.choice(_NUMBERS))
        case 2:
            return "an odd string", Raw(chance.choice(_ESCAPES))
        case 3:
            return "an odd token", Raw(chance.choice(_TOKENS))
        case 4:
            return f"{length} characters", chance.choice(["a", "é", "\U0001f642", '"', "\\"]) * length
        case 5:
            depth = chance.choice([1, 2, 50, 98, 99, 100, 101, 200, 1000, min(100_000, most_bytes // 12)])
            inside = Raw(text(chance, old))
            opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
            closed = depth if chance.random() < 0.8 else max(0, depth - 1)
            return f"nested {depth} levels", Raw(opening * depth + inside + closing * closed)
        case 6:
            unit = chance.choice(_UNITS)
            count = max(1, length // (len(unit) + 1))
            items = b",".join([unit] * count)
            if chance.random() < 0.5:
                return f"{count} items", Raw(b"[" + items + b"]")
            named = b",".join([b'"%x":%b' % (number, unit) for number in range(count // 2)])
            return f"{count // 2} members", Raw(b"{" + named + b"}")
        case 7:
            count = chance.choice([2, 10, 100, 1000])
            count = min(count, max(1, most_bytes // (len(text(chance, old)) + 1)))
            # Copies: a later change to one of them must not be a thousand changes, and make gigabytes.
            return f"{count} times itself", [deepcopy(old) for _ in range(count)]
        case _:
            digits = chance.choice([1, 18, 19, 20, 400, 5000])
            return f"{digits} digits", Raw(chance.choice([b"1", b"-1", b"0.", b"1e"]) + b"0" * digits)


def text(chance: Random, tree: Any) -> bytes:
    """Return the tree as JSON, with white space now and then."""
    space = b" \n" if chance.random() < 0.02 else b""
    return _text(tree, space)


def _text(tree: Any, space: bytes) -> bytes:
    if isinstance(tree, Raw):
        return bytes(tree)
    if isinstance(tree, Members):
        inside = [_text(name, b"") + space + b":" + space + _text(value, space) for name, value in tree]
        return b"{" + space + (b"," + space).join(inside) + b"}"
    if isinstance(tree, list):
        return b"[" + (b"," + space).join([_text(one, space) for one in tree]) + b"]"
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


def garbled(chance: Random, body: bytes) -> tuple[bytes, str]:
    """Return the bytes of a body with a change that knows no JSON."""
    at = chance.randrange(len(body) + 1)
    match chance.randrange(7):
        case 0:
            return body[:at], "cut off"
        case 1:
            return body[:at] + bytes((chance.randrange(256),)) + body[at + 1 :], "a changed byte"
        case 2:
            return body[:at] + body[at // 2 :], "a part repeated"
        case 3:
            return chance.choice([b"\xef\xbb\xbf", b" ", b"\n\n", b"\0", b","]) + body, "something before"
        case 4:
            return body + chance.choice([b" " * 1000, b"\0", b"}", b"\n{}", b"garbage"]), "something after"
        case 5:
            return body.decode(errors="replace").encode("utf-16"), "in UTF-16"
        case _:
            return b"", "empty"


def body(chance: Random, command_type: str, session: str, most_bytes: int = 1_030_000) -> tuple[bytes, str]:
    """Return a body of a command with zero to three changes, and what they are."""
    schema = schema_of(command_type)
    tree = valid(chance, schema, session, schema)
    said = []
    for _ in range(chance.choice([0, 0, 1, 1, 1, 2, 3])):
        tree, what = changed(chance, tree, most_bytes)
        said.append(what)
    made = text(chance, tree)
    if chance.random() < 0.1:
        made, what = garbled(chance, made)
        said.append(what)
    return made, ", ".join(said) or "valid"


def bodies(chance: Random, command_type: str) -> tuple[str, bytes]:
    """Return a batch of commands of one type with changed bodies, mostly behind an import that gives them ids."""
    session, said, room = chance.choice(SESSIONS), "", 1_030_000
    if command_type == "waypost.session.erase":  # everything that follows would be rejected
        session = f"erased-{chance.randrange(10**9)}"
    commands: list[Command] = []
    if chance.random() < 0.7:
        commands.append(
            (
                session.encode(),
                _FOREIGN,
                valid_headers(f"{chance.randrange(10**9)}", "waypost.session.import"),
            )
        )
    for number in range(chance.choice([1, 1, 2, 5, 10])):
        made, what = body(chance, command_type, session, room)
        # A session or a deployment that accepts only encrypted data would reject everything that follows.
        made = _ENCRYPTED.sub(rb"\1null", made)
        if len(made) > room:
            continue
        room -= len(made) + 500
        said = said or what
        key = None if command_type == "waypost.defaults.configure" else session.encode()
        command_id = f"{chance.randrange(10**9)}-{number}"
        commands.append((key, made, valid_headers(command_id, command_type)))
    return said or "nothing", command_batch(chance, commands)


def large(chance: Random) -> tuple[str, bytes]:
    """Return a batch with a body of megabytes, in some kilobytes."""
    size = chance.choice([1, 2, 8, 15, 16]) * 1_000_000
    made = large_body(chance.randrange(len(LARGE_BODIES)), size)
    body, said = made.body, made.what
    if chance.random() < 0.3:
        body, what = garbled(chance, body)
        said = f"{said}, {what}"
    kind = made.kind if chance.random() < 0.8 else chance.choice(COMMAND_TYPES)
    headers: list[Header] = valid_headers(f"{chance.randrange(10**9)}", kind)
    if chance.random() < 0.3:
        event = b'"specversion":"1.0","id":"%d","source":"s","type":"%b"' % (
            chance.randrange(10**9),
            kind.encode(),
        )
        body, said = b'{"data":%b,%b}' % (body, event), f"{said}, in an event"
        if chance.random() < 0.3:
            body = body.replace(b'"data"', b'"id"', 1)
        headers = [(b"content-type", b"application/cloudevents+json")]
    key = None if kind == "waypost.defaults.configure" else chance.choice(SESSIONS).encode()
    data = joined([(key, body, headers)])
    codec = chance.choice([GZIP, ZSTD, ZSTD, LZ4])
    raw = batch(packed(codec, data), 1, codec)
    if len(raw) > 1_000_000:
        raw = batch(packed(ZSTD, data), 1, ZSTD)
    return f"{len(body) // 10**6} MB: {said}", raw


_FOREIGN: Final = (
    b'{"on_conflict":"replace","checkpoints":['
    + b",".join(
        [
            b'{"id":"foreign-%d","name":"n","timestamp":"2026-11-24T08:24:59Z","data":{"n":%d}}'
            % (number, number)
            for number in range(5)
        ]
    )
    + b"]}"
)
