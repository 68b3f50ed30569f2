"""Events of a thread, read back with the serializer that wrote them. Pure."""

from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_serializer import StrictSerializer, require_strict
from waypost.adapters._langgraph_threads import PREFIX, thread_of
from waypost.adapters.records import Row, texts
from waypost.subscriber.events import Event
from waypost.wire.event_types import EventType


@dataclass(frozen=True, slots=True)
class ThreadEvent:
    """A checkpoint of a LangGraph thread, or what a task wrote after one.

    For a checkpoint, ``checkpoint`` is LangGraph's own without channel values, ``metadata`` is LangGraph's, ``nodes``
    are those that ran to get there, ``state`` contains the values that the saver exposes, and ``values`` the channels
    that changed. Values in a separate record are missing there, as those of more than 12 KB are. For writes, ``writes``
    are channels and values, and ``nodes`` has the task's node. ``partial`` says that the record is so large that it
    came in parts, which are in earlier events; everything that is not in the event's metadata is then missing.
    """

    thread_id: str
    namespace: str
    checkpoint_id: str
    kind: str
    parent_id: str | None = None
    source: str | None = None
    step: int | None = None
    nodes: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    task_id: str | None = None
    writes: list[tuple[str, Any]] = field(default_factory=list)
    partial: bool = False


def decode(event: Event, serde: SerializerProtocol | None = None) -> ThreadEvent | None:
    """Return what a created event says of a LangGraph thread, or None if it is about something else.

    Args:
        event: The event that a subscriber received.
        serde: The saver's serializer, ``StrictSerializer(allowed_types=[…])`` if the state contains your own types.

    Raises:
        TypeNotAllowedError: It holds a value of a type that is not allowed. Nothing was imported, built or run.
        UnreadableValueError: A value can't be read.
    """
    session_id, found = event.session_id or "", event.checkpoint
    if event.type != EventType.CREATED or found is None or not session_id.startswith(PREFIX):
        return None
    row = Row(found.number, found.name, found.raw_data, found.metadata, found.recorded_at)
    if found.name not in (layout.CHECKPOINT, layout.WRITES) or not layout.sound([row]):
        return None
    serde = StrictSerializer() if serde is None else serde
    require_strict(serde)
    said = row.metadata
    where: dict[str, Any] = {
        "thread_id": thread_of(session_id, said),
        "namespace": said["ns"],
        "checkpoint_id": said["id"],
        "kind": row.name,
    }
    if row.name == layout.WRITES:
        return _writes(where, row, serde)
    facts, state = said.get("facts", {}), said.get("state")
    source, step = facts.get("source"), facts.get("step")
    more: dict[str, Any] = {
        "parent_id": said.get("parent"),
        "source": source if isinstance(source, str) else None,
        "step": step if type(step) is int else None,
        "nodes": texts(said.get("nodes")),
        "state": state if isinstance(state, dict) else {},
    }
    if row.batch is not None:
        return ThreadEvent(**where, **more, partial=True)
    bare, metadata, values = layout.parts_of(serde, row, where["thread_id"])
    return ThreadEvent(**where, **more, checkpoint=bare, metadata=metadata, values=values)


def _writes(where: dict[str, Any], row: Row, serde: SerializerProtocol) -> ThreadEvent:
    nodes = texts([row.metadata.get("node")])
    if row.batch is not None:
        return ThreadEvent(**where, nodes=nodes, partial=True)
    written = layout.pending([row.data], serde)
    task_id = written[0][0] if written else None
    return ThreadEvent(
        **where, nodes=nodes, task_id=task_id, writes=[(channel, value) for _, channel, value in written]
    )
