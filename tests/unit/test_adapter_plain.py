"""What adapters store as plain data: readable, complete, bounded, and never an object."""

import base64
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import orjson
import pytest
from agent_framework import Message
from agent_framework._workflows._checkpoint_encoding import encode_checkpoint_value
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from tests.support.hostile_values import hostile_pickles, hostile_values, nested_extensions, packed, slug
from tests.support.trap import Trap

from waypost.adapters import _langgraph_layout as layout
from waypost.adapters.langgraph import StrictSerializer
from waypost.adapters.plain import TypedValue, plain_data, plain_value

NAMES = [each.name for each in hostile_values(Path("x"))]


def base(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("name", NAMES, ids=slug)
def test_a_hostile_value_is_text_and_nothing_runs(name: str, trap: Trap) -> None:
    value = next(each for each in hostile_values(trap.marker) if each.name == name)
    modules = set(sys.modules)
    record = {"values": [{"digest": "d", "type": value.kind, "base64": base(value.raw)}]}
    try:
        shown = plain_data(record)
    except ValueError as error:
        assert "to be shown" in str(error)  # noqa: PT017 - only what is too deep or too much
        assert "nested" in name or "lists in lists" in name
    else:
        text = orjson.dumps(shown).decode()
        if value.type_name is not None and value.kind == "msgpack":
            assert (value.type_name in text) or (value.type_name == "re:Pattern" and "re:compile" in text)
    assert not trap.sprung()
    assert set(sys.modules) == modules


@pytest.mark.parametrize("name", hostile_pickles(Path("x")), ids=slug)
def test_a_pickle_stays_closed(name: str, trap: Trap) -> None:
    raw = hostile_pickles(trap.marker)[name]
    stored = {"state": [{"__pickled__": base(raw), "__type__": "x:Y\n"}]}
    assert plain_data(stored) == {"state": [TypedValue("x:Y\\n", TypedValue("pickle", base(raw)))]}
    assert not trap.sprung()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (b"x", TypedValue("builtins:bytes", base(b"x"))),
        (bytearray(b"x"), TypedValue("builtins:bytearray", base(b"x"))),
        ({"a": [1, -1, 2.5, "ü", None, True]}, {"a": [1, -1, 2.5, "ü", None, True]}),
        ({1: "x", "1": "y"}, TypedValue("builtins:dict", [[1, "x"], ["1", "y"]])),
        (Decimal("1.5"), TypedValue("decimal:Decimal", "1.5")),
        (datetime(2026, 1, 1, tzinfo=UTC), TypedValue("datetime:datetime", "2026-01-01T00:00:00+00:00")),
        (Send("n", {1}), TypedValue("langgraph.types:Send", ["n", TypedValue("builtins:set", [1])])),
        (
            _DeltaSnapshot([b"x"]),
            TypedValue(
                "langgraph.checkpoint.serde.types:_DeltaSnapshot", [TypedValue("builtins:bytes", base(b"x"))]
            ),
        ),
        (
            numpy.array([1, 2], dtype="<i2"),
            TypedValue(
                "numpy:ndarray",
                {"dtype": "<i2", "shape": [2], "order": "C", "data": base(b"\x01\0\x02\0")},
            ),
        ),
        ("x" * 70_000, "x" * 70_000),
        (list(range(70_000)), list(range(70_000))),
        ({str(each): each for each in range(40_000)}, {str(each): each for each in range(40_000)}),
        (b"x" * 70_000, TypedValue("builtins:bytes", base(b"x" * 70_000))),
    ],
    ids=slug,
)
def test_values_as_plain_data(value: Any, shown: Any) -> None:
    assert plain_value(*StrictSerializer().dumps_typed(value)) == shown


def test_a_record_of_a_thread_as_plain_data() -> None:
    checkpoint: Any = {
        **empty_checkpoint(),
        "channel_values": {"messages": [HumanMessage("hi", id="1")]},
        "channel_versions": {"messages": "1"},
    }
    _, record = layout.checkpoint_records(
        StrictSerializer(), {}, checkpoint, {"source": "loop", "step": 1}, {"messages": "1"}
    )
    shown = plain_data(record.data)
    assert shown["metadata"] == {"source": "loop", "step": 1}
    assert shown["checkpoint"]["channel_versions"] == {"messages": "1"}
    (value,) = shown["values"]
    assert value["digest"] == record.data["values"][0]["digest"]
    (message,) = value["value"]
    assert message.type == "langchain_core.messages.human:HumanMessage"
    assert (message.value["content"], message.value["id"]) == ("hi", "1")


def test_a_record_of_the_agent_framework_as_plain_data() -> None:
    encoded = encode_checkpoint_value({"state": {"message": Message(role="user", contents=["hi"]), "n": 1}})
    shown = plain_data({"checkpoint": encoded})["checkpoint"]["state"]
    assert shown["n"] == 1
    assert shown["message"].type == "agent_framework._types:Message"
    assert shown["message"].value.type == "pickle"


@pytest.mark.parametrize(
    "data",
    [
        {"item": {"type": "message", "base64": "x"}},
        {"type": 1, "base64": "x"},
        {"type": "msgpack", "base64": 1},
        {"__pickled__": 1, "__type__": "x"},
        {"__type__": "x"},
        [1, "x", None, {"a": []}],
    ],
)
def test_other_data_stays_as_it_is(data: Any) -> None:
    assert plain_data(data) == data


@pytest.mark.parametrize(
    ("kind", "encoded", "why"),
    [
        ("msgpack", "?", "base64"),
        ("msgpack", base(b""), "too early"),
        ("msgpack", base(b"\xc1"), "unknown mark 0xc1"),
        ("msgpack", base(b"\xc0\xc0"), "1 bytes follow"),
        ("json", base(b"{"), "Expecting"),
    ],
)
def test_a_damaged_value_is_shown_as_such(kind: str, encoded: str, why: str) -> None:
    shown = plain_data({"type": kind, "base64": encoded})
    assert shown.type == f"unreadable {kind}"
    assert why in shown.value


def test_what_would_take_too_long_is_an_error() -> None:
    many = packed([None] * 1_001)
    with pytest.raises(ValueError, match="too many parts"):
        plain_value("msgpack", many, max_values=1_000)
    with pytest.raises(ValueError, match="too many parts"):
        plain_data([{"type": "msgpack", "base64": base(packed([None] * 300))}] * 4, max_values=1_000)
    assert plain_value("msgpack", many, max_values=1_002) == [None] * 1_001
    deep: Any = None
    for _ in range(200):
        deep = [deep]
    for raw in (packed(deep), nested_extensions(200), b"\x91" * 1_000_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            plain_value("msgpack", raw)
    with pytest.raises(ValueError, match="nested too deeply"):
        plain_data(deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        plain_value("json", b"[" * 100_000)


def test_names_are_printable_and_short() -> None:
    raw = packed([1])
    assert plain_value("x\x1b[31m\n" + "y" * 500, raw).type == "x\\x1b[31m\\n" + "y" * 193 + "…"
