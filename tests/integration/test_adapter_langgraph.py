"""LangGraph graphs on Waypost: the same as in memory, from any thread, bounded, and safe for several writers."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from tests.integration.adapters import running_backend
from tests.integration.langgraph_threads import (
    delta_graph,
    fan_graph,
    history,
    put,
    review_graph,
    shown,
    thread,
)
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import Publisher, PublisherClosedError, Reader, ReaderTimeoutError, ResultTimeoutError
from waypost.adapters import Backend
from waypost.adapters.backend import Durability
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.records import POLICY
from waypost_worker.devserver import Servers

MODES: tuple[Durability, ...] = ("accepted", "logged", "applied")
WRITER = Path(__file__).with_name("concurrent_writer.py")


async def lived_through(saver: BaseCheckpointSaver[Any]) -> list[Any]:
    """Interrupt, resume, look back, change the past, copy a checkpoint; what each step gave."""
    graph = review_graph(saver)
    config = thread("story")
    found: list[Any] = [await graph.ainvoke({"notes": ["first"], "question": "sure?"}, config)]
    found[0].pop("__interrupt__")
    found.append(await graph.ainvoke(Command(resume="yes"), config))
    states = [each async for each in graph.aget_state_history(config)]
    found.append([(state.values, state.next, len(state.tasks)) for state in states])
    earlier = next(state for state in states if state.next == ("consult",))
    changed = await graph.aupdate_state(earlier.config, {"notes": ["changed"]}, as_node="left")
    copied = await graph.aupdate_state(earlier.config, None, as_node="__copy__")
    for each in (changed, copied):
        state = await graph.aget_state(each)
        found.append((state.values, state.next))
    found.append((await graph.aget_state(config)).next)
    found.append([state.values async for state in graph.aget_state_history(config, before=earlier.config)])
    found.append(shown(await history(saver, config)))
    everywhere = shown([each async for each in saver.alist({"configurable": {"thread_id": "story"}})])
    found.append(sorted(repr((values, *rest)) for values, metadata, place, *rest in everywhere))
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_a_graph_lives_the_same_life_as_in_memory(backend: Backend, mode: Durability) -> None:
    in_memory = await lived_through(InMemorySaver())
    ours = await lived_through(WaypostSaver(backend, durability=mode))
    for mine, theirs in zip(ours, in_memory, strict=True):
        assert mine == theirs


async def fanned_out(saver: BaseCheckpointSaver[Any]) -> list[Any]:
    """Send to many, stop before the end, go on, fork from the middle; what each step gave."""
    graph = fan_graph(saver)
    config = thread("fan")
    found: list[Any] = [await graph.ainvoke({"topics": ["a", "b", "c"], "notes": []}, config)]
    found.append((await graph.aget_state(config)).next)
    found.append(await graph.ainvoke(None, config))
    states = [each async for each in graph.aget_state_history(config)]
    found.append([(state.values, state.next) for state in states])
    middle = next(state for state in states if state.next == ("gather",))
    forked = await graph.aupdate_state(middle.config, {"notes": ["forked"]})
    found.append(await graph.ainvoke(None, forked))
    found.append(shown(await history(saver, config)))
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_a_graph_that_sends_lives_the_same_life_as_in_memory(
    backend: Backend, mode: Durability
) -> None:
    in_memory = await fanned_out(InMemorySaver())
    ours = await fanned_out(WaypostSaver(backend, durability=mode))
    for mine, theirs in zip(ours, in_memory, strict=True):
        assert mine == theirs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_every_durability_leaves_what_it_leaves_in_memory(
    backend: Backend, durability: Any, mode: Durability
) -> None:
    left = []
    for saver in (WaypostSaver(backend, durability=mode), InMemorySaver()):
        for graph, given in (
            (review_graph(saver), {"notes": ["first"], "question": "sure?"}),
            (delta_graph(saver), {"log": ["input"], "step": 0}),
        ):
            config = thread(f"of {len(given)} {sorted(given)[0]}")
            await graph.ainvoke(given, config, durability=durability)
            await graph.ainvoke(given, config, durability=durability)
            state = await graph.aget_state(config)
            left.append((shown(await history(saver, config)), state.values, state.next))
    assert left[:2] == left[2:]


async def test_a_worker_that_dies_within_a_run_costs_time_alone(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with (
        deployment(servers.endpoints, database, topic_prefix) as world,
        running_backend(world) as backend,
    ):
        first = world.own()
        graph = delta_graph(WaypostSaver(backend))
        await graph.ainvoke({"log": ["input 0"], "step": 0}, thread())
        running = asyncio.create_task(graph.ainvoke({"log": ["input 1"], "step": 1}, thread()))
        await world.until(lambda: first.told.applied_count >= 8)
        await first.crash()
        world.own()
        done = await asyncio.wait_for(running, PATIENCE)
        assert done["log"] == ["input 0", "step 0", "input 1", "step 1"]
        assert (await graph.aget_state(thread())).values == done
        await world.balanced()


async def test_delta_channels_are_rebuilt_and_survive_pruning(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    graph = delta_graph(saver)
    for step in range(7):
        await graph.ainvoke({"log": [f"input {step}"], "step": step}, thread())
    expected = [f"{what} {step}" for step in range(7) for what in ("input", "step")]
    assert (await graph.aget_state(thread())).values["log"] == expected
    for each in await history(saver, thread()):
        ours = await saver.aget_delta_channel_history(config=each.config, channels=["log", "step"])
        theirs = await BaseCheckpointSaver.aget_delta_channel_history(
            saver, config=each.config, channels=["log", "step"]
        )
        assert ours == theirs
    before = len(await history(saver, thread()))
    await saver.aprune(["t"])
    assert 1 <= len(await history(saver, thread())) < before
    assert (await graph.aget_state(thread())).values["log"] == expected
    await graph.ainvoke({"log": ["input 7"], "step": 7}, thread())
    assert (await graph.aget_state(thread())).values["log"] == [*expected, "input 7", "step 7"]


async def test_two_processes_write_one_thread_and_nothing_is_lost(
    adapter_world: Deployment, backend: Backend
) -> None:
    count = 40
    writers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, WRITER, name, str(count)),
            *(adapter_world.endpoints.bootstrap_servers, adapter_world.dsn, adapter_world.topics.prefix),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await asyncio.wait_for(writer.stdout.readline(), PATIENCE) == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        await writer.stdin.drain()
    assert [await asyncio.wait_for(writer.wait(), PATIENCE) for writer in writers] == [0, 0]

    saver = WaypostSaver(backend)
    found = await history(saver, thread("shared"))
    by_writer: dict[Any, list[CheckpointTuple]] = {}
    for each in reversed(found):
        by_writer.setdefault(dict(each.metadata)["writer"], []).append(each)
    for name in ("a", "b"):
        mine = by_writer[name]
        assert [each.checkpoint["channel_values"] for each in mine] == [
            {"state": f"{name}-{step}"} for step in range(count)
        ]
        assert [each.pending_writes for each in mine] == [
            [(f"task-{name}-{step}", "state", f"{name}-{step}-next")] for step in range(count)
        ]
        assert [each.parent_config for each in mine[1:]] == [each.config for each in mine[:-1]]
    # They did write at the same time, or the test would show nothing.
    order = [dict(each.metadata)["writer"] for each in found]
    assert order not in ([*"a" * count, *"b" * count], [*"b" * count, *"a" * count])
    await adapter_world.balanced()


async def test_an_exported_thread_comes_back_whole(adapter_world: Deployment, backend: Backend) -> None:
    saver = WaypostSaver(backend)
    graph = review_graph(saver)
    await graph.ainvoke({"notes": ["first"], "question": "sure?"}, thread())
    before = await history(saver, thread())
    server = adapter_world.endpoints.bootstrap_servers
    async with (
        Reader(adapter_world.dsn) as reader,
        Publisher(server, topic_prefix=adapter_world.topics.prefix) as to,
    ):
        exported = await reader.session("langgraph/t").export()
        await saver.adelete_thread("t")
        assert await saver.aget_tuple(thread()) is None
        to.configure("langgraph/elsewhere", **POLICY)
        to.import_checkpoints("langgraph/elsewhere", exported)
        await to.create_and_wait("langgraph/elsewhere", "done", {})
    after = await history(saver, thread("elsewhere"))
    assert shown(after) == shown(before)
    done = await graph.ainvoke(Command(resume="yes"), thread("elsewhere"))
    assert done["notes"] == ["first", "left", "right", "yes"]


async def test_plain_methods_work_from_a_thread(adapter_world: Deployment) -> None:
    def story() -> list[Any]:
        without_prepared = {"statement_cache_size": 0}  # as behind pgbouncer
        with running_backend(adapter_world, reader_options=without_prepared) as backend:
            saver = WaypostSaver(backend)
            graph = review_graph(saver)
            config = thread("plain")
            graph.invoke({"notes": ["first"], "question": "sure?"}, config)
            done = graph.invoke(Command(resume="yes"), config)
            listed = [each.metadata["step"] for each in saver.list(config)]
            assert saver.get_tuple(config) is not None
            saver.copy_thread("plain", "other")
            saver.prune(["other"])
            assert len(list(saver.list(thread("other")))) == 1
            saver.delete_for_runs(["nothing"])
            saver.delete_thread("plain")
            assert saver.get_tuple(config) is None
            return [done["notes"], listed]

    assert await asyncio.to_thread(story) == [["first", "left", "right", "yes"], [2, 1, 0, -1]]


async def test_another_event_loop_may_use_the_backend(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    await put(saver, {"step": 1})
    answers: list[Any] = []

    def elsewhere() -> None:
        async def look() -> None:
            answers.append(await saver.aget_tuple(thread()))
            answers.append(await history(saver, thread()))

        asyncio.run(look())

    other = threading.Thread(target=elsewhere)
    other.start()
    await asyncio.to_thread(other.join)
    assert answers == [await saver.aget_tuple(thread()), await history(saver, thread())]


async def test_a_plain_method_on_the_backends_own_loop_says_what_to_do(backend: Backend) -> None:
    with pytest.raises(RuntimeError, match="use the async method"):
        WaypostSaver(backend).get_tuple(thread())


async def test_a_backend_that_is_not_running_raises_an_error(adapter_world: Deployment) -> None:
    backend = running_backend(adapter_world)
    with pytest.raises(PublisherClosedError, match="async with Backend"):
        await WaypostSaver(backend).aget_tuple(thread())
    async with backend:
        pass
    with pytest.raises(PublisherClosedError, match="async with Backend"):
        await put(WaypostSaver(backend), {})


async def test_a_backend_on_a_loop_that_does_not_run_raises_an_error(adapter_world: Deployment) -> None:
    def story() -> None:
        loop = asyncio.new_event_loop()
        backend = loop.run_until_complete(running_backend(adapter_world).__aenter__())
        saver = WaypostSaver(backend)
        with pytest.raises(PublisherClosedError, match="is not running"):
            saver.get_tuple(thread())
        with pytest.raises(PublisherClosedError, match="is not running"):
            asyncio.run(put(saver, {}))
        assert loop.run_until_complete(saver.aget_tuple(thread())) is None
        loop.run_until_complete(backend.__aexit__())
        loop.close()

    await asyncio.to_thread(story)


async def test_a_call_whose_loop_stops_meanwhile_raises_an_error(
    adapter_world: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.home_loop._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("waypost.publisher.loops._LOOK_SECONDS", 0.01)
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    backend = running_backend(adapter_world)
    await asyncio.to_thread(asyncio.run_coroutine_threadsafe(backend.__aenter__(), loop).result)
    begun = threading.Event()

    async def never() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    waiting = [asyncio.create_task(asyncio.to_thread(lambda: backend.run(never())))]
    await asyncio.to_thread(begun.wait)
    waiting.append(asyncio.create_task(backend.join(never())))
    await asyncio.sleep(0)
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(runner.join)
    for each in waiting:
        with pytest.raises(PublisherClosedError, match="stopped before the call was done"):
            await each
    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    await asyncio.to_thread(asyncio.run_coroutine_threadsafe(backend.__aexit__(), loop).result)
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(runner.join)
    loop.close()


AFTER_A_FORK = """
import os, sys
from waypost import PublisherClosedError
from waypost.adapters import Backend
from waypost.adapters.backend import Durability
from waypost.adapters.langgraph import WaypostSaver

servers, dsn, prefix = sys.argv[1:]
with Backend(servers, dsn, topic_prefix=prefix) as backend:
    saver = WaypostSaver(backend)
    if (child := os.fork()) == 0:
        try:
            saver.get_tuple({"configurable": {"thread_id": "t"}})
        except PublisherClosedError as error:
            print("before a fork" in str(error), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


async def test_a_backend_from_before_a_fork_raises_an_error_instead_of_waiting(
    adapter_world: Deployment,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", AFTER_A_FORK),
        *(adapter_world.endpoints.bootstrap_servers, adapter_world.dsn, adapter_world.topics.prefix),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert out == b"True\n"


async def test_without_a_worker_a_put_says_what_is_known(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with (
        deployment(servers.endpoints, database, topic_prefix) as adapter_world,
        running_backend(adapter_world, timeout=0.5) as backend,
    ):
        saver = WaypostSaver(backend)
        await put(saver, {"step": 1})  # Kafka has it
        newest = await saver.aget_tuple(thread())
        assert newest is not None
        assert newest.checkpoint["channel_values"] == {"step": 1}
        with pytest.raises(
            ReaderTimeoutError, match=r"Kafka has some up to \d+, after 0.5 s. Is a worker running"
        ):
            await history(saver, thread())
        with pytest.raises(ResultTimeoutError, match="is a worker running"):
            await put(WaypostSaver(backend, durability="applied"), {})


WITHOUT = """
import sys
sys.modules[{package!r}] = None
try:
    import waypost.adapters.{module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langgraph", "langgraph.checkpoint.base", "langgraph"),
        ("openai_agents", "agents", "openai-agents"),
        ("agent_framework", "agent_framework", "agent-framework"),
    ],
)
async def test_without_the_framework_the_error_says_what_to_install(
    module: str, package: str, extra: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WITHOUT.format(package=package, module=module)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert f"pip install 'waypost[{extra}]'" in out.decode()
