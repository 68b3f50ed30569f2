"""What a publisher builds, a worker accepts, and both mean the same."""

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.properties import python_values
from tests.properties.generate import policies
from tests.support.commands import create_body

from waypost.errors import InvalidCommandError
from waypost.model.brackets import nests_deeper
from waypost.model.commands import (
    Action,
    Configure,
    ConfigureDefaults,
    Create,
    Delete,
    Import,
    Pin,
    Rollback,
    Unpin,
)
from waypost.model.limits import canonical_metadata
from waypost.wire import encode
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType

examples = settings(deadline=None, max_examples=150)


@examples
@given(python_values.names, python_values.data, st.one_of(st.none(), python_values.metadata))
def test_a_create(name: str, data: dict[str, Any], metadata: dict[str, Any] | None) -> None:
    body = create_body(name, data, metadata)
    action = parse_body(EventType.CREATE, body)
    assert action == encode.create_action(name, data, metadata)
    assert isinstance(action, Create)
    assert action.name == name
    assert repr(orjson.loads(action.data)) == repr(data)  # tells 1 from 1.0 and -0.0 from 0.0
    assert orjson.loads(action.metadata) == (metadata or {})


@examples
@given(st.text(python_values.characters, max_size=260))
def test_a_checkpoint_id(identifier: str) -> None:
    expected: dict[str, Action] = {
        EventType.PIN: Pin(identifier),
        EventType.UNPIN: Unpin(identifier),
        EventType.DELETE: Delete(identifier),
    }
    try:
        body = encode.checkpoint_body(identifier)
    except InvalidCommandError:
        body = orjson.dumps({"checkpoint_id": identifier})
        for command_type in expected:
            with pytest.raises(InvalidCommandError):
                parse_body(command_type, body)
        return
    for command_type, action in expected.items():
        assert parse_body(command_type, body) == action
    for discard in (False, True):
        rollback = parse_body(EventType.ROLLBACK, encode.rollback_body(identifier, discard))
        assert rollback == Rollback(identifier, discard)


@examples
@given(
    policies,
    st.one_of(
        st.none(), st.integers(1, 10**9), st.floats(1e-6, 3e9), st.sampled_from([1e-6, 1.4e-6, 3_155_760_000])
    ),
)
def test_a_policy(changes: dict[str, Any], max_age: float | None) -> None:
    changes["max_age"] = max_age
    found = encode.policy_changes(changes)
    body = encode.policy_body(changes)
    assert parse_body(EventType.CONFIGURE, body) == Configure(found)
    assert parse_body(EventType.CONFIGURE_DEFAULTS, body) == ConfigureDefaults(found)
    assert {field: value for field, value in found if field != "max_age"} == {
        field: value for field, value in changes.items() if field != "max_age"
    }
    micros = dict(found)["max_age"]
    if max_age is None or micros is None:
        assert max_age is micros is None
    else:
        assert micros == pytest.approx(max_age * 1_000_000, rel=1e-15, abs=0.5)


@examples
@given(
    st.lists(st.tuples(python_values.names, python_values.data, python_values.metadata), max_size=4),
    st.sampled_from(["skip", "replace", "reject"]),
)
def test_an_import(items: list[tuple[str, dict[str, Any], dict[str, Any]]], on_conflict: Any) -> None:
    listed = [
        {
            "id": f"a:{i}",
            "name": name,
            "timestamp": "2026-11-24T08:24:59.5Z",
            "data": data,
            "metadata": metadata,
        }
        for i, (name, data, metadata) in enumerate(items)
    ]
    action = parse_body(
        EventType.IMPORT, encode.import_body([orjson.dumps(item) for item in listed], on_conflict)
    )
    assert isinstance(action, Import)
    assert action.on_conflict == on_conflict
    for item, (name, data, metadata) in zip(action.checkpoints, items, strict=True):
        assert (item.name, item.metadata) == (name, encode.metadata_json(metadata))
        assert item.data == orjson.dumps(data)


@examples
@given(python_values.metadata)
@example({"a": 1e16, "b": -0.0, "c": [2.0**64, 1e300, 1.5, 10.0], "d": -1e19})
def test_canonical_metadata_is_a_fixed_point_that_survives_jsonb(metadata: dict[str, Any]) -> None:
    raw = encode.metadata_json(metadata)
    assert canonical_metadata(orjson.loads(raw)) == raw
    assert canonical_metadata(orjson.loads(as_jsonb(raw))) == raw
    assert orjson.loads(raw) == metadata


@examples
@given(python_values.data, st.integers(0, 6))
def test_depth_is_counted_right_whatever_the_strings_hold(data: dict[str, Any], levels: int) -> None:
    for raw in (orjson.dumps(data), json.dumps(data).encode()):
        assert nests_deeper(raw, levels) == (depth(data) > levels)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def as_jsonb(raw: bytes) -> str:
    """What Postgres prints for a jsonb: numbers are decimals without exponent and without negative zero."""

    class Digits(str):
        __slots__ = ()

    def number(text: str) -> Digits:
        decimal = Decimal(text)
        return Digits(format(abs(decimal) if decimal == 0 else decimal, "f"))

    def write(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(key)}: {write(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(write, value)) + "]"
        return value if isinstance(value, Digits) else json.dumps(value)

    return write(json.loads(raw, parse_float=number, parse_int=number))
