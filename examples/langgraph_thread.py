"""A LangGraph graph whose thread lives in Waypost: stop at an interrupt, go on in another process' place.

Needs pip install 'waypost[langgraph]' langgraph, and a running `waypost dev`, whose addresses are expected in
WAYPOST_BOOTSTRAP_SERVERS and WAYPOST_POSTGRES_DSN. It calls no model.
"""

import asyncio
import operator
import os
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from waypost.adapters import Backend
from waypost.adapters.langgraph import WaypostSaver


class State(TypedDict):
    notes: Annotated[list[str], operator.add]


def research(state: State) -> dict[str, Any]:
    return {"notes": ["found three sources"]}


def review(state: State) -> dict[str, Any]:
    return {"notes": [f"reviewer: {interrupt('publish?')}"]}


def graph(saver: WaypostSaver) -> Any:
    builder = StateGraph(State)
    builder.add_node("research", research)
    builder.add_node("review", review)
    builder.add_edge(START, "research")
    builder.add_edge("research", "review")
    builder.add_edge("review", END)
    return builder.compile(checkpointer=saver)


def backend() -> Backend:
    return Backend(
        os.environ["WAYPOST_BOOTSTRAP_SERVERS"],
        os.environ["WAYPOST_POSTGRES_DSN"],
        topic_prefix=os.environ.get("WAYPOST_TOPIC_PREFIX", "waypost"),
    )


async def main() -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "report-1"}}
    async with backend() as first:
        stopped = await graph(WaypostSaver(first)).ainvoke({"notes": []}, config)
        print("asked:", stopped["__interrupt__"][0].value)

    # Nothing is left in memory: this might be another process, a week later.
    async with backend() as second:
        saver = WaypostSaver(second, keep=50)
        done = await graph(saver).ainvoke(Command(resume="yes"), config)
        print("notes:", done["notes"])
        steps = [each.metadata["step"] async for each in saver.alist(config)]
        print("checkpoints, newest first:", steps)


asyncio.run(main())
