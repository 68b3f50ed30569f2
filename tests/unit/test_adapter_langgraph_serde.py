"""Serializers around the strict one, LangGraph's strict mode, and a process that only reads."""

import base64
import os
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from langchain_core.messages import (
    HumanMessage,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send
from tests.support.trap import UNKNOWN, Trap
from tests.unit.test_adapter_langgraph_serializer import Color, Order, Ticket, hostile

from waypost.adapters import Backend, TypeNotAllowedError
from waypost.adapters.langgraph import StrictSerializer, WaypostSaver

BACKEND = Backend("localhost:1", "postgresql://x")


class Xor:
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "xor", bytes(each ^ 7 for each in plaintext)

    def decrypt(self, _: str, ciphertext: bytes) -> bytes:
        return bytes(each ^ 7 for each in ciphertext)


@pytest.mark.parametrize(
    "serde",
    [
        JsonPlusSerializer(),
        JsonPlusSerializer(allowed_msgpack_modules=None, pickle_fallback=True),
        JsonPlusSerializer(allowed_msgpack_modules=None, allowed_json_modules=True),
        EncryptedSerializer(Xor()),
    ],
)
def test_a_serializer_of_langgraph_that_builds_anything_is_not_taken(serde: Any) -> None:
    with pytest.raises(
        ValueError, match=r"imports and calls whatever a stored value names.*StrictSerializer"
    ):
        WaypostSaver(BACKEND, serde=serde)


def test_serializers_that_are_taken() -> None:
    class Own:
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            raise NotImplementedError

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            raise NotImplementedError

    for serde in (
        JsonPlusSerializer(allowed_msgpack_modules=None),
        JsonPlusSerializer(allowed_msgpack_modules=[Order]),
        StrictSerializer(),
        EncryptedSerializer(Xor(), StrictSerializer()),
        Own(),
    ):
        assert WaypostSaver(BACKEND, serde=serde).serde is serde
    with pytest.raises(ValueError, match="allowed_types is for the serializer that the saver makes itself"):
        WaypostSaver(BACKEND, serde=StrictSerializer(), allowed_types=[Order])


def test_encryption_around_it_is_as_strict_also_for_what_is_not_encrypted(trap: Trap) -> None:
    serde = EncryptedSerializer(Xor(), StrictSerializer([Ticket]))
    assert serde.loads_typed(serde.dumps_typed(Ticket(1))) == Ticket(1)
    value = hostile("one argument: os.system", trap)
    for kind, raw in ((value.kind, value.raw), ("msgpack+xor", Xor().encrypt(value.raw)[1])):
        with pytest.raises(TypeNotAllowedError):
            serde.loads_typed((kind, raw))
    assert not trap.sprung()


def test_what_langgraph_allows_for_a_graphs_state_is_allowed(trap: Trap) -> None:
    saver = WaypostSaver(BACKEND, allowed_types=[Ticket])
    names = {
        ("langchain_core.messages.human", "HumanMessage"),
        (Order.__module__, "Order"),
        (Color.__module__, "Color"),
    }
    more = saver.with_allowlist({*names, (UNKNOWN, "Thing"), (__name__, "Missing")})
    order = [Order(Color.RED, [], datetime(2026, 1, 1)), Ticket(1)]
    assert more.serde.loads_typed(more.serde.dumps_typed(order)) == order
    with pytest.raises(TypeNotAllowedError):
        saver.serde.dumps_typed(order)
    assert saver.with_allowlist(set()) is saver
    assert not trap.sprung()


STRICT_GRAPH = """
import dataclasses
from typing import TypedDict
from langgraph.graph import START, StateGraph
from waypost.adapters import Backend, TypeNotAllowedError
from waypost.adapters.langgraph import WaypostSaver

@dataclasses.dataclass
class Trip:
    to: str

class State(TypedDict):
    trip: Trip

builder = StateGraph(State)
builder.add_node("node", lambda state: state)
builder.add_edge(START, "node")
saver = WaypostSaver(Backend("localhost:1", "postgresql://x"))
serde = builder.compile(checkpointer=saver).checkpointer.serde
try:
    print(serde.loads_typed(serde.dumps_typed(Trip("Rome"))))
except TypeNotAllowedError as error:
    print(error.type_names)
"""


@pytest.mark.parametrize(("strict", "told"), [("true", "Trip(to='Rome')"), ("false", "('__main__:Trip',)")])
def test_with_langgraphs_strict_mode_the_types_of_a_state_need_no_list(strict: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRICT_GRAPH],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": strict},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == told


READER = """
import base64, sys
from waypost.adapters.langgraph import StrictSerializer
serde = StrictSerializer()
before = set(sys.modules)
(message, send) = serde.loads_typed(("msgpack", base64.b64decode(sys.argv[1])))
print(message.content, send.node)
assert set(sys.modules) == before, set(sys.modules) - before
"""


def test_a_process_that_only_reads_needs_no_other_import() -> None:
    _, raw = StrictSerializer().dumps_typed([HumanMessage("hi"), Send("node", 1)])
    done = subprocess.run(
        [sys.executable, "-c", READER, base64.b64encode(raw)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "hi node\n"
