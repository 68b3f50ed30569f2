"""Events of a LangGraph thread: nodes, steps and exposed state in metadata, and the rest through ``decode``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from tests.integration.adapters import running_backend
from tests.integration.langgraph_threads import fan_graph, review_graph, thread
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment

from waypost import Event, Subscriber
from waypost.adapters import Backend, TypeNotAllowedError
from waypost.adapters.langgraph import StrictSerializer, ThreadEvent, WaypostSaver, decode


async def events(world: Deployment, backend: Backend, session_id: str) -> AsyncIterator[Event]:
    """The created events of a session, up to its newest record."""
    await backend.settled(session_id)
    info = await backend._connection.reader.session_info(session_id)
    assert info is not None
    async with (
        Subscriber(
            world.endpoints.bootstrap_servers,
            topic_prefix=world.topics.prefix,
            types=["created"],
            sessions=[session_id],
            from_beginning=True,
        ) as subscriber,
        aclosing(aiter(subscriber)) as found,  # type: ignore[type-var]
    ):
        async for event in found:
            yield event
            if event.checkpoint is not None and event.checkpoint.number == info.last_number:
                return


async def decoded(world: Deployment, backend: Backend, session_id: str = "langgraph/t") -> list[ThreadEvent]:
    async with aclosing(events(world, backend, session_id)) as found:  # type: ignore[type-var]
        return [said async for event in found if (said := decode(event)) is not None]


def steps(said: list[ThreadEvent]) -> list[Any]:
    # A step is stored while the next one runs, so the order of two namespaces is open.
    found = [
        (each.namespace.partition(":")[0], each.source, each.step, sorted(each.nodes))
        for each in said
        if each.kind == "checkpoint"
    ]
    return sorted(found, key=lambda each: each[0])


async def test_checkpoints_show_which_nodes_ran_across_processes_and_interrupts(
    adapter_world: Deployment, backend: Backend
) -> None:
    await review_graph(WaypostSaver(backend)).ainvoke({"notes": [], "question": "ok?"}, thread())
    async with running_backend(adapter_world) as elsewhere:
        await review_graph(WaypostSaver(elsewhere)).ainvoke(Command(resume="yes"), thread())
        said = await decoded(adapter_world, elsewhere)
    assert steps(said) == [
        ("", "input", -1, []),
        ("", "loop", 0, ["__start__"]),
        ("", "loop", 1, ["left", "right"]),
        ("", "loop", 2, ["consult"]),
        ("consult", "input", -1, []),
        ("consult", "loop", 0, ["__start__"]),
        ("consult", "loop", 1, ["ask"]),
    ]
    assert {node for each in said if each.kind == "writes" for node in each.nodes} == {
        "__start__",
        "left",
        "right",
        "ask",
        "consult",
    }
    (last,) = [each for each in said if each.step == 2]
    assert last.values["notes"] == ["left", "right", "yes"]
    assert last.metadata["step"] == 2
    assert last.parent_id == next(each.checkpoint_id for each in said if each.step == 1)
    written = [each.writes for each in said if each.nodes == ["consult"] and each.kind == "writes"]
    assert [channel for channel, _ in written[0]] == ["__interrupt__"]
    assert ("notes", ["yes"]) in written[-1]


async def test_nodes_that_send_started_are_listed(adapter_world: Deployment, backend: Backend) -> None:
    await fan_graph(WaypostSaver(backend)).ainvoke({"topics": ["a", "b"], "notes": []}, thread())
    async with running_backend(adapter_world) as elsewhere:
        await fan_graph(WaypostSaver(elsewhere)).ainvoke(None, thread())
        assert steps(await decoded(adapter_world, elsewhere)) == [
            ("", "input", -1, []),
            ("", "loop", 0, ["__start__"]),
            ("", "loop", 1, ["look"]),
            ("", "loop", 2, ["gather"]),
        ]


def chat(saver: WaypostSaver) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node(
        "answer", lambda state: {"messages": [AIMessage(f"echo {state['messages'][-1].content}")]}
    )
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


async def test_exposed_state_is_searchable_plain_json(adapter_world: Deployment, backend: Backend) -> None:
    graph = chat(WaypostSaver(backend, expose=["messages[-1].content", "messages[-1].type", "unknown"]))
    await graph.ainvoke({"messages": [HumanMessage("hi")]}, thread())
    async with aclosing(events(adapter_world, backend, "langgraph/t")) as found:  # type: ignore[type-var]
        states = [event.checkpoint.metadata.get("state") async for event in found if event.checkpoint]
    # In plain metadata, for those who have neither LangGraph nor the adapter.
    assert [state for state in states if state] == [
        {"messages[-1].content": "hi", "messages[-1].type": "human"},
        {"messages[-1].content": "echo hi", "messages[-1].type": "ai"},
    ]
    said = await decoded(adapter_world, backend)
    assert said[-1].state == {"messages[-1].content": "echo hi", "messages[-1].type": "ai"}
    assert [message.content for message in said[-1].values["messages"]] == ["hi", "echo hi"]
    session = backend._connection.reader.session("langgraph/t")
    page = await session.page(metadata={"state": {"messages[-1].type": "ai"}})
    assert [each.name for each in page.checkpoints] == ["checkpoint"]


@dataclass
class Secret:
    text: str


async def test_decode_builds_nothing_that_is_not_allowed_and_is_silent_about_other_events(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend, allowed_types=[Secret])
    builder = StateGraph(dict)
    builder.add_node("n", lambda _: Secret("x"))  # type: ignore[arg-type, return-value]
    builder.add_edge(START, "n")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"a": 1}, thread())
    async with aclosing(events(adapter_world, backend, "langgraph/t")) as found:  # type: ignore[type-var]
        all_of_them = [event async for event in found]
    with pytest.raises(TypeNotAllowedError, match="Secret"):
        [decode(event) for event in all_of_them]
    serde = StrictSerializer(allowed_types=[Secret])
    said = [each for event in all_of_them if (each := decode(event, serde)) is not None]
    assert said[-1].values["__root__"] == Secret("x")
    publisher = backend._connection.publisher
    planted: list[tuple[str, str, Any]] = [
        ("other", "checkpoint", {"ns": "", "id": "x", "needs": [], "holds": []}),
        ("langgraph/t", "checkpoint", {"ns": 7}),
        ("langgraph/t", "values", {"holds": []}),
        ("langgraph/t", "mine", {}),
    ]
    for session_id, name, metadata in planted:
        await publisher.create_and_wait(session_id, name, {}, metadata)
    assert [len(await decoded(adapter_world, backend, each)) for each in ("other",)] == [0]
    async with aclosing(events(adapter_world, backend, "langgraph/t")) as found:  # type: ignore[type-var]
        assert [decode(event, serde) async for event in found][-3:] == [None, None, None]


async def test_large_values_and_large_records_are_shown_up_to_the_limit(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend, expose=["messages[-1].content"])
    await chat(saver).ainvoke({"messages": [HumanMessage("x" * 900_000)]}, thread())
    said = await decoded(adapter_world, backend)
    assert steps(said)[-1] == ("", "loop", 1, ["answer"])
    assert "messages" not in said[-1].values
    assert not said[-1].partial
    assert said[-1].checkpoint["channel_versions"]["messages"]
    (answer,) = [each for each in said if each.kind == "writes" and each.nodes == ["answer"]]
    assert (answer.partial, answer.writes) == (True, [])


async def test_a_thread_can_be_looked_at_from_the_command_line(
    adapter_world: Deployment, backend: Backend, tmp_path: Path
) -> None:
    graph = chat(WaypostSaver(backend, expose=["messages[-1].content"]))
    await graph.ainvoke({"messages": [HumanMessage("hi")]}, thread())
    planted: Any = {"facts": [7], "nodes": ["\x1b[31m", 7], "state": 7, "ns": {}}
    await backend._connection.publisher.create_and_wait("langgraph/t", "checkpoint", {}, planted)
    line = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": adapter_world.dsn, "COLUMNS": "200"})
    shown = await asyncio.to_thread(line.run, "session", "show", "langgraph/t")
    assert shown.code == 0, shown.err
    table = [row.split() for row in shown.out.splitlines()]
    print(shown.out)
    assert table[0] == ["id", "name", "timestamp", "bytes", "step", "source", "nodes", "state", "namespace"]
    (last,) = [row for row in table if row[:2] == ["langgraph/t:5", "checkpoint"]]
    assert last[-5:] == ["1", "loop", "answer", '{"messages[-1].content":"echo', 'hi"}']
    raw = await asyncio.to_thread(line.run, "session", "show", "langgraph/t", "-o", "json")
    assert raw.json[1]["metadata"]["nodes"] == ["answer"]
    one = await asyncio.to_thread(line.run, "session", "show", "langgraph/t:5")
    print(one.out)
    assert "langchain_core.messages.ai:AIMessage" in one.out
    assert "echo hi" in one.out
    stored = await asyncio.to_thread(line.run, "session", "show", "langgraph/t:5", "-o", "json")
    assert "base64" in stored.json["data"]["checkpoint"]
