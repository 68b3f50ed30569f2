"""What a thread's metadata say to those who watch it: exposed state, and which nodes ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Send

from waypost.adapters._langgraph_exposed import ExposedState, NodesOfSteps


@dataclass
class Draft:
    title: str
    tags: tuple[str, ...]
    _secret: str = "hidden"


VALUES: dict[str, Any] = {
    "messages": [HumanMessage("hi"), AIMessage("hello", id="7")],
    "draft": Draft("whales", ("a", "b")),
    "score": 0.5,
    "at": datetime(2026, 11, 30, tzinfo=UTC),
    "deep": {"a.b": [{"c": None}], "x": 1},
    "nothing": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("score", 0.5),
        ("nothing", None),
        ("messages[-1].content", "hello"),
        ("messages[0].type", "human"),
        ("draft.title", "whales"),
        ("draft.tags[1]", "b"),
        ("draft.tags", ["a", "b"]),
        ("at", "2026-11-30T00:00:00+00:00"),
        ('deep["a.b"][0].c', None),
        ("deep['x']", 1),
        ("deep.x", 1),
    ],
)
def test_a_path_is_exposed_as_plain_json(path: str, value: Any) -> None:
    assert ExposedState([path]).of(VALUES) == {"state": {path: value}}


@pytest.mark.parametrize(
    "path",
    ["unknown", "messages[5]", "messages.content", "draft.title.x", "draft._secret", "score[0]", "nothing.x"],
)
def test_a_path_that_leads_nowhere_is_left_out(path: str) -> None:
    assert ExposedState([path, "score"]).of(VALUES) == {"state": {"score": 0.5}}


def test_what_metadata_cannot_hold_is_named_and_keeps_nothing_else_out() -> None:
    values = {"a": "x" * 5_000, "b": object(), "c": "nul \0", "d": float("nan"), "e": "half \ud83d", "f": 1}
    assert ExposedState(list("abcdef")).of(values) == {
        "state": {"f": 1},
        "unexposed": ["a", "b", "c", "d", "e"],
    }
    many = ExposedState(["a", "b", "c"]).of(dict.fromkeys("abc", "y" * 1500))
    assert (list(many["state"]), many["unexposed"]) == (["a", "b"], ["c"])


def test_an_exposed_message_is_an_object() -> None:
    exposed = ExposedState(["messages[-1]"]).of(VALUES)
    message = exposed["state"]["messages[-1]"]
    assert (message["type"], message["content"], message["id"]) == ("ai", "hello", "7")


@pytest.mark.parametrize("path", ["", "a..b", "a[", "a[x]", "a[-]", ".a", "a b[0]]", "x" * 101, "nul\0", 7])
def test_an_invalid_path_is_an_error_when_the_saver_is_made(path: Any) -> None:
    with pytest.raises(ValueError, match="path to expose"):
        ExposedState([path])


def test_a_text_is_not_a_list_of_paths() -> None:
    with pytest.raises(ValueError, match="a list of paths, not the text 'messages'"):
        ExposedState("messages")


STEP = ("s", "", "id")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("~__pregel_pull, plan", {"node": "plan"}),
        ("~__pregel_pull, a node, with a comma", {"node": "a node, with a comma"}),
        ("~__pregel_push, 0000000001, 0000000000", {"node": "two"}),
        ("~__pregel_push, 0000000002", {"sent": 2}),
        ("~__pregel_push, ~__pregel_pull, plan, 0000000000", {}),
        ("~__interrupt__, 0000000000", {}),
        ("~__pregel_pull, " + "x" * 101, {}),
        ("~__pregel_pull, \0", {}),
        ("", {}),
    ],
)
def test_the_node_of_a_task(path: str, told: dict[str, Any]) -> None:
    nodes = NodesOfSteps()
    nodes.starts(STEP, {"__pregel_tasks": [Send("one", 1), Send("two", 2)]})
    assert nodes.wrote(STEP, path) == told
    assert nodes.of(STEP) == ([told["node"]] if "node" in told else [])


def test_what_send_started_has_a_name_once_the_checkpoint_is_known() -> None:
    nodes = NodesOfSteps()
    assert nodes.wrote(STEP, "~__pregel_push, 0000000001") == {"sent": 1}
    for planted in (-1, 7, True, None, ["x"]):
        nodes.ran(STEP, planted)
    assert nodes.of(STEP) == []
    nodes.starts(STEP, {"__pregel_tasks": [Send("one", 1), Send("two", 2)]})
    assert nodes.of(STEP) == ["two"]


def test_nodes_are_listed_by_step_once_each_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.adapters._langgraph_exposed._STEPS", 3)
    nodes = NodesOfSteps()
    ran: Sequence[str] = [f"n{number}" for number in range(25)]
    for node in (*ran, *ran):
        nodes.ran(STEP, node)
    assert nodes.of(STEP) == [f"n{number}" for number in range(20)]
    for number in range(3):
        nodes.ran(("s", "", str(number)), "n")
    assert nodes.of(STEP) == []
    assert nodes.of(("s", "", "2")) == ["n"]
