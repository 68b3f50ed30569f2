"""Records of another shape in the sessions of adapters, which anybody with the right to write commands can put there:
they are passed over or named in a clear error, and everything that was there before can still be read.
"""

import base64
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from agent_framework import WorkflowCheckpoint, WorkflowCheckpointException
from langgraph.checkpoint.base import empty_checkpoint
from tests.integration.langgraph_threads import history, put, thread
from tests.support.deployment import Deployment

from waypost import InvalidCommandError, Publisher
from waypost.adapters import Backend, UnreadableValueError
from waypost.adapters import _langgraph_layout as layout
from waypost.adapters.agent_framework import WaypostCheckpointStorage
from waypost.adapters.langgraph import StrictSerializer, WaypostSaver
from waypost.adapters.openai_agents import WaypostSession
from waypost.adapters.records import divided
from waypost.errors import LONGEST_MESSAGE

GONE = object()
OTHERS: list[Any] = [GONE, None, 7, "x", [7], {"a": [1]}]
Shape = tuple[str, dict[str, Any], dict[str, Any]]


@pytest.fixture
async def stranger(adapter_world: Deployment) -> AsyncIterator[Publisher]:
    """Has the right to write to the command topic, and nothing else."""
    server = adapter_world.endpoints.bootstrap_servers
    async with Publisher(server, topic_prefix=adapter_world.topics.prefix) as publisher:
        yield publisher


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    steps: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        steps = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))
    for step, child in steps:
        yield (*path, step)
        yield from places(child, (*path, step))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another value at a place."""
    made = copy.deepcopy(value)
    at = made
    for step in path[:-1]:
        at = at[step]
    if new is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return made


def shapes_of(name: str, data: dict[str, Any], metadata: dict[str, Any]) -> Iterator[Shape]:
    """A record with each of its fields gone or of another type."""
    for new in OTHERS:
        for path in places(metadata):
            yield name, data, changed(metadata, path, new)
        for path in places(data):
            yield name, changed(data, path, new), metadata
    yield name, {}, {}
    yield name, {}, metadata
    yield name, data, {}


def langgraph_shapes() -> list[Shape]:
    checkpoint: Any = {
        **empty_checkpoint(),
        "id": "ffffffff",
        "channel_values": {"notes": ["x"], "large": "y" * 20_000},
        "channel_versions": {"notes": "9", "large": "9", "delta": "9"},
    }
    metadata: Any = {"source": "loop", "run_id": "r", "counters_since_delta_snapshot": {"delta": 1}}
    config = {"checkpoint_id": "parent"}
    before, record = layout.checkpoint_records(
        StrictSerializer(), config, checkpoint, metadata, {"notes": "9", "large": "9"}
    )
    writes = layout.writes_record(
        StrictSerializer(), {"checkpoint_id": "ffffffff"}, [("notes", ["y"])], "task", ""
    )
    parted = divided(record._replace(data={**record.data, "pad": "z" * 900_000}))
    records = [record, *before, writes, parted.main, *parted.parts[:1]]
    found = [shape for each in records for shape in shapes_of(each.name, each.data, each.metadata)]
    return [("odd", {}, {}), ("part", {"base64": "?"}, {"batch": [], "part": {}}), *found]


def batches(shapes: list[Shape], count: int) -> list[list[Shape]]:
    return [shapes[start::count] for start in range(count)]


async def planted(stranger: Publisher, session_id: str, shape: Shape) -> None:
    result = await stranger.create_and_wait(session_id, *shape)
    assert result.type.endswith("created"), result


async def fine(call: Awaitable[Any], *errors: type[Exception]) -> Any:
    """What a call gave; None if it raised one of these errors, with a message that people can use."""
    try:
        return await call
    except errors as error:
        said = str(error)
    assert said.replace("\n", "").isprintable()
    assert len(said) <= LONGEST_MESSAGE
    return None


SHAPES = langgraph_shapes()


@pytest.mark.parametrize("shapes", batches(SHAPES, 6))
async def test_a_record_of_another_shape_in_a_thread_is_our_error_or_passed_over(
    backend: Backend, stranger: Publisher, shapes: list[Shape]
) -> None:
    saver = WaypostSaver(backend)
    for number, shape in enumerate(shapes):
        config = thread(str(number))
        good = await put(saver, {"notes": ["good"]}, config)
        await planted(stranger, f"langgraph/{number}", shape)
        await fine(saver.aget_tuple(config), UnreadableValueError)
        await fine(saver.aget_tuple(thread(str(number), checkpoint_id="ffffffff")), UnreadableValueError)
        await fine(history(saver, config), UnreadableValueError)
        await fine(
            saver.aget_delta_channel_history(config=config, channels=["notes", "delta"]), UnreadableValueError
        )
        # By its id, the good one is read whatever lies beside it.
        found = await saver.aget_tuple(good)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"notes": ["good"]}
        await saver.aprune([str(number)])
        await saver.adelete_for_runs(["r", "\0", "\ud800"])
        await saver.adelete_thread(str(number))
        assert await history(saver, config) == []


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("checkpoint", {}),
        ("checkpoint", {"ns": ""}),
        ("checkpoint", {"ns": "", "id": "zzzz"}),
        ("checkpoint", {"ns": "", "id": "zzzz", "needs": 7}),
        ("checkpoint", {"ns": ["a"], "id": {"b": 1}, "needs": [], "holds": [], "facts": {}}),
        ("writes", {"id": "zzzz"}),
        ("values", {"holds": 7}),
        ("part", {}),
        ("anything", {"ns": "", "id": "zzzz"}),
    ],
)
async def test_foreign_records_change_nothing(
    backend: Backend, stranger: Publisher, name: str, metadata: dict[str, Any]
) -> None:
    saver = WaypostSaver(backend)
    good = await put(saver, {"notes": ["good"]})
    before = (await saver.aget_tuple(thread()), await history(saver, thread()))
    await planted(stranger, "langgraph/t", (name, {"base64": "AAAA"}, metadata))
    assert (await saver.aget_tuple(thread()), await history(saver, thread())) == before
    assert [each.config for each in [each async for each in saver.alist(None, limit=1)]] == [good]


async def test_parts_that_a_stranger_adds_do_not_take_the_place_of_the_adapters(
    backend: Backend, stranger: Publisher
) -> None:
    saver = WaypostSaver(backend)
    value = "z" * 1_000_000
    await put(saver, {"notes": value})
    rows = await backend.rows("langgraph/t", "index")
    parts = [row for row in rows if row.name == "part"]
    assert parts
    for part in parts:
        for raw in (b"{}", b"no JSON", b""):
            data = {"base64": base64.b64encode(raw).decode()}
            await planted(stranger, "langgraph/t", ("part", data, part.metadata))
    found = await saver.aget_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"notes": value}


def workflow_shapes() -> list[Shape]:
    made = WorkflowCheckpoint(workflow_name="flow", graph_signature_hash="h").to_dict()
    metadata = {"id": "bad", "workflow": "flow", "previous": None, "iteration": 0}
    found = list(shapes_of("checkpoint", {"checkpoint": {**made, "checkpoint_id": "bad"}}, metadata))
    hostile = {"checkpoint": {**made, "\x9b\u202e" * 1000: 1}}
    return [
        *found,
        ("checkpoint", hostile, metadata),
        ("checkpoint", {}, {**metadata, "batch": "b", "parts": 1}),
    ]


async def test_a_record_of_another_shape_in_a_scope_is_our_error_or_passed_over(
    backend: Backend, stranger: Publisher
) -> None:
    for number, shape in enumerate(workflow_shapes()):
        storage = WaypostCheckpointStorage(backend, str(number), keep=1)
        good = WorkflowCheckpoint(workflow_name="flow", graph_signature_hash="h")
        await storage.save(good)
        await planted(stranger, f"agent-framework/{number}", shape)
        listing = (
            storage.load("bad"),
            storage.get_latest(workflow_name="flow"),
            storage.list_checkpoints(workflow_name="flow"),
        )
        for call in listing:
            await fine(call, WorkflowCheckpointException, UnreadableValueError)
        assert await storage.load(good.checkpoint_id) == good
        assert good.checkpoint_id in await storage.list_checkpoint_ids(workflow_name="flow")
        await storage._drop_old(1)
        await storage.delete("bad")
        await storage.delete(good.checkpoint_id)


async def test_a_foreign_record_does_not_hide_the_latest_checkpoint_of_a_workflow(
    backend: Backend, stranger: Publisher
) -> None:
    storage = WaypostCheckpointStorage(backend, "run")
    good = WorkflowCheckpoint(workflow_name="flow", graph_signature_hash="h")
    await storage.save(good)
    for metadata in ({"workflow": "flow"}, {"id": good.checkpoint_id}, {"id": [1], "workflow": "flow"}):
        await planted(stranger, "agent-framework/run", ("checkpoint", {}, metadata))
    assert await storage.get_latest(workflow_name="flow") == good
    assert await storage.load(good.checkpoint_id) == good
    assert await storage.list_checkpoints(workflow_name="flow") == [good]


async def test_a_record_without_an_item_is_not_part_of_a_conversation(
    backend: Backend, stranger: Publisher
) -> None:
    session = WaypostSession("user", backend, keep=1)
    items: list[Any] = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    await session.add_items(items)
    for data, metadata in (
        ({}, {}),
        ({"items": []}, {"type": 7}),
        ({}, {"batch": "b", "parts": "x"}),
        ({}, {"batch": 7}),
    ):
        await planted(stranger, "openai-agents/user", ("item", data, metadata))
    assert await session.get_items() == items
    assert await session.get_items(1) == items[1:]
    assert await session.pop_item() == items[1]
    assert await session.pop_item() == items[0]
    assert await session.pop_item() is None
    await session.clear_session()


BAD = ("a\0b", "\ud800", "x\udfff")


@pytest.mark.parametrize("bad", BAD)
async def test_text_that_no_server_takes_is_our_error_in_every_call_of_every_adapter(
    backend: Backend, bad: str
) -> None:
    saver = WaypostSaver(backend)
    good = await put(saver, {"notes": ["good"]})
    checkpoint: Any = {**empty_checkpoint(), "channel_values": {bad: 1}, "channel_versions": {bad: "1"}}
    named: Any = {**empty_checkpoint(), "id": bad}
    storage = WaypostCheckpointStorage(backend, bad)
    session = WaypostSession(bad, backend)
    made = WorkflowCheckpoint(workflow_name=bad, graph_signature_hash="h", state={bad: bad})
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: saver.aget_tuple(thread(bad)),
        "get a namespace": lambda: saver.aget_tuple(thread(ns=bad)),
        "get an id": lambda: saver.aget_tuple(thread(checkpoint_id=bad)),
        "list": lambda: history(saver, thread(bad)),
        "list a namespace": lambda: history(saver, thread(ns=bad)),
        "filter": lambda: drained(saver.alist(None, filter={"source": bad})),
        "filter by a key": lambda: drained(saver.alist(None, filter={bad: "a"})),
        "before": lambda: drained(saver.alist(thread(), before=thread(checkpoint_id=bad))),
        "put": lambda: saver.aput(thread(bad), empty_checkpoint(), {"source": "loop"}, {}),
        "put a namespace": lambda: saver.aput(thread(ns=bad), empty_checkpoint(), {"source": "loop"}, {}),
        "put an id": lambda: saver.aput(thread(), named, {"source": "loop"}, {}),
        "put a channel": lambda: saver.aput(thread(), checkpoint, {"source": "loop"}, {bad: "1"}),
        "put metadata": lambda: saver.aput(thread(), empty_checkpoint(), {"source": bad, bad: 1}, {}),  # type: ignore[arg-type,misc,typeddict-item]
        "write": lambda: saver.aput_writes(good, [(bad, bad)], bad, bad),
        "write to a thread": lambda: saver.aput_writes(thread(bad, checkpoint_id="1"), [("c", 1)], "task"),
        "delta": lambda: saver.aget_delta_channel_history(config=thread(ns=bad), channels=[bad]),
        "delete runs": lambda: saver.adelete_for_runs([bad]),
        "delete": lambda: saver.adelete_thread(bad),
        "copy": lambda: saver.acopy_thread("t", bad),
        "copy from": lambda: saver.acopy_thread(bad, "u"),
        "prune": lambda: saver.aprune([bad]),
        "save": lambda: storage.save(made),
        "load": lambda: storage.load(bad),
        "list checkpoints": lambda: storage.list_checkpoints(workflow_name=bad),
        "list ids": lambda: storage.list_checkpoint_ids(workflow_name=bad),
        "latest": lambda: storage.get_latest(workflow_name=bad),
        "delete a checkpoint": lambda: storage.delete(bad),
        "add items": lambda: session.add_items([{"role": bad, "content": bad}]),  # type: ignore[list-item,typeddict-item]
        "get items": session.get_items,
        "pop": session.pop_item,
        "clear": session.clear_session,
    }
    for what, call in calls.items():
        try:
            await call()
        except Exception as error:
            raised = error
        else:
            continue
        expected = InvalidCommandError | UnreadableValueError | WorkflowCheckpointException
        assert isinstance(raised, expected), (what, raised)
        assert str(raised).isprintable(), what
    found = await saver.aget_tuple(good)
    assert found is not None


async def drained(found: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in found]
