"""Sessions of agent frameworks: their values as plain data. Builds no object of a framework."""

from typing import Any, Final

#: How the ids of their sessions begin.
FRAMEWORKS: Final = ("langgraph/", "agent-framework/", "claude-agent-sdk/", "google-adk", "openai-agents/")


def plain(session_id: str, data: Any) -> tuple[Any, str | None]:
    """Return a checkpoint's data with the values that an adapter encoded as plain data, and None.

    If that can't be, return the data as it is stored, and why.
    """
    if not session_id.startswith(FRAMEWORKS):
        return data, None
    from waypost.adapters.plain import plain_data

    try:
        return plain_data(data), None
    except ValueError as error:
        return data, str(error)
