"""Sessions of agent frameworks, for people: their metadata in columns, their values as plain data. Builds no object."""

from collections.abc import Mapping
from typing import Any, Final

from waypost_worker.cli.support.output import note
from waypost_worker.operations.frameworks import plain

THREAD: Final = "langgraph/"
COLUMNS: Final = ("id", "name", "timestamp", "bytes", "step", "source", "nodes", "state", "namespace")
WRAP: Final = ("nodes", "state", "namespace")


def thread_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a LangGraph thread with the contents of its metadata, which any writer to the topic could
    choose.
    """
    metadata = row["metadata"]
    facts, nodes = metadata.get("facts"), metadata.get("nodes")
    facts = facts if isinstance(facts, Mapping) else {}
    return {
        **row,
        "step": _cell(facts.get("step")),
        "source": _cell(facts.get("source")),
        "nodes": ", ".join(map(str, nodes)) if isinstance(nodes, list) else _cell(metadata.get("node")),
        "state": _cell(metadata.get("state")),
        "namespace": _cell(metadata.get("ns")),
    }


def readable(session_id: str, data: Any) -> Any:
    """Return a checkpoint's data as plain data, or as it is stored, with a note, if that can't be."""
    found, problem = plain(session_id, data)
    if problem is not None:
        note(f"the data is shown as stored: {problem}")
    return found


def _cell(value: Any) -> Any:
    return "" if value is None else value
