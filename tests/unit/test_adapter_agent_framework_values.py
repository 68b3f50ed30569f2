"""Checkpoints of the Microsoft Agent Framework from strangers: their pickles are read and never run."""

import base64
import dataclasses
import enum
import json
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import agent_framework
import pytest
from agent_framework import (
    AgentExecutorRequest,
    AgentExecutorResponse,
    AgentResponse,
    AgentResponseUpdate,
    ChatResponse,
    Content,
    Message,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowEvent,
    WorkflowMessage,
)
from agent_framework._workflows._checkpoint_encoding import decode_checkpoint_value, encode_checkpoint_value
from agent_framework._workflows._runner_context import MessageType
from openai.types.responses import ResponseOutputText
from pydantic import BaseModel
from tests.support.hostile_values import hostile_pickles, named, operations, slug
from tests.support.trap import Trap

from waypost.adapters._agent_framework_values import _DATA, ValueDecoder
from waypost.adapters._strict_pickle import load
from waypost.adapters.allowed_types import DecodeError

NAMES = list(hostile_pickles(Path("x")))


def stored(raw: bytes, type_name: str = "builtins:object") -> dict[str, str]:
    return {"__pickled__": base64.b64encode(raw).decode(), "__type__": type_name}


@pytest.fixture
def unharmed() -> Any:
    """The framework's classes stay as they were."""
    before = dict(vars(Message)), MessageType.STANDARD.value
    yield
    assert (dict(vars(Message)), MessageType.STANDARD.value) == before


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", NAMES, ids=slug)
def test_a_hostile_pickle_is_an_error_and_runs_nothing(name: str, trap: Trap, tmp_path: Path) -> None:
    raw = hostile_pickles(trap.marker)[name]
    decoder = ValueDecoder([])
    modules = set(sys.modules)
    files = sorted(tmp_path.iterdir())
    with pytest.raises(DecodeError):
        load(raw, decoder._find)  # whatever type it is said to have
    for value in (stored(raw), {"state": {"a": [stored(raw)]}}):
        with pytest.raises(DecodeError) as caught:
            decoder.decoded(value)
        assert str(caught.value.on_read("here")).isprintable()
    assert not trap.sprung()
    assert set(sys.modules) == modules
    assert sorted(tmp_path.iterdir()) == files


def test_the_frameworks_own_reader_lets_some_of_them_act(trap: Trap) -> None:
    """Why this adapter has a reader of its own. If the framework closes these, it may use the framework's."""
    pickles = hostile_pickles(trap.marker)
    with pytest.raises(WorkflowCheckpointException, match="Type mismatch"):  # which is compared afterwards
        decode_checkpoint_value(stored(pickles["the framework's file storage"]), allowed_types=frozenset())
    assert trap.sprung()
    before = MessageType.STANDARD.value
    try:
        with pytest.raises(WorkflowCheckpointException, match="Type mismatch"):
            decode_checkpoint_value(
                stored(pickles["changing a member of an enum"]), allowed_types=frozenset()
            )
        assert MessageType.STANDARD.value != before
    finally:
        MessageType.STANDARD._value_ = before


@dataclasses.dataclass
class Draft:
    text: str
    marks: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    number: int


class Mood(enum.Enum):
    GOOD = "good"


class ByName(enum.Enum):
    ONE = 1
    __reduce_ex__ = enum.pickle_by_enum_name  # type: ignore[assignment]


class Numbers(list[int]):
    pass


class Model(BaseModel):
    name: str
    drafts: list[Draft] = []


class Custom:
    """Pickles in a way of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return (Custom, (self.number,), {"number": self.number + 1})


OWN: list[Any] = [
    *(
        Draft("x", (1, 2)),
        Frozen(1),
        Mood.GOOD,
        ByName.ONE,
        Numbers([1, 2]),
        Model(name="a", drafts=[Draft("y")]),
    ),
    *({"in": [Draft("x")]}, ({Frozen(1): "key"},), {Mood.GOOD}, (Draft("x"),)),
]
PLAIN: list[Any] = [
    *(None, True, 1, 2.5, "text ü", [1, [2]], {"a": {"b": 1}}, 2**80, {1: "x", "1": "y"}, {"__type__": "x"}),
    *(b"bytes", bytearray(b"more"), (1, ("x", None)), {1, "x"}, frozenset({(1, 2)}), complex(1, 2), range(3)),
    *(
        datetime(2026, 11, 30, tzinfo=UTC),
        date(2026, 11, 30),
        time(1, 2),
        timedelta(1),
        UUID(int=7),
        Decimal("1.5"),
    ),
    *(timezone(timedelta(hours=1), "x"), OrderedDict([("b", 1), ("a", 2)]), defaultdict(list, {"a": [1]})),
    *(defaultdict(None, {"a": 1}), Counter("abca"), deque([1, 2], maxlen=3), slice(1, 2), int, type(None)),
]


def shown(value: Any) -> Any:
    """What two objects of the framework must agree on, which do not compare equal."""
    if isinstance(value, list | tuple):
        return [shown(each) for each in value]
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (
            type(value),
            shown({each.name: getattr(value, each.name) for each in dataclasses.fields(value)}),
        )
    if type(value).__module__.startswith("agent_framework") and not isinstance(value, enum.Enum):
        return (type(value), shown(vars(value)))
    return value


MESSAGE = Message(
    role="assistant",
    contents=["yes", Content.from_function_call("call-1", "search", arguments={"q": "x"})],
    additional_properties={"at": datetime(2026, 11, 30, tzinfo=UTC)},
)
RESPONSE = AgentResponse(messages=[MESSAGE], response_id="1", usage_details={"input_token_count": 3})
OF_THE_FRAMEWORK: list[Any] = [
    *(MESSAGE, [MESSAGE], RESPONSE, ChatResponse(messages=[MESSAGE]), AgentResponseUpdate(contents=["x"])),
    AgentExecutorRequest(messages=[MESSAGE]),
    AgentExecutorResponse("agent", RESPONSE, full_conversation=[MESSAGE]),
    WorkflowMessage(data={"x": MESSAGE}, source_id="a", type=MessageType.RESPONSE),
    WorkflowEvent.request_info("r", "ask", "sure?", bool),
    WorkflowCheckpoint("flow", "h", state={"inner": WorkflowMessage(data=1, source_id="a")}),
    *(MessageType.STANDARD, agent_framework.WorkflowRunState.IDLE),
    ResponseOutputText(text="12 degrees", type="output_text", annotations=[]),
]


@pytest.mark.parametrize("value", [*PLAIN, *OF_THE_FRAMEWORK], ids=slug)
def test_what_the_framework_itself_stores_comes_back_by_default(value: Any) -> None:
    encoded = encode_checkpoint_value(value)
    found = ValueDecoder([]).decoded(encoded)
    assert type(found) is type(value)
    assert shown(found) == shown(value)
    assert shown(found) == shown(decode_checkpoint_value(encoded, allowed_types=frozenset()))


@pytest.mark.parametrize("value", OWN, ids=slug)
def test_a_type_of_the_application_comes_back_if_it_is_allowed(value: Any) -> None:
    encoded = encode_checkpoint_value(value)
    found = ValueDecoder([Draft, Frozen, Mood, ByName, Numbers, f"{__name__}:Model"]).decoded(encoded)
    assert found == value
    assert type(found) is type(value)
    with pytest.raises(DecodeError) as caught:
        ValueDecoder([]).decoded(encoded)
    (name,) = caught.value.type_names
    assert name.startswith(f"{__name__}:")


def test_an_allowed_type_may_pickle_in_its_own_way() -> None:
    encoded = encode_checkpoint_value(Custom(1))
    found = ValueDecoder([Custom]).decoded(encoded)
    assert (type(found), found.number) == (Custom, 2)


def test_what_the_application_registers_with_the_framework_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: set[str] = set()
    monkeypatch.setattr(
        "agent_framework._workflows._checkpoint_encoding._REGISTERED_CHECKPOINT_TYPE_KEYS", keys
    )
    decoder = ValueDecoder([])
    encoded = encode_checkpoint_value(Draft("x"))
    with pytest.raises(DecodeError):
        decoder.decoded(encoded)
    agent_framework.register_checkpoint_type(Draft)
    assert decoder.decoded(encoded) == Draft("x")


def test_shared_and_circular_parts_stay_so() -> None:
    shared = Numbers([1])
    one, other = ValueDecoder([Numbers]).decoded(encode_checkpoint_value((shared, shared)))
    assert one is other
    circle: Any = Numbers()
    circle.append(circle)
    found = ValueDecoder([Numbers]).decoded(encode_checkpoint_value(circle))
    assert found[0] is found


def test_the_name_next_to_a_pickle_must_be_its_type() -> None:
    with pytest.raises(DecodeError, match="has the type 'builtins:bytes', not 'builtins:set'"):
        ValueDecoder([]).decoded(stored(pickle.dumps(b"x", 5), "builtins:set"))


@pytest.mark.parametrize("pickled", [None, 3, "?", "ü"])
def test_an_invalid_pickle_is_an_error(pickled: Any) -> None:
    with pytest.raises(DecodeError, match="not base64"):
        ValueDecoder([]).decoded({"__pickled__": pickled, "__type__": "x"})


def test_json_that_is_nested_too_deeply_is_an_error() -> None:
    value: Any = None
    for _ in range(100_000):
        value = [value]
    with pytest.raises(DecodeError, match="nested too deeply"):
        ValueDecoder([]).decoded(value)


def test_the_frameworks_classes_that_act_are_not_data() -> None:
    for name in (
        "FileCheckpointStorage",
        "Agent",
        "MCPStdioTool",
        "FunctionTool",
        "FileHistoryProvider",
        "Workflow",
    ):
        cls = getattr(agent_framework, name)
        with pytest.raises(DecodeError) as caught:
            ValueDecoder([]).decoded(stored(operations(named(cls.__module__, cls.__qualname__))))
        assert caught.value.type_names == (f"{cls.__module__}:{cls.__qualname__}",)


def test_the_frameworks_classes_of_data_are_where_we_think() -> None:
    for key in _DATA:
        module, _, name = key.partition(":")
        if module.startswith("agent_framework."):
            assert isinstance(vars(sys.modules[module])[name], type), key


READER = """
import json, sys
from waypost.adapters._agent_framework_values import ValueDecoder
decoder = ValueDecoder([])
before = set(sys.modules)
print(decoder.decoded(json.loads(sys.argv[1]))["in"].data.text)
assert set(sys.modules) == before
"""


def test_a_process_that_only_reads_needs_no_other_import() -> None:
    event = WorkflowEvent.request_info("r", "ask", MESSAGE, bool)
    encoded = json.dumps(encode_checkpoint_value({"in": event}))
    done = subprocess.run([sys.executable, "-c", READER, encoded], capture_output=True, text=True, check=True)
    assert done.stdout == "yes\n"
