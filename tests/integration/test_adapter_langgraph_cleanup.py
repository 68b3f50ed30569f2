"""Clean-ups of LangGraph threads on real servers: they bound a thread, lose nothing, never meet, never fail a run."""

import asyncio
import logging
from datetime import timedelta
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from tests.integration.adapters import running_backend
from tests.integration.langgraph_threads import delta_graph, history, put, records, thread
from tests.support.deployment import Deployment

from waypost import Publisher
from waypost.adapters import Backend, MissingValueError, SessionFullError
from waypost.adapters import _langgraph_cleanup as cleanup
from waypost.adapters.langgraph import WaypostSaver


async def tidy(backend: Backend, thread_id: str = "t") -> None:
    await backend._clean_ups.ended(f"langgraph/{thread_id}")


@pytest.mark.parametrize("trusted", [True, False], ids=["in time", "after the lease"])
@pytest.mark.parametrize("how", ["keep", "prune"])
async def test_a_slow_run_finds_its_values_after_others_cleaned_up(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch, how: str, trusted: bool
) -> None:
    monkeypatch.setattr(cleanup, "CROWDED", 10)
    async with running_backend(adapter_world) as elsewhere:
        slow, others = WaypostSaver(elsewhere), WaypostSaver(backend, keep=1 if how == "keep" else None)
        values = {"plan": "the slow one's", "document": "x" * 20_000}
        config = await put(slow, values)
        for number in range(70):
            await put(others, {"plan": f"another {number}"}, None, {"plan"}, step=number)
            await tidy(backend)
        if not trusted:  # ten minutes later, nothing is left of it
            with monkeypatch.context() as patch:
                patch.setattr(cleanup, "LEASE", timedelta(0))
                await others.aprune(["t"])
            slow._known.forget("langgraph/t")
        elif how == "prune":
            await others.aprune(["t"])
        assert len(await history(others, thread())) < 70
        await put(slow, {**values, "step": 2}, config, {"step"})
        newest = await others.aget_tuple(thread())
        assert newest is not None
        assert newest.checkpoint["channel_values"] == {**values, "step": 2}


async def test_a_value_that_is_missing_is_an_error_and_never_left_out(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    await put(saver, {"small": 1, "large": "x" * 20_000})
    (values,) = [row.number for row in await backend.rows("langgraph/t", "index") if row.name == "values"]
    server = adapter_world.endpoints.bootstrap_servers
    async with Publisher(server, topic_prefix=adapter_world.topics.prefix) as publisher:
        publisher.delete("langgraph/t", f"langgraph/t:{values}")
        await publisher.create_and_wait("langgraph/t", "done", {})
    for read in (saver.aget_tuple(thread()), history(saver, thread())):
        with pytest.raises(
            MissingValueError, match=r"channel 'large' of checkpoint .* of thread 't' is missing"
        ):
            await read


async def test_a_delta_channel_that_lacks_what_it_is_built_from_is_an_error(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    graph = delta_graph(saver)
    await graph.ainvoke({"log": ["input 0"], "step": 0}, thread())
    rows = await backend.rows("langgraph/t", "index")
    newest, *_, first = [row.number for row in reversed(rows) if row.name == "checkpoint"]
    for number in range(first, newest):
        await backend.delete("langgraph/t", [number])
    with pytest.raises(
        MissingValueError, match="Channel 'log' is built from checkpoints of which some are missing"
    ):
        await graph.aget_state(thread())
    with pytest.raises(MissingValueError, match="Channel 'log'"):
        await graph.ainvoke({"log": ["input 1"], "step": 1}, thread())


async def test_clean_ups_of_one_thread_never_meet(
    adapter_world: Deployment,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cleanup, "LEASE", timedelta(0))
    under_way: list[int] = []
    most = 0
    remove = WaypostSaver(backend)._cleaner.__class__._remove

    async def watched(*arguments: Any) -> None:
        nonlocal most
        under_way.append(1)
        most = max(most, len(under_way))
        await remove(*arguments)
        under_way.pop()

    monkeypatch.setattr("waypost.adapters._langgraph_cleaner.Cleaner._remove", watched)
    async with running_backend(adapter_world) as elsewhere:
        savers = [WaypostSaver(each, keep=2) for each in (backend, elsewhere) for _ in range(2)]
        values: dict[str, Any] = {"document": "x" * 20_000, "small": "kept"}
        config = await put(savers[0], {**values, "step": 0})
        for step in range(1, 140):
            config = await put(savers[step % 4], {**values, "step": step}, config, {"step"}, step=step)
        await asyncio.gather(*(saver.aprune(["t"]) for saver in savers))
        found = await history(savers[0], thread())
        assert [each.checkpoint["channel_values"] for each in found] == [{**values, "step": 139}]
    assert most == 1
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    await adapter_world.balanced()


async def test_a_clean_up_that_fails_fails_no_run_and_is_tried_again(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cleanup, "LEASE", timedelta(0))
    saver = WaypostSaver(backend, keep=1)

    async def fails(*_: Any) -> None:
        raise KeyError("digest")

    with monkeypatch.context() as patch:
        patch.setattr("waypost.adapters._langgraph_cleaner.Cleaner._remove", fails)
        for step in range(70):
            await put(saver, {"step": step})
        await tidy(backend)
    assert "Old records of 'langgraph/t' could not be removed now" in caplog.text
    assert len(await history(saver, thread())) == 70
    for step in range(70, 140):
        await put(saver, {"step": step})
    await tidy(backend)
    assert len(await history(saver, thread())) < 70


class Talk(TypedDict):
    said: str


async def test_keep_bounds_a_thread_whose_graph_calls_subgraphs(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "LEASE", timedelta(0))
    inner = (
        StateGraph(Talk)
        .add_node("ask", lambda _: {"said": "asked"})
        .add_edge(START, "ask")
        .compile(checkpointer=None)
    )
    middle = StateGraph(Talk).add_node("inner", inner).add_edge(START, "inner").compile()
    saver = WaypostSaver(backend, keep=1)
    graph = StateGraph(Talk).add_node("middle", middle).add_edge(START, "middle").compile(checkpointer=saver)
    for turn in range(12):
        await graph.ainvoke({"said": f"turn {turn}"}, thread())
        await tidy(backend)
    await saver.aprune(["t"])
    left = await records(adapter_world)
    # The newest checkpoint of the graph itself, and nothing of the calls before it.
    namespaces = {
        row.metadata["ns"] for row in await backend.rows("langgraph/t", "index") if row.name == "checkpoint"
    }
    assert namespaces == {""}
    assert left["checkpoint"] == 1
    assert sum(left.values()) < 10
    assert (await graph.aget_state(thread())).values == {"said": "asked"}


async def test_a_full_thread_says_what_helps(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 10)
    for keep, advice in (
        (None, "or give WaypostSaver keep=N"),
        (8, "keep=8 is set, and what it keeps fills"),
    ):
        saver = WaypostSaver(backend, keep=keep)
        config = thread(f"keep {keep}")
        for _ in range(10):
            await put(saver, {}, config)
        with pytest.raises(SessionFullError, match=advice):
            await put(saver, {}, config)


async def test_a_delta_channel_of_a_slow_run_survives_others_clean_ups(
    adapter_world: Deployment, backend: Backend
) -> None:
    async with running_backend(adapter_world) as elsewhere:
        graph, saver = delta_graph(WaypostSaver(elsewhere)), WaypostSaver(backend)
        await graph.ainvoke({"log": ["input 0"], "step": 0}, thread())
        slow = (await graph.aget_state(thread())).config
        for number in range(20):
            await put(saver, {"step": number}, thread(), step=number)
        await saver.aprune(["t"])
        done = await graph.ainvoke({"log": ["input 1"], "step": 1}, slow)
        assert done["log"] == ["input 0", "step 0", "input 1", "step 1"]
