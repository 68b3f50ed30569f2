"""``python -m tests.tools.bench.graphs``: what a LangGraph graph of five nodes takes with each checkpointer, in turns.

Needs a running ``waypost dev``, whose ``endpoints.json`` it reads, and compares with LangGraph's own Postgres saver if
that is installed (``pip install langgraph-checkpoint-postgres 'psycopg[binary,pool]'``). Prints JSON: medians of
milliseconds for one run at a time and of the CPU time of this process in it, and runs per second of 50 at once.
"""

import argparse
import asyncio
import json
import operator
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from waypost.adapters import Backend
from waypost.adapters.langgraph import WaypostSaver

_NODES: Final = 5
_AT_ONCE: Final = 50
_MESSAGE: Final = "x" * 200


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
    """Run a graph in a thread of its own; milliseconds, and those of this process's CPU."""
    config = {"configurable": {"thread_id": uuid.uuid4().hex}}
    began, cpu = time.perf_counter(), time.process_time()
    await graph.ainvoke({"messages": [_MESSAGE] * history, "step": 0}, config, durability=durability)
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - cpu)


async def runs_per_second(graph: Any) -> float:
    """Run 50 graphs at once."""
    began = time.perf_counter()
    await asyncio.gather(*(run_once(graph, "async", 1) for _ in range(_AT_ONCE)))
    return _AT_ONCE / (time.perf_counter() - began)


@asynccontextmanager
async def postgres_saver(dsn: str) -> AsyncIterator[BaseCheckpointSaver[Any] | None]:
    """LangGraph's own saver, over a pool of ten connections as its documentation says; None if it is not installed."""
    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool
    except ImportError:
        yield None
        return
    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(dsn, min_size=10, max_size=10, open=False, kwargs=settings) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


async def measure(graphs: Mapping[str, Any], runs: int) -> dict[str, Any]:
    """Each graph in turn, so that all have the same neighbors on the machine."""
    found: dict[str, Any] = {}
    for durability in ("sync", "async", "exit"):
        for history in (1, 10, 200):
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in graphs}
            for turn in range(runs + 1):
                for name, graph in graphs.items():
                    figures = await run_once(graph, durability, history)
                    if turn:  # the first one warms up
                        taken[name].append(figures)
            found[f"{durability}, {history} messages"] = {
                name: {
                    "ms": round(statistics.median(each[0] for each in figures), 1),
                    "cpu_ms": round(statistics.median(each[1] for each in figures), 1),
                }
                for name, figures in taken.items()
            }
    rates: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(3):
        for name, graph in graphs.items():
            rates[name].append(await runs_per_second(graph))
    found["50 at once, runs per second"] = {
        name: round(statistics.median(each), 1) for name, each in rates.items()
    }
    return found


async def main(servers: Mapping[str, str], runs: int) -> None:
    """Measure all savers and print what they take."""
    dsn = servers["postgres_dsn"]
    async with Backend(servers["bootstrap_servers"], dsn) as backend, postgres_saver(dsn) as postgres:
        savers: dict[str, BaseCheckpointSaver[Any]] = {"InMemorySaver": InMemorySaver()}
        if postgres is not None:
            savers["AsyncPostgresSaver"] = postgres
        savers |= {
            f"WaypostSaver {mode}": WaypostSaver(backend, durability=mode)
            for mode in ("accepted", "logged", "applied")
        }
        graphs = {name: graph_of(saver) for name, saver in savers.items()}
        print(json.dumps(await measure(graphs, runs), indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoints", type=Path, default=Path(".waypost/endpoints.json"))
    parser.add_argument("--runs", type=int, default=20, help="runs of each graph (default: 20)")
    given = parser.parse_args()
    asyncio.run(main(json.loads(given.endpoints.read_text()), given.runs))
