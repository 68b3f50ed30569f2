"""LangGraph graphs on Waypost: the same as in memory, from any thread, bounded, and safe for several writers."""

import asyncio
import operator
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from tests.adapters import running_backend
from tests.harness import Deployment, deployment

from waypost import InvalidCommandError, Publisher, PublisherClosedError, Reader, ResultTimeoutError, commands
from waypost.adapters import Backend, SessionFullError
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.records import POLICY
from waypost.outgoing import policy_body
from waypost_worker.devserver import Servers

WRITER = Path(__file__).with_name("concurrent_writer.py")


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

    from langgraph._internal._runnable import RunnableCallable

    builder = StateGraph(State)
    builder.add_node("left", lambda _: {"notes": ["left"]})
    builder.add_node("right", lambda _: {"notes": ["right"]})
    builder.add_node("consult", RunnableCallable(consult, aconsult))
    for name in ("left", "right"):
        builder.add_edge(START, name)
        builder.add_edge(name, "consult")
    builder.add_edge("consult", END)
    return builder.compile(checkpointer=saver)


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


async def test_a_graph_lives_the_same_life_as_in_memory(backend: Backend) -> None:
    in_memory = await lived_through(InMemorySaver())
    for ours, theirs in zip(await lived_through(WaypostSaver(backend)), in_memory, strict=True):
        assert ours == theirs


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
        assert await asyncio.wait_for(writer.stdout.readline(), 60) == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        await writer.stdin.drain()
    assert [await asyncio.wait_for(writer.wait(), 60) for writer in writers] == [0, 0]

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


async def test_a_value_is_stored_once_however_many_checkpoints_have_it(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    config = await put(saver, {"document": "x" * 200_000, "step": 0})
    for step in range(1, 20):
        config = await put(saver, {"document": "x" * 200_000, "step": step}, config, {"step"})
    for each in await history(saver, thread()):
        assert each.checkpoint["channel_values"]["document"] == "x" * 200_000
    connection = await asyncpg.connect(adapter_world.dsn)
    stored = await connection.fetchval("select sum(length(data)) from waypost.checkpoints")
    await connection.close()
    assert stored < 2 * 200_000


async def test_what_exceeds_a_command_is_cut_and_put_together(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    large = {"blob": bytes(range(256)) * 12_000, "text": "ü" * 1_000_000}
    config = await put(saver, {**large, "small": 1})
    await saver.aput_writes(config, [("blob", large["text"]), ("small", 2)], "task")
    assert (await records(adapter_world))["part"] > 6
    found = await saver.aget_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"] == {**large, "small": 1}
    assert found.pending_writes == [("task", "blob", large["text"]), ("task", "small", 2)]
    await saver.acopy_thread("t", "copy")
    copied = await saver.aget_tuple(thread("copy"))
    assert copied is not None
    assert copied.checkpoint == found.checkpoint
    await put(saver, {"small": 3}, config, {"small"})
    await saver.aprune(["t"])
    assert await records(adapter_world) == {"checkpoint": 1}


async def test_deleting_a_run_leaves_other_checkpoints_their_values(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    values = {"small": "kept", "large": "x" * 30_000}
    first = await put(saver, values, run_id="one")
    await put(saver, {**values, "more": 1}, first, {"more"}, run_id="two")
    await saver.adelete_for_runs(["one"])
    (left,) = await history(saver, thread())
    assert left.checkpoint["channel_values"] == {**values, "more": 1}
    await saver.adelete_for_runs(["two", "none"])
    assert await history(saver, thread()) == []
    assert await records(adapter_world) == {}


async def test_a_deployment_that_keeps_little_drops_nothing_of_a_thread(
    adapter_world: Deployment, backend: Backend
) -> None:
    for partition in range(adapter_world.partitions):
        body = policy_body({"max_checkpoints": 2, "max_age": 1})
        await adapter_world.send(body, None, commands.CONFIGURE_DEFAULTS.encode(), partition=partition)
    saver = WaypostSaver(backend)
    config = None
    for step in range(12):
        config = await put(saver, {"step": step}, config, {"step"}, step=step)
    assert [each.metadata["step"] for each in await history(saver, thread())] == list(reversed(range(12)))


async def test_a_full_thread_is_refused_and_goes_on_after_pruning(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 20)
    saver = WaypostSaver(backend)
    for step in range(20):
        await put(saver, {"step": step})
    with pytest.raises(SessionFullError, match=r"holds 20 records.*prune"):
        await put(saver, {"step": 20})
    assert len(await history(saver, thread())) == 20
    await saver.aprune(["t"])
    await put(saver, {"step": 20})
    assert len(await history(saver, thread())) == 2


async def test_a_write_that_cost_an_older_one_says_so(adapter_world: Deployment, backend: Backend) -> None:
    saver = WaypostSaver(backend)
    await put(saver, {"step": 0})
    await adapter_world.send(policy_body({"max_checkpoints": 2}), b"langgraph/t", commands.CONFIGURE.encode())
    await put(saver, {"step": 1})
    with pytest.raises(SessionFullError, match=r"lost 1 records to its retention, the first langgraph/t:2"):
        await put(saver, {"step": 2})


async def test_as_many_channels_as_the_page_promises(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    values = {f"a-channel-with-a-long-name-{number}": number for number in range(700)}
    facts = {f"fact-{number}": "v" * 100 for number in range(32)}  # as many as are searchable
    await put(saver, values, **facts)
    found = await saver.aget_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"] == values
    with pytest.raises(InvalidCommandError, match=r"metadata has \d+ bytes"):
        await put(saver, {f"channel-{number}": number for number in range(1_100)})


async def test_an_exported_thread_comes_back_whole(adapter_world: Deployment, backend: Backend) -> None:
    saver = WaypostSaver(backend)
    graph = review_graph(saver)
    await graph.ainvoke({"notes": ["first"], "question": "sure?"}, thread())
    before = await history(saver, thread())
    server = adapter_world.endpoints.bootstrap_servers
    async with (
        Reader(adapter_world.dsn) as reader,
        Publisher(server, prefix=adapter_world.topics.prefix) as to,
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


async def test_keep_bounds_a_thread_without_anybody_pruning(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend, keep=5)
    config = await put(saver, {"document": "x" * 20_000, "step": 0})
    for step in range(1, 130):
        config = await put(saver, {"document": "x" * 20_000, "step": step}, config, {"step"}, step=step)
    found = await history(saver, thread())
    assert 5 <= len(found) <= 5 + 64
    assert all(each.checkpoint["channel_values"]["document"] == "x" * 20_000 for each in found)
    assert [each.metadata["step"] for each in found] == list(reversed(range(130 - len(found), 130)))
    assert (await records(adapter_world))["values"] == 1


async def test_plain_methods_work_from_a_thread(adapter_world: Deployment) -> None:
    def story() -> list[Any]:
        with running_backend(adapter_world) as backend:
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


async def test_a_backend_that_is_not_running_says_so(adapter_world: Deployment) -> None:
    backend = running_backend(adapter_world)
    with pytest.raises(PublisherClosedError, match="async with Backend"):
        await WaypostSaver(backend).aget_tuple(thread())
    async with backend:
        pass
    with pytest.raises(PublisherClosedError, match="async with Backend"):
        await put(WaypostSaver(backend), {})


async def test_without_a_worker_a_put_says_what_is_known(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with (
        deployment(servers.endpoints, database, topic_prefix) as adapter_world,
        running_backend(adapter_world, timeout=0.5) as backend,
    ):
        with pytest.raises(ResultTimeoutError, match="is a worker running"):
            await put(WaypostSaver(backend), {})


async def test_all_threads_are_listed_whatever_they_are_called(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    names = ["short", "long " * 100, "line\nbreak", "sha256:none", "ünï", "a/b:c"]
    for name in names:
        await put(saver, {"name": name}, thread(name))
        await put(saver, {"name": name}, thread(name, "child:1"))
    await saver.acopy_thread("long " * 100, "copied " * 50)
    await saver.acopy_thread("line\nbreak", "plain")
    found = [each async for each in saver.alist(None)]
    assert sorted({each.config["configurable"]["thread_id"] for each in found}) == sorted(
        [*names, "copied " * 50, "plain"]
    )
    assert len(found) == 2 * (len(names) + 2)
    for name in names:
        in_child = await history(saver, thread(name, "child:1"))
        assert [each.checkpoint["channel_values"] for each in in_child] == [{"name": name}]


async def test_filters_find_facts_that_postgres_holds_and_those_it_does_not(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    many = {f"key-{number}": "v" * 200 for number in range(60)}  # too many to be searchable
    told: list[dict[str, Any]] = [
        {"user": "ann", "score": 1},
        {"user": "ann", "score": 1.5},
        {"user": "bob", "score": True, "nested": {"a": [1]}},
        {"user": "ann", **many},
    ]
    for each in told:
        await put(saver, {}, **each)
    filters: list[dict[str, Any]] = [
        {"user": "ann"},
        {"user": "ann", "score": 1.5},
        {"nested": {"a": [1]}},
        {"key-7": "v" * 200, "user": "ann"},
        {"score": None},
        {"user": "nobody"},
    ]
    everything = await history(saver, thread())
    for wanted in filters:
        expected = [
            each.config
            for each in everything
            if all(dict(each.metadata).get(key) == value for key, value in wanted.items())
        ]
        assert [each.config async for each in saver.alist(thread(), filter=wanted)] == expected
        assert [each.config async for each in saver.alist(thread(), filter=wanted, limit=1)] == expected[:1]


async def test_before_an_unknown_checkpoint_counts_by_id(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    configs = [await put(saver, {}) for _ in range(3)]
    ids = [config["configurable"]["checkpoint_id"] for config in configs]
    listed = [each async for each in saver.alist(thread(), before=thread(checkpoint_id=ids[2][:-1]))]
    assert [each.config["configurable"]["checkpoint_id"] for each in listed] == [ids[1], ids[0]]


async def test_a_checkpoint_that_is_put_again_replaces_the_first(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    checkpoint: Any = {**empty_checkpoint(), "channel_values": {}, "channel_versions": {}}
    for step in (1, 2):
        await saver.aput(thread(), checkpoint, {"source": "loop", "step": step}, {})
    (found,) = await history(saver, thread())
    assert found.metadata["step"] == 2


async def test_clocks_that_disagree_hide_nothing(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    early = {**empty_checkpoint(), "id": "1e000000-0000-6000-8000-000000000000"}
    late = {**empty_checkpoint(), "id": "1f000000-0000-6000-8000-000000000000"}
    for each in (late, early):  # the second writer's clock is behind
        each["channel_values"], each["channel_versions"] = {}, {}
        await saver.aput(thread(), each, {"source": "loop", "step": 0}, {})  # type: ignore[arg-type]
    newest = await saver.aget_tuple(thread())
    assert newest is not None
    assert newest.checkpoint["id"] == early["id"]


async def test_nothing_is_pickled(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    assert saver.serde.pickle_fallback is False  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        await put(saver, {"lock": threading.Lock()})
    assert await saver.aget_tuple(thread()) is None


def test_keep_must_keep_something() -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        WaypostSaver(Backend("localhost:1", "postgresql://x"), keep=0)


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
