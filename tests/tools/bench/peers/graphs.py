"""A LangGraph graph of five nodes with each checkpointer in turn, in a separate process.

Waypost's saver runs on the service that the parent started, LangGraph's Postgres saver on the same database.
"""

import asyncio
import operator
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from tests.tools.bench.children import run_child, say
from tests.tools.bench.table import DURABILITIES, HISTORIES, MODES_OF_SAVER

from waypost.adapters import Backend
from waypost.adapters.langgraph import WaypostSaver

_NODES: Final = 5
_AT_ONCE: Final = 50
_POOL: Final = 10
_MESSAGE: Final = "x" * 200
# Java compiles what runs often, so a broker that was just started is several times as slow.
_WARM_UP_RUNS: Final = 60


class Talk(TypedDict):
    """A conversation, as most graphs have one."""

    messages: Annotated[list[str], operator.add]
    step: int


def graph_of(saver: BaseCheckpointSaver[Any]) -> Any:
    """Five nodes in a row, each of which adds a message."""

    async def node(state: Talk) -> dict[str, Any]:
        return {"messages": [_MESSAGE], "step": state["step"] + 1}

    builder = StateGraph(Talk)
    before: str = START
    for number in range(_NODES):
        builder.add_node(f"node {number}", node)
        builder.add_edge(before, f"node {number}")
        before = f"node {number}"
    builder.add_edge(before, END)
    return builder.compile(checkpointer=saver)


async def run_once(graph: Any, durability: str, history: int) -> tuple[float, float]:
    """Run a graph in a separate thread. Return milliseconds, and those of this process's CPU time."""
    config = {"configurable": {"thread_id": uuid.uuid4().hex}}
    began, cpu = time.perf_counter(), time.process_time()
    await graph.ainvoke({"messages": [_MESSAGE] * history, "step": 0}, config, durability=durability)
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - cpu)


async def runs_per_second(graph: Any, history: int) -> float:
    """Run 50 graphs in parallel."""
    began = time.perf_counter()
    await asyncio.gather(*(run_once(graph, "async", history) for _ in range(_AT_ONCE)))
    return _AT_ONCE / (time.perf_counter() - began)


@asynccontextmanager
async def postgres_saver(dsn: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own saver, over a pool of ten connections as its documentation says."""
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: Any = AsyncConnectionPool(dsn, min_size=_POOL, max_size=_POOL, open=False, kwargs=settings)
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


async def measure(graphs: Mapping[str, Any], runs: int, repeats: int) -> None:
    """Run each graph in turn, so that all have the same neighbors on the machine, and say all values of each series."""
    for _ in range(_WARM_UP_RUNS):
        for graph in graphs.values():
            await run_once(graph, "async", HISTORIES[0])
    for durability in DURABILITIES:
        for history in HISTORIES:
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in graphs}
            for turn in range(runs + 1):
                for name, graph in graphs.items():
                    figures = await run_once(graph, durability, history)
                    if turn:  # the first one warms up
                        taken[name].append(figures)
            milliseconds = {name: [each[0] for each in figures] for name, figures in taken.items()}
            cpu = {name: [each[1] for each in figures] for name, figures in taken.items()}
            say(part="one", durability=durability, history=history, ms=milliseconds, cpu_ms=cpu)
    for history in HISTORIES:
        rates: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(repeats):
            for name, graph in graphs.items():
                rates[name].append(await runs_per_second(graph, history))
        say(part="at_once", history=history, per_second=rates)
    say(part="end")


async def main(job: dict[str, Any]) -> None:
    """Measure all savers, each known by its place in ``tests.tools.bench.table.GRAPHS``."""
    async with (
        Backend(job["bootstrap"], job["dsn"], topic_prefix=job["prefix"]) as backend,
        postgres_saver(job["dsn"]) as postgres,
    ):
        savers: dict[str, BaseCheckpointSaver[Any]] = {"memory": InMemorySaver(), "saver": postgres}
        savers |= {mode: WaypostSaver(backend, durability=mode) for mode in MODES_OF_SAVER}
        graphs = {name: graph_of(saver) for name, saver in savers.items()}
        await measure(graphs, job["runs"], job["repeats"])


if __name__ == "__main__":
    run_child(main)
