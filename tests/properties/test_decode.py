"""Command bodies as bytes: both ways of reading a create agree with each other and with a plain oracle.

The oracle is Python's own json with the contract's limits written out; it shares nothing with the product.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from tests.properties.json_texts import create_bodies, objects
from tests.properties.naive import looks_encrypted
from tests.support.encrypted_data import ENCRYPTED, NEARLY_ENCRYPTED, compact

from waypost.errors import InvalidCommandError
from waypost.model.commands import Action, Create, Import
from waypost.wire.decode import _general_create, _plain_create, parse_body
from waypost.wire.event_types import COMMAND_TYPES, EventType

examples = settings(deadline=None, max_examples=200)


def parse_create(body: bytes) -> Action:
    return parse_body(EventType.CREATE, body)


def outcome(parse: Callable[[bytes], Action], body: bytes) -> Action | str:
    """What came of a body: the action, or the code of its rejection."""
    try:
        return parse(body)
    except InvalidCommandError as refusal:
        return refusal.code


@st.composite
def nearly_encrypted(draw: st.DrawFn) -> bytes:
    """Bodies with data that is encrypted but for a few bytes."""
    data = bytearray(draw(st.sampled_from([compact(ENCRYPTED), *NEARLY_ENCRYPTED])))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from(b'"\\}{,:=A/ -\x7f\x00\xff'))
    return b'{"name":"x","data":' + data + draw(st.sampled_from([b"}", b" }", b',"metadata":{}}']))


@settings(deadline=None, max_examples=500)
@given(nearly_encrypted())
@example(b'{"name":"x","data":' + compact(ENCRYPTED) + b"}")
def test_both_ways_agree_on_data_that_is_nearly_encrypted(body: bytes) -> None:
    found = outcome(parse_create, body)
    assert found == outcome(_general_create, body)
    if isinstance(found, Create):
        event(f"encrypted: {found.encrypted}")
        assert looks_encrypted(found.data) or not found.encrypted


@settings(deadline=None, max_examples=500)
@given(create_bodies())
@example(b'{"name":"x","data":{} }')
@example(b'{"name":"x","metadata":{"a":' + b"[" * 101 + b"]" * 101 + b'},"data":{}}')
@example(b'{"name":"x","metadata":{"a":"}"},"data":{}}')
@example(b'{"name":"x","data":{"a":18446744073709551616}}')
@example(b'{"name":"x","metadata":{"a":-9223372036854775809},"data":{}}')
def test_the_fast_way_and_the_general_way_agree(body: bytes) -> None:
    found = outcome(parse_create, body)
    event(found if isinstance(found, str) else "accepted")
    event(f"fast: {not isinstance(found, str) and _plain_create(body) is not None}")
    assert found == outcome(_general_create, body)


@examples
@given(create_bodies())
def test_a_create_is_accepted_exactly_if_the_contract_allows_it(body: bytes) -> None:
    found = outcome(parse_create, body)
    assert (found if isinstance(found, str) else "accepted") == verdict(body)


def is_good_data(text: str) -> bool:
    return verdict(f'{{"name":"x","data":{text}}}'.encode("utf-8", "surrogatepass")) == "accepted"


good_objects = objects.filter(is_good_data)
spaces = st.sampled_from(["", " ", "\n\t "])


@examples
@given(good_objects, spaces, st.booleans())
def test_data_is_kept_byte_for_byte(data: str, space: str, first: bool) -> None:
    fields = [f'{space}"data"{space}:{space}{data}{space}', f'"name":{space}"x"']
    body = "{" + ",".join(fields if first else fields[::-1]) + "}"
    action = parse_create(body.encode())
    assert isinstance(action, Create)
    assert action.data == data.encode()


@examples
@given(st.lists(good_objects, max_size=4), spaces)
def test_data_of_imports_is_kept_byte_for_byte(texts: list[str], space: str) -> None:
    items = [
        f'{{{space}"timestamp":"2026-11-24T08:24:59Z",{space}"data"{space}:{space}{data}{space},'
        f'"id":"a:{index}","name":"n"}}'
        for index, data in enumerate(texts)
    ]
    body = f'{{"checkpoints"{space}:{space}[{space}{f"{space},{space}".join(items)}{space}]{space}}}'
    action = parse_body(EventType.IMPORT, body.encode())
    assert isinstance(action, Import)
    assert [item.data for item in action.checkpoints] == [data.encode() for data in texts]
    assert [item.id for item in action.checkpoints] == [f"a:{index}" for index in range(len(texts))]


@examples
@given(
    st.sampled_from([*COMMAND_TYPES, EventType.CREATED, ""]),
    st.one_of(st.binary(), create_bodies()),
)
def test_no_body_whatever_ends_in_another_error(command_type: str, body: bytes) -> None:
    found = outcome(lambda body: parse_body(command_type, body), body)
    if isinstance(found, str):
        assert found in ("invalid-body", "too-large", "unsupported-type")


# The oracle.


class Broken(Exception):
    """The body breaks the contract."""


def verdict(body: bytes) -> str:
    """``accepted`` or a rejection code, by Python's json and the words of the contract."""
    try:
        value = strictly(body)
        if not isinstance(value, dict) or set(value) - {"metadata"} != {"name", "data"}:
            raise Broken
        name, data, metadata = value["name"], value["data"], value.get("metadata", {})
        if not isinstance(name, str) or not 1 <= len(name) <= 200:
            raise Broken
        if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
            raise Broken
        if not isinstance(data, dict) or not isinstance(metadata, dict):
            raise Broken
        if max(depth(data), depth(metadata)) > 100 or holds_nul(metadata):
            raise Broken
    except Broken:
        return "invalid-body"
    return "accepted"


def strictly(body: bytes) -> Any:
    """The body as JSON of 64-bit integers and finite floats, in UTF-8, its outermost keys once each."""

    def integer(digits: str) -> int:
        if len(digits) > 21 or not -(2**63) <= int(digits) < 2**64:
            raise Broken
        return int(digits)

    def number(text: str) -> float:
        if math.isinf(float(text)):
            raise Broken
        return float(text)

    def constant(_: str) -> float:
        raise Broken

    outermost: list[tuple[str, Any]] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        json.dumps(pairs, ensure_ascii=False).encode()  # fails at a lone surrogate
        outermost[:] = pairs  # the outermost object is complete last
        return dict(pairs)

    try:
        value = json.loads(
            body.decode(),
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
            object_pairs_hook=members,
        )
    except ValueError:
        raise Broken from None
    if isinstance(value, dict) and len(outermost) != len(value):
        raise Broken
    return value


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
