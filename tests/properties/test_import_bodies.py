"""Imports as bytes: accepted or rejected exactly as an oracle says that version 0.1 did it.

The oracle is Python's own json with the order of the checks written out. That order is part of the contract, for the
code of a rejection is in the result: what is wrong with the form of any item comes before what is wrong with the size
of an earlier one.
"""

import json
import math
from typing import Any
from unittest.mock import patch

from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from tests.properties.generate import weighted
from tests.properties.json_texts import objects, space, strings, values

from waypost.errors import InvalidCommandError
from waypost.model import limits
from waypost.model.commands import Import
from waypost.wire import decode
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType

MAX_DATA, MAX_METADATA, MAX_ITEMS = 40, 30, 4
examples = settings(deadline=None, max_examples=600)

_ids = weighted(
    (60, st.sampled_from(['"a:1"', '"b"', '"é"'])), (2, strings), (1, st.just('"' + "i" * 257 + '"'))
)
_names = weighted((60, st.sampled_from(['"n"', '"x"'])), (2, strings), (1, st.just('""')))
_times = weighted(
    (40, st.sampled_from(['"2026-11-24T08:24:59Z"', '"2026-11-24T08:24:59.123456Z"'])),
    (1, st.sampled_from(['"2026-11-24"', "1", '""', '"2026-11-24T08:24:59+25:00"'])),
    (4, st.just('"2026-11-24t08:24:59.1234567+01:00"')),
)
_large = st.just('{"a":"' + "x" * 50 + '"}')
_small = st.sampled_from(["{}", '{"a":"]}"}', '{ "a" : [1.5, -0.0] }', '{"a":{"b":[[]]},"c":1e16}'])
_data = weighted((40, _small), (4, objects), (4, _large), (1, values))
_extra = st.sampled_from(["id", "data", "metadata", "more"])


@st.composite
def items(draw: st.DrawFn) -> str:
    fields = [("id", draw(_ids)), ("name", draw(_names)), ("timestamp", draw(_times)), ("data", draw(_data))]
    if draw(st.booleans()):
        fields.append(("metadata", draw(_data)))
    if draw(st.integers(0, 24)) == 0:
        fields.insert(draw(st.integers(0, 4)), (draw(_extra), draw(_data)))
    if draw(st.integers(0, 24)) == 0:
        del fields[draw(st.integers(0, 3))]
    if draw(st.integers(0, 3)) == 0:
        fields = draw(st.permutations(fields))
    gap = draw(space) if draw(st.integers(0, 3)) == 0 else ""
    text = "{" + gap + f",{gap}".join(f'"{key}"{gap}:{gap}{value}' for key, value in fields) + gap + "}"
    return draw(weighted((80, st.just(text)), (1, values)))


@st.composite
def import_bodies(draw: st.DrawFn) -> bytes:
    listed = f"[{','.join(draw(st.lists(items(), max_size=5)))}]"
    fields = [("checkpoints", draw(weighted((60, st.just(listed)), (1, values))))]
    if draw(st.integers(0, 2)) == 0:
        conflict = weighted((30, st.sampled_from(['"skip"', '"replace"', '"reject"'])), (1, values))
        fields.insert(draw(st.integers(0, 1)), ("on_conflict", draw(conflict)))
    if draw(st.integers(0, 19)) == 0:
        fields.append((draw(st.sampled_from(["checkpoints", "on_conflict", "more"])), draw(values)))
    text = "{" + ",".join(f'"{key}":{value}' for key, value in fields) + "}"
    return text.encode("utf-8", "surrogatepass")


@examples
@given(import_bodies())
@example(
    b'{"checkpoints":[{"id":"a","name":"n","timestamp":"2026-11-24T08:24:59Z","data":{"a":"%b"}},{}]}'
    % (b"x" * 50)
)
@example(
    b'{"checkpoints":[%b]}'
    % b",".join([b'{"id":"a","name":"n","timestamp":"2026-11-24T08:24:59Z","data":{}}'] * 5)
)
def test_an_import_is_judged_as_it_always_was(body: bytes) -> None:
    with (
        patch.object(decode, "MAX_DATA_BYTES", MAX_DATA),
        patch.object(decode, "MAX_IMPORT_ITEMS", MAX_ITEMS),
        patch.object(limits, "MAX_METADATA_BYTES", MAX_METADATA),
    ):
        found = outcome(body)
        wanted = verdict(body)
    event(wanted if isinstance(wanted, str) else f"{len(wanted)} items")
    assert found == wanted


def outcome(body: bytes) -> str | list[tuple[str, str]]:
    """The code of a rejection, or id and name of each item."""
    try:
        action = parse_body(EventType.IMPORT.value, body)
    except InvalidCommandError as refusal:
        return refusal.code
    assert isinstance(action, Import)
    return [(item.id, item.name) for item in action.checkpoints]


class Refused(Exception):
    """The body breaks the contract; the only argument is the code."""


class Members(dict[str, Any]):
    """A JSON object that knows whether a key was repeated, and in how many bytes each value was written."""

    repeated = False


def verdict(body: bytes) -> str | list[tuple[str, str]]:
    try:
        return judge(body)
    except Refused as refusal:
        return str(refusal.args[0])


def judge(body: bytes) -> list[tuple[str, str]]:
    value = strictly(body)
    require(isinstance(value, Members) and depth(value) <= 103)
    require(set(value) - {"on_conflict"} == {"checkpoints"})
    require(value.get("on_conflict", "skip") in ("skip", "replace", "reject"))
    listed = value["checkpoints"]
    require(isinstance(listed, list))
    for item in listed:
        require(isinstance(item, Members))
        require(set(item) - {"metadata"} == {"id", "name", "timestamp", "data"})
        require(is_text(item["id"], 256) and is_text(item["name"], 200))
        require(isinstance(item["timestamp"], str) and is_time(item["timestamp"]))
        require(isinstance(item["data"], dict) and isinstance(item.get("metadata", {}), dict))
    require(len(listed) <= MAX_ITEMS and not value.repeated)
    sizes = data_sizes(body.decode(), len(listed))
    for item, size in zip(listed, sizes, strict=True):
        require(not item.repeated)
        require(size <= MAX_DATA, "too-large")
        metadata = item.get("metadata", {})
        require(canonical_size(metadata) <= MAX_METADATA, "too-large")
        require(not holds_nul(metadata))
    return [(item["id"], item["name"]) for item in listed]


def require(condition: bool, code: str = "invalid-body") -> None:
    if not condition:
        raise Refused(code)


def strictly(body: bytes) -> Any:
    def integer(digits: str) -> int:
        require(len(digits) <= 21 and -(2**63) <= int(digits) < 2**64)
        return int(digits)

    def number(text: str) -> float:
        require(not math.isinf(float(text)))
        return float(text)

    def constant(_: str) -> float:
        raise Refused("invalid-body")

    def made(pairs: list[tuple[str, Any]]) -> Members:
        json.dumps(pairs, ensure_ascii=False).encode()  # fails at a lone surrogate
        found = Members(pairs)
        found.repeated = len(found) < len(pairs)
        return found

    try:
        value = json.loads(
            body.decode(),
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
            object_pairs_hook=made,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused("invalid-body") from None
    return value


def data_sizes(text: str, count: int) -> list[int]:
    """In how many bytes the data of each item was written."""
    spans: list[int] = []
    scanner = json.JSONDecoder().raw_decode

    def skip(at: int) -> int:
        while text[at] in " \t\n\r":
            at += 1
        return at

    at = text.index("[", text.index('"checkpoints"')) + 1
    for _ in range(count):
        at = skip(skip(at) + 1)
        size = 0
        while text[at] != "}":
            key, at = scanner(text, at)
            start = skip(skip(at) + 1)
            _, at = scanner(text, start)
            if key == "data":
                size = len(text[start:at].encode())
            at = skip(at)
            at = skip(at + (text[at] == ","))
        spans.append(size)
        at = skip(at + 1) + 1
    return spans


def canonical_size(value: dict[str, Any]) -> int:
    def plain(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: plain(item) for key, item in one.items()}
        if isinstance(one, list):
            return [plain(item) for item in one]
        if isinstance(one, float):
            if one == 0:
                return 0.0
            return int(one) if abs(one) >= 1e16 and -(2**63) <= one <= 2**64 - 1 else one
        return one

    written = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    # Python writes 1e-05 and 1e+16 where orjson writes 1e-5 and 1e16.
    return len(written.replace("e-0", "e-").replace("e+", "e").encode())


def is_text(value: Any, longest: int) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        return False
    return not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value)


def is_time(text: str) -> bool:
    return text in (
        "2026-11-24T08:24:59Z",
        "2026-11-24T08:24:59.123456Z",
        "2026-11-24t08:24:59.1234567+01:00",
    )


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(holds_nul(key) or holds_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(holds_nul, value))
    return isinstance(value, str) and "\0" in value
