"""A LangGraph graph whose thread is stored in Waypost: it stops at an interrupt and resumes as another process would.

Needs pip install 'waypost[langgraph]', and a `waypost dev` that runs in the current directory. It
calls no model.
"""

import asyncio
import operator
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


async def main() -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "report-1"}}
    async with Backend() as first:
        stopped = await graph(WaypostSaver(first)).ainvoke({"notes": []}, config)
        print("asked:", stopped["__interrupt__"][0].value)

    # Nothing is left in memory: this might be another process, a week later.
    async with Backend() as second:
        saver = WaypostSaver(second, keep=50)
        done = await graph(saver).ainvoke(Command(resume="yes"), config)
        print("notes:", done["notes"])
        steps = [each.metadata["step"] async for each in saver.alist(config)]
        print("checkpoints, newest first:", steps)


asyncio.run(main())
