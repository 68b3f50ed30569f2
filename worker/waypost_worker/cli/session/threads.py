"""Sessions of agent frameworks, for people: their metadata in columns, their values as plain data. Builds no object."""

from collections.abc import Mapping
from typing import Any, Final

from waypost_worker.cli.support.output import note

THREAD: Final = "langgraph/"
COLUMNS: Final = ("id", "name", "timestamp", "bytes", "step", "source", "nodes", "state", "namespace")
WRAP: Final = ("id", "nodes", "state", "namespace")
_FRAMEWORKS: Final = (THREAD, "agent-framework/", "claude-agent-sdk/", "google-adk", "openai-agents/")


def thread_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a LangGraph thread with what its metadata say. Whoever may write to the topic chose these."""
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


def plain(session_id: str, data: Any) -> Any:
    """Return a checkpoint's data with the values that an adapter encoded as plain data, if that can be."""
    if not session_id.startswith(_FRAMEWORKS):
        return data
    from waypost.adapters.plain import plain_data

    try:
        return plain_data(data)
    except ValueError as error:
        note(f"the data is shown as it is stored: {error}")
        return data


def _cell(value: Any) -> Any:
    return "" if value is None else value
