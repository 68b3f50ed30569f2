"""LangGraph values from strangers: nothing in them is imported, built or run, and the error says what was asked for."""

import base64
import dataclasses
import enum
import re
import subprocess
import sys
from collections import deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy
import orjson
import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import GetOp, Item
from langgraph.types import Command, Interrupt, Overwrite, PregelTask, Send, StateSnapshot, TimeoutPolicy
from pydantic import BaseModel, Field, RootModel, SecretStr, field_validator
from pydantic.v1 import BaseModel as BaseModel1
from tests.support.hostile_values import Hostile, ext, hostile_values, packed, slug
from tests.support.trap import UNKNOWN, Trap

from waypost import WaypostError
from waypost.adapters import TypeNotAllowedError, UnreadableValueError
from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_delta import histories, look_at, walk_from
from waypost.adapters._langgraph_serializer import _known
from waypost.adapters.langgraph import StrictSerializer
from waypost.adapters.records import Record, Row

NAMES = [each.name for each in hostile_values(Path("x"))]
LIVING = [each.name for each in hostile_values(Path("x")) if each.lives]


def hostile(name: str, trap: Trap) -> Hostile:
    return next(each for each in hostile_values(trap.marker) if each.name == name)


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Order:
    """Holds more of the application's types."""

    color: Color
    points: list[Point]
    at: datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    number: int


class Person(BaseModel):
    name: str
    order: Order | None = None
    born: date | None = None


class Aliased(BaseModel):
    full_name: str = Field(alias="fullName")


class Names(RootModel[list[str]]):
    pass


class Old(BaseModel1):
    name: str


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    inside: T


class Outer:
    @dataclasses.dataclass
    class Inner:
        number: int


class Stamp(datetime):
    pass


class Positive(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def positive(cls, number: int) -> int:
        if number <= 0:
            raise ValueError("not positive")
        return number


def test_as_many_constructs_as_a_reader_could_fall_for() -> None:
    assert len(NAMES) == len(set(NAMES)) > 55
    assert len(LIVING) > 15


@pytest.mark.parametrize("name", LIVING, ids=slug)
def test_langgraphs_own_serializer_runs_it(name: str, trap: Trap) -> None:
    value = hostile(name, trap)
    found = JsonPlusSerializer(allowed_msgpack_modules=True).loads_typed((value.kind, value.raw))
    if isinstance(found, subprocess.Popen):
        found.wait()
    assert trap.sprung()


@pytest.mark.parametrize("name", NAMES, ids=slug)
def test_a_hostile_value_is_an_error_and_runs_nothing(name: str, trap: Trap) -> None:
    value = hostile(name, trap)
    with pytest.raises(UnreadableValueError) as caught:
        StrictSerializer().loads_typed((value.kind, value.raw))
    assert not trap.sprung()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 800
    assert isinstance(caught.value, WaypostError)
    if value.type_name is not None:
        assert value.type_name in message
    if value.type_name is not None and value.kind == "msgpack":
        assert isinstance(caught.value, TypeNotAllowedError)
        assert value.type_name in caught.value.type_names
        assert "allowed_types of WaypostSaver" in message


def rows_of(record: Record, others: list[Record]) -> list[Row]:
    return [
        Row(number, each.name, orjson.dumps(each.data), each.metadata, datetime.now(UTC), each is record)
        for number, each in enumerate([*others, record], 1)
    ]


def stored(part: str, value: Hostile) -> list[Row]:
    """A checkpoint with its value and a write, one part of which a stranger wrote."""
    serde = StrictSerializer()
    checkpoint: Any = {
        **empty_checkpoint(),
        "channel_values": {"notes": ["x"]},
        "channel_versions": {"notes": 1},
    }
    _, record = layout.checkpoint_records(serde, {}, checkpoint, {"source": "loop"}, {"notes": 1})
    config = {"checkpoint_id": checkpoint["id"]}
    writes = layout.writes_record(serde, config, [("notes", ["y"])], "task", "")
    typed = {"type": value.kind, "base64": base64.b64encode(value.raw).decode()}
    if part in ("checkpoint", "metadata"):
        record.data[part] = typed
    elif part == "value":
        record.data["values"][0].update(typed)
    else:
        writes.data["writes"][0].update(typed)
    return rows_of(record, [writes])


@pytest.mark.parametrize("part", ["checkpoint", "metadata", "value", "write"])
@pytest.mark.parametrize(
    "name",
    ["one argument: os.system", "JSON: a constructor", "a pickle", "in a message"],
    ids=slug,
)
def test_the_error_says_where_in_a_thread_it_is(part: str, name: str, trap: Trap) -> None:
    rows = stored(part, hostile(name, trap))
    with pytest.raises(UnreadableValueError) as caught:
        layout.tuples("t", rows, StrictSerializer())
    assert not trap.sprung()
    (note,) = caught.value.__notes__
    assert ("channel 'notes'" in note) == (part in ("value", "write"))
    assert rows[-1].metadata["id"] in note or part == "write"


@pytest.mark.parametrize("entry", [{}, {"type": "msgpack"}, {"type": "msgpack", "base64": "abc"}, None, [1]])
def test_a_value_that_is_not_in_the_form_of_one_is_an_error(entry: Any) -> None:
    with pytest.raises(UnreadableValueError, match="lacks a type and data"):
        layout.loaded(StrictSerializer(), entry, "here")


def test_delta_channels_are_as_strict(trap: Trap) -> None:
    system = hostile("one argument: os.system", trap)
    parents = stored("checkpoint", system)
    parent = parents[-1].metadata["id"]
    told = {"ns": "", "id": "z", "parent": parent, "needs": [], "holds": []}
    child = Row(9, layout.CHECKPOINT, b"{}", told, datetime.now(UTC))
    walk = walk_from([*parents, child], "", "z", ["notes"])
    with pytest.raises(TypeNotAllowedError):
        look_at(walk, 0, parents[-1:], StrictSerializer())
    parents = stored("value", system)
    child = Row(
        9,
        layout.CHECKPOINT,
        b"{}",
        {**child.metadata, "parent": parents[-1].metadata["id"]},
        child.recorded_at,
    )
    walk = walk_from([*parents, child], "", "z", ["notes"])
    look_at(walk, 0, parents[-1:], StrictSerializer())
    assert walk.ends
    with pytest.raises(TypeNotAllowedError):
        histories(walk, ["notes"], parents, StrictSerializer())
    assert not trap.sprung()


PLAIN = [
    *(None, True, 1, 2.5, "text ü", b"bytes", bytearray(b"more"), [1, [2]], {"a": {1: "b"}}, (1, 2)),
    *(datetime(2026, 11, 30, 12, tzinfo=UTC), datetime(2026, 11, 30), date(2026, 11, 30), time(1, 2, 3)),
    *(time(1, tzinfo=timezone(timedelta(hours=2), "x")), timedelta(days=1, microseconds=2), UTC),
    *(UUID(int=7), Decimal("1.50"), {1, 2}, frozenset({3}), deque([1, 2]), ZoneInfo("Europe/Oslo")),
    *(ip_address("10.0.0.1"), ip_interface("10.0.0.1/8"), ip_network("10.0.0.0/8")),
    *(ip_address("::1"), ip_interface("::1/64"), ip_network("::/64"), Path("/a/b")),
    *({"nested": [{UUID(int=8)}, {"at": datetime(2026, 1, 1)}]}, [Path("x")]),
]
OF_LANGGRAPH = [
    HumanMessage("hi", id="1", additional_kwargs={"at": datetime(2026, 1, 1)}),
    AIMessage("yes", tool_calls=[{"name": "search", "args": {"q": "x"}, "id": "call-1"}]),
    AIMessageChunk("ye", tool_call_chunks=[{"name": "s", "args": '{"q"', "id": "1", "index": 0}]),
    *(SystemMessage("be kind"), ToolMessage("found", tool_call_id="call-1", artifact={"n": Decimal(1)})),
    *(ChatMessage("x", role="critic"), FunctionMessage("x", name="f"), RemoveMessage(id="1")),
    Document("text", metadata={"page": 1}),
    *(Send("node", {"x": 1}), Send("node", [HumanMessage("x")], timeout=timedelta(seconds=3))),
    *(Interrupt("sure?", id="i"), TimeoutPolicy(run_timeout=timedelta(seconds=1)), Overwrite([1])),
    Command(update={"notes": [HumanMessage("x")]}, goto=[Send("a", 1)], resume={"i": "yes"}),
    PregelTask("1", "node", ("a", 1), None, (), None, None),
    StateSnapshot({"x": 1}, ("n",), {"configurable": {}}, None, None, None, (), ()),
    GetOp(("a", "b"), "key"),
    _DeltaSnapshot([HumanMessage("x")]),
]


@pytest.mark.parametrize("value", [*PLAIN, *OF_LANGGRAPH], ids=slug)
def test_what_langgraph_itself_stores_comes_back_by_default(value: Any) -> None:
    serde = StrictSerializer()
    typed = serde.dumps_typed(value)
    assert typed == JsonPlusSerializer().dumps_typed(value)
    found = serde.loads_typed(typed)
    assert type(found) is (list if type(value) is tuple else type(value))
    assert serde.dumps_typed(found) == typed  # what was a tuple is a list, as in LangGraph
    # In its own strict mode LangGraph reads the same from it.
    assert repr(found) == repr(JsonPlusSerializer(allowed_msgpack_modules=None).loads_typed(typed))


def test_an_item_of_a_store_comes_back() -> None:
    item = Item(
        value={"a": 1}, key="k", namespace=("n",), created_at=datetime.now(UTC), updated_at=datetime.now(UTC)
    )
    serde = StrictSerializer()
    assert serde.loads_typed(serde.dumps_typed(item)).dict() == item.dict()


@pytest.mark.parametrize(
    "array",
    [numpy.arange(6.0).reshape(2, 3), numpy.asfortranarray([[1, 2], [3, 4]]), numpy.array(["a", "bc"])],
)
def test_arrays_come_back(array: Any) -> None:
    serde = StrictSerializer()
    found = serde.loads_typed(serde.dumps_typed(array))
    assert (found == array).all()
    assert found.dtype == array.dtype


def test_an_array_in_a_process_without_numpy_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    serde = StrictSerializer()
    typed = serde.dumps_typed(numpy.arange(3))
    monkeypatch.delitem(sys.modules, "numpy")
    with pytest.raises(
        UnreadableValueError, match=r"has not imported numpy. Import it, or add 'numpy:ndarray'"
    ):
        serde.loads_typed(typed)


def test_every_type_that_langgraph_calls_safe_is_safe_here() -> None:
    # What it adds later is looked at before it is allowed. Patterns must be: see the serializer.
    assert _msgpack.SAFE_MSGPACK_TYPES - _known().keys() == {("re", "compile")}
    assert {("datetime", "datetime", "fromisoformat")} == _msgpack.SAFE_MSGPACK_METHODS
    assert _known().keys() <= _msgpack.SAFE_MSGPACK_TYPES


OWN = [
    *(Color.RED, Level.LOW, Point(1, 2), Ticket(3), Outer.Inner(4), Person(name="Ann"), Names(["a"])),
    Order(Color.RED, [Point(1, 2)], datetime(2026, 1, 1)),
    Person(name="Ann", order=Order(Color.RED, [], datetime(2026, 1, 1)), born=date(2000, 1, 1)),
    *(Aliased(fullName="Ann Lee"), Old(name="x"), Box[int](inside=1), Stamp(2026, 1, 1, tzinfo=UTC)),
    re.compile("a+", re.IGNORECASE),
]
TYPES: list[type | str] = [
    *(
        Color,
        Level,
        Point,
        Ticket,
        Outer.Inner,
        Person,
        Names,
        Order,
        Aliased,
        Old,
        Box[int],
        Stamp,
        re.Pattern,
    ),
]


@pytest.mark.parametrize("value", OWN, ids=lambda value: type(value).__name__)
def test_a_type_of_the_application_comes_back_if_it_is_allowed(value: Any) -> None:
    with pytest.raises(TypeNotAllowedError, match=r"could not be read back. Nothing was stored") as caught:
        StrictSerializer().dumps_typed({"in": [value]})
    expected = type(value).__module__
    assert all(each.startswith(expected) for each in caught.value.type_names)
    serde = StrictSerializer(TYPES)
    typed = serde.dumps_typed({"in": [value]})
    (found,) = serde.loads_typed(typed)["in"]
    assert found == value
    assert type(found) is type(value)
    with pytest.raises(
        TypeNotAllowedError, match=r"add (it|them) to allowed_types of WaypostSaver"
    ) as caught:
        StrictSerializer().loads_typed(typed)
    assert all(each.startswith(expected) for each in caught.value.type_names)


def test_the_error_of_a_write_names_what_makes_it_work() -> None:
    with pytest.raises(TypeNotAllowedError) as caught:
        StrictSerializer().dumps_typed(Person(name="Ann"))
    (name,) = caught.value.type_names
    assert str(caught.value) == (
        f"The type '{name}' is not allowed, so the value could not be read back. Nothing was stored. Add the name, or "
        "the class itself, to allowed_types of WaypostSaver, here and wherever the value is read."
    )
    assert StrictSerializer([name]).dumps_typed(Person(name="Ann"))


def test_the_error_names_all_types_together() -> None:
    order = Order(Color.RED, [Point(1, 2)], datetime(2026, 1, 1))
    names = [f"{__name__}:{name}" for name in ("Color", "Point", "Order", "Ticket")]
    for failing in (
        lambda: StrictSerializer().dumps_typed([order, order, Ticket(1)]),
        lambda: StrictSerializer().loads_typed(
            StrictSerializer(TYPES).dumps_typed([order, order, Ticket(1)])
        ),
    ):
        with pytest.raises(TypeNotAllowedError) as caught:
            failing()
        assert list(caught.value.type_names) == names
        assert all(f"'{name}'" in str(caught.value) for name in names)
    many = packed([ext(0, "m", f"T{number}", 1) for number in range(1_000)])
    with pytest.raises(TypeNotAllowedError) as caught:
        StrictSerializer().loads_typed(("msgpack", many))
    assert len(caught.value.type_names) == 10


def test_a_type_within_an_allowed_one_must_be_allowed_too() -> None:
    order = Order(Color.RED, [], datetime(2026, 1, 1))
    with pytest.raises(TypeNotAllowedError, match="Color"):
        StrictSerializer([Order]).dumps_typed(order)
    with pytest.raises(TypeNotAllowedError, match="Color"):
        StrictSerializer([Order]).loads_typed(StrictSerializer(TYPES).dumps_typed(order))


def test_another_type_of_an_allowed_ones_name_stays_out(trap: Trap) -> None:
    for module, name in ((UNKNOWN, "Thing"), (Color.__module__, "Colour"), ("os", "Color")):
        with pytest.raises(TypeNotAllowedError):
            StrictSerializer(TYPES).loads_typed(("msgpack", packed(ext(0, module, name, "red"))))
    assert not trap.sprung()


def test_what_its_own_checks_reject_is_not_built_without_them() -> None:
    raw = packed(ext(5, Positive.__module__, "Positive", {"number": -1}, "model_validate_json"))
    with pytest.raises(UnreadableValueError, match=r"rejects the stored data.*not positive"):
        StrictSerializer([Positive]).loads_typed(("msgpack", raw))
    with pytest.raises(
        UnreadableValueError, match=r"could not be read back.*not positive.*Nothing was stored"
    ):
        StrictSerializer([Positive]).dumps_typed(Positive.model_construct(number=-1))


def test_what_has_changed_since_is_an_error_and_not_something_else() -> None:
    raw = packed(ext(2, Ticket.__module__, "Ticket", {"count": 1}))
    with pytest.raises(UnreadableValueError, match=r"Ticket' rejects the stored data \(TypeError"):
        StrictSerializer([Ticket]).loads_typed(("msgpack", raw))


def test_a_secret_needs_to_be_allowed() -> None:
    with pytest.raises(TypeNotAllowedError, match=r"pydantic.types:SecretStr"):
        StrictSerializer().dumps_typed(SecretStr("x"))
    serde = StrictSerializer(["pydantic:SecretStr"])
    assert serde.loads_typed(serde.dumps_typed(SecretStr("x"))) == SecretStr("x")


def test_an_interrupt_while_a_value_is_built_stays_one() -> None:
    class Stopping:
        def __init__(self, _: Any) -> None:
            raise KeyboardInterrupt

    raw = packed([ext(0, Stopping.__module__, "Stopping", 1)])
    with pytest.raises(KeyboardInterrupt):
        StrictSerializer([Stopping]).loads_typed(("msgpack", raw))


def test_a_pattern_does_not_print(capsys: pytest.CaptureFixture[str]) -> None:
    raw = packed(ext(1, "re", "compile", ["a+", int(re.DEBUG)]))
    assert StrictSerializer([re.Pattern]).loads_typed(("msgpack", raw)).pattern == "a+"
    assert capsys.readouterr().out == ""


class Plain(TypedDict):
    x: int


def a_function() -> None: ...


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        ("os:system", "is a list, such as"),
        (Order, "is a list, such as"),
        (["os:system"], "'os:system', which is not a class but a builtin_function"),
        ([a_function], "is not a class but a function"),
        ([3], "3, which is not a class but a int"),
        (["os.system"], "A type is named 'module:qualname'"),
        (["os:"], "A type is named 'module:qualname'"),
        (["no_such_module_here:Thing"], "'no_such_module_here' can't be imported"),
        ([f"{__name__}:Nothing"], "has no 'Nothing'"),
        ([Plain], "TypedDict .*list the classes of its fields"),
        ([Order, type("Order", (), {"__module__": __name__})], "two classes that are stored as"),
    ],
)
def test_a_list_that_cannot_work_is_an_error_immediately(allowed: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        StrictSerializer(allowed)
