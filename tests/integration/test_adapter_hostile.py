"""Somebody who may only write to the command topic puts values into the sessions of adapters: agents stay unharmed."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypedDict

import orjson
import pytest
from agent_framework import WorkflowCheckpoint, WorkflowCheckpointException
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from tests.integration.adapters import running_backend
from tests.integration.langgraph_threads import history, put, records, thread
from tests.support.deployment import Deployment
from tests.support.hostile_values import hostile_pickles, hostile_values
from tests.support.trap import Trap

from waypost import Publisher, Reader
from waypost.adapters import Backend, TypeNotAllowedError, UnreadableValueError
from waypost.adapters import _langgraph_layout as layout
from waypost.adapters.agent_framework import WaypostCheckpointStorage
from waypost.adapters.langgraph import StrictSerializer, WaypostSaver
from waypost.adapters.openai_agents import WaypostSession
from waypost.adapters.plain import plain_data
from waypost.wire.encode import rollback_body
from waypost.wire.event_types import EventType


@pytest.fixture
async def stranger(adapter_world: Deployment) -> AsyncIterator[Publisher]:
    """Has the right to write to the command topic, and nothing else."""
    server = adapter_world.endpoints.bootstrap_servers
    async with Publisher(server, topic_prefix=adapter_world.topics.prefix) as publisher:
        yield publisher


async def planted(stranger: Publisher, session_id: str, kind: str, raw: bytes, part: str) -> str:
    """Store a checkpoint of a thread as the saver would, with one part of the stranger's. Return its id."""
    serde = StrictSerializer()
    checkpoint: Any = {
        **empty_checkpoint(),
        "channel_values": {"notes": ["x"]},
        "channel_versions": {"notes": "9"},
    }
    _, record = layout.checkpoint_records(serde, {}, checkpoint, {"source": "loop"}, {"notes": "9"})
    config = {"checkpoint_id": checkpoint["id"]}
    writes = layout.writes_record(serde, config, [("notes", ["y"])], "task", "")
    typed = {"type": kind, "base64": base64.b64encode(raw).decode()}
    if part in ("checkpoint", "metadata"):
        record.data[part] = typed
    else:
        (record.data["values"][0] if part == "value" else writes.data["writes"][0]).update(typed)
    for each in (writes, record):
        await stranger.create_and_wait(session_id, each.name, each.data, each.metadata)
    return str(checkpoint["id"])


@pytest.mark.parametrize("part", ["checkpoint", "metadata", "value", "write"])
async def test_a_planted_value_of_a_thread_runs_nothing_on_any_way_to_read_it(
    backend: Backend, stranger: Publisher, trap: Trap, part: str
) -> None:
    names = {"one argument: os.system", "Pydantic 2", "in a message", "JSON: a constructor", "a pickle"}
    values = [each for each in hostile_values(trap.marker) if each.name in names]
    assert len(values) == len(names)
    saver = WaypostSaver(backend)
    for number, value in enumerate(values):
        config = thread(f"{part}-{number}")
        session_id = f"langgraph/{part}-{number}"
        planted_id = await planted(stranger, session_id, value.kind, value.raw, part)
        for reading in (
            saver.aget_tuple(config),
            saver.aget_tuple(thread(f"{part}-{number}", checkpoint_id=planted_id)),
            history(saver, config),
            graph(saver).aget_state(config),
            graph(saver).ainvoke({"notes": ["mine"]}, config),
        ):
            with pytest.raises(UnreadableValueError) as caught:
                await reading
            assert value.type_name is None or value.type_name in str(caught.value)
            assert "In " in caught.value.__notes__[0]
        child = await put(
            saver, {"notes": ["z"]}, thread(f"{part}-{number}", checkpoint_id=planted_id), {"notes"}
        )
        if part != "metadata":
            with pytest.raises(UnreadableValueError):
                await saver.aget_delta_channel_history(config=child, channels=["notes"])
    with pytest.raises(UnreadableValueError):
        [each async for each in saver.alist(None)]
    assert not trap.sprung()


async def test_a_planted_value_can_be_looked_at_copied_and_removed(
    adapter_world: Deployment, backend: Backend, stranger: Publisher, trap: Trap
) -> None:
    (system,) = [each for each in hostile_values(trap.marker) if each.name == "one argument: os.system"]
    saver = WaypostSaver(backend)
    good = await put(saver, {"notes": ["good"]}, thread())
    await planted(stranger, "langgraph/t", system.kind, system.raw, "value")
    with pytest.raises(TypeNotAllowedError):
        await saver.aget_tuple(thread())
    async with Reader(adapter_world.dsn) as reader:
        exported = orjson.loads(await reader.session("langgraph/t").export())
    assert "os:system" in str([plain_data(each["data"]) for each in exported])
    await saver.acopy_thread("t", "copy")
    found = await saver.aget_tuple(good)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"notes": ["good"]}
    # What an operator does about it: roll back to the last good one.
    good_id = good["configurable"]["checkpoint_id"]
    (place,) = [each["id"] for each in exported if each["metadata"].get("id") == good_id]
    body = rollback_body(place, discard_later=True)
    (await stranger.publish_and_wait("langgraph/t", EventType.ROLLBACK, body)).raise_if_rejected()
    newest = await saver.aget_tuple(thread())
    assert newest is not None
    assert newest.config == found.config
    await saver.adelete_thread("copy")
    assert await records(adapter_world, "langgraph/copy") == {}
    assert not trap.sprung()


async def test_a_planted_checkpoint_of_a_workflow_runs_nothing(
    backend: Backend, stranger: Publisher, trap: Trap
) -> None:
    storage = WaypostCheckpointStorage(backend, "run")
    made = WorkflowCheckpoint(workflow_name="flow", graph_signature_hash="h")
    for number, (name, raw) in enumerate(hostile_pickles(trap.marker).items()):
        value = {"__pickled__": base64.b64encode(raw).decode(), "__type__": "builtins:int"}
        checkpoint = {**made.to_dict(), "checkpoint_id": str(number), "state": {name: [value]}}
        metadata = {"id": str(number), "workflow": "flow", "previous": None, "iteration": 0}
        await stranger.create_and_wait(
            "agent-framework/run", "checkpoint", {"checkpoint": checkpoint}, metadata
        )
        for reading in (storage.load(str(number)), storage.get_latest(workflow_name="flow")):
            with pytest.raises(WorkflowCheckpointException, match=f"Checkpoint {number} can't be read"):
                await reading
    with pytest.raises(WorkflowCheckpointException):
        await storage.list_checkpoints(workflow_name="flow")
    assert len(await storage.list_checkpoint_ids(workflow_name="flow")) == len(hostile_pickles(trap.marker))
    for number, record in enumerate(
        [{}, {"checkpoint": None}, {"checkpoint": [1]}, {"checkpoint": {"x": 1}}], 1_000
    ):
        metadata = {"id": str(number), "workflow": "flow", "previous": None, "iteration": 0}
        await stranger.create_and_wait("agent-framework/run", "checkpoint", record, metadata)
        with pytest.raises(WorkflowCheckpointException):
            await storage.load(str(number))
    assert not trap.sprung()


async def test_a_planted_item_of_a_conversation_stays_data(
    backend: Backend, stranger: Publisher, trap: Trap
) -> None:
    raw = hostile_pickles(trap.marker)["os.system"]
    items: list[Any] = [
        {"__pickled__": base64.b64encode(raw).decode(), "__type__": "builtins:int"},
        {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [f"touch {trap.marker}"]},
        {"type": "msgpack", "base64": base64.b64encode(hostile_values(trap.marker)[0].raw).decode()},
        {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [f"touch {trap.marker}"]}]},
        {"__class__": "os.system", "__module__": "os", "__type__": "os:system"},
        f"!!python/object/apply:os.system ['touch {trap.marker}']",
    ]
    for item in items:
        await stranger.create_and_wait("openai-agents/user", "item", {"item": item}, {})
    session = WaypostSession("user", backend)
    assert await session.get_items() == items
    assert await session.pop_item() == items[-1]
    assert not trap.sprung()


def joined(left: list[Any], right: list[Any]) -> list[Any]:
    return [*left, *right]


class State(TypedDict):
    notes: Annotated[list[Any], joined]


def graph(saver: WaypostSaver) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", lambda _: {"notes": [interrupt("sure?")]})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


class Mood(Enum):
    GOOD = "good"


@dataclass
class Trip:
    to: str
    mood: Mood


class Traveler(BaseModel):
    name: str
    trips: list[Trip] = []


TRAVELER = Traveler(name="Ann", trips=[Trip("Rome", Mood.GOOD)])


async def test_a_type_that_could_not_be_read_back_is_refused_when_it_is_written(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend, durability="applied")
    with pytest.raises(TypeNotAllowedError, match=r"Mood', .*Traveler' are not allowed.*Nothing was stored"):
        await put(saver, {"who": TRAVELER})
    config = await put(saver, {})
    with pytest.raises(
        TypeNotAllowedError, match=r"Mood' is not allowed, so the value could not be read back"
    ):
        await saver.aput_writes(config, [("mood", Mood.GOOD)], "task")
    assert await records(adapter_world) == {"checkpoint": 1}
    with pytest.raises(TypeNotAllowedError, match="Traveler"):
        await graph(saver).ainvoke({"notes": [TRAVELER]}, thread("run"), durability="sync")
    assert await records(adapter_world, "langgraph/run") == {}


async def test_allowed_types_live_through_a_graph_in_another_process(adapter_world: Deployment) -> None:
    def saver(backend: Backend) -> WaypostSaver:
        return WaypostSaver(backend, allowed_types=[Traveler, f"{__name__}:Trip", Mood])

    async with running_backend(adapter_world) as backend:
        stopped = await graph(saver(backend)).ainvoke({"notes": [TRAVELER]}, thread())
        assert stopped["notes"] == [TRAVELER]
    async with running_backend(adapter_world) as backend:
        done = await graph(saver(backend)).ainvoke(Command(resume=Mood.GOOD), thread())
        assert done["notes"] == [TRAVELER, Mood.GOOD]
        states = [state.values async for state in graph(saver(backend)).aget_state_history(thread())]
        assert states[0] == done
        with pytest.raises(TypeNotAllowedError, match="Traveler"):
            await graph(WaypostSaver(backend)).aget_state(thread())
