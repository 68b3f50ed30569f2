"""Graphs and threads for the tests of the LangGraph adapter."""

import operator
from typing import Annotated, Any, TypedDict

import asyncpg
from langchain_core.runnables import RunnableLambda
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from tests.support.deployment import Deployment

from waypost.adapters.langgraph import WaypostSaver


def thread(thread_id: str = "t", ns: str = "", checkpoint_id: str | None = None) -> Any:
    found: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ns}
    return {"configurable": found | ({} if checkpoint_id is None else {"checkpoint_id": checkpoint_id})}


async def put(
    saver: WaypostSaver,
    values: dict[str, Any],
    config: Any = None,
    new: set[str] | None = None,
    **metadata: Any,
) -> Any:
    """Put a checkpoint whose channels are at version 1, or at one more where a test calls them new."""
    versions: dict[str, Any] = {name: "1" if new is None or name not in new else "2" for name in values}
    checkpoint: Any = {**empty_checkpoint(), "channel_values": values, "channel_versions": versions}
    changed = {name: version for name, version in versions.items() if new is None or name in new}
    told: Any = {"source": "loop", **metadata}
    return await saver.aput(config or thread(), checkpoint, told, changed)


async def put_all(saver: WaypostSaver, values: dict[str, Any], config: Any = None) -> Any:
    """Put a checkpoint whose channels all have a new version, as each step of a run gives them."""
    versions: dict[str, Any] = {name: saver.get_next_version(None, None) for name in values}
    checkpoint: Any = {**empty_checkpoint(), "channel_values": values, "channel_versions": versions}
    return await saver.aput(config or thread(), checkpoint, {"source": "loop"}, versions)


async def history(saver: BaseCheckpointSaver[Any], config: Any) -> list[CheckpointTuple]:
    return [each async for each in saver.alist(config)]


async def records(adapter_world: Deployment, session_id: str = "langgraph/t") -> dict[str, int]:
    connection = await asyncpg.connect(adapter_world.dsn)
    try:
        rows = await connection.fetch(
            "select name, count(*) as count from waypost.checkpoints where session_id = $1 group by name",
            session_id,
        )
        return {row["name"]: row["count"] for row in rows}
    finally:
        await connection.close()


class State(TypedDict):
    notes: Annotated[list[str], operator.add]
    question: str


class Inner(TypedDict):
    question: str
    answer: str


def review_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """Parallel nodes, a subgraph with a state of its own, and an interrupt within it."""

    def ask(state: Inner) -> dict[str, Any]:
        return {"answer": interrupt(state["question"])}

    inner = StateGraph(Inner).add_node("ask", ask).add_edge(START, "ask").compile()

    def consult(state: State) -> dict[str, Any]:
        return {"notes": [inner.invoke({"question": state["question"], "answer": ""})["answer"]]}

    async def aconsult(state: State) -> dict[str, Any]:
        answered = await inner.ainvoke({"question": state["question"], "answer": ""})
        return {"notes": [answered["answer"]]}

    builder = StateGraph(State)
    builder.add_node("left", lambda _: {"notes": ["left"]})
    builder.add_node("right", lambda _: {"notes": ["right"]})
    builder.add_node("consult", RunnableLambda(consult, aconsult))
    for name in ("left", "right"):
        builder.add_edge(START, name)
        builder.add_edge(name, "consult")
    builder.add_edge("consult", END)
    return builder.compile(checkpointer=saver)


class Fan(TypedDict):
    topics: list[str]
    notes: Annotated[list[str], operator.add]


def fan_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """A node for each topic, all at once, and a stop before what they found is gathered."""
    builder = StateGraph(Fan)
    builder.add_node("look", lambda topic: {"notes": [f"about {topic}"]})
    builder.add_node("gather", lambda state: {"notes": [f"{len(state['notes'])} notes"]})
    builder.add_conditional_edges(START, lambda state: [Send("look", each) for each in state["topics"]])
    builder.add_edge("look", "gather")
    builder.add_edge("gather", END)
    return builder.compile(checkpointer=saver, interrupt_before=["gather"])


def shown(tuples: list[CheckpointTuple]) -> list[Any]:
    """What two savers must agree on: everything but ids, times and versions, which are random."""
    places = {
        each.config["configurable"]["checkpoint_id"]: place for place, each in enumerate(reversed(tuples))
    }
    return [
        (
            each.checkpoint["channel_values"],
            {key: value for key, value in each.metadata.items() if key not in ("parents", "run_id")},
            places.get((each.parent_config or {"configurable": {}})["configurable"].get("checkpoint_id", "")),
            [
                (channel, [found.value for found in value] if channel == "__interrupt__" else value)
                for _, channel, value in each.pending_writes or []
            ],
            sorted(each.checkpoint["channel_versions"]),
        )
        for each in tuples
    ]


def fold(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


class Long(TypedDict):
    log: Annotated[list[str], DeltaChannel(fold, snapshot_frequency=5)]
    step: int


def delta_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    builder = StateGraph(Long)
    builder.add_node("work", lambda state: {"log": [f"step {state['step']}"], "step": state["step"] + 1})
    builder.add_edge(START, "work")
    builder.add_edge("work", END)
    return builder.compile(checkpointer=saver)
