"""Sessions of Google's ADK: events to append, and what a service has of them."""

from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, Session
from google.genai import types

from waypost.adapters.google_adk import WaypostSessionService

NAMES: dict[str, str] = {"app_name": "app", "user_id": "user"}
PATH = "google-adk/app/user/s"


def event(text: str = "hello", state: dict[str, Any] | None = None, **fields: Any) -> Event:
    return Event(
        author="user",
        invocation_id="i",
        content=types.Content(role="user", parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=state or {}),
        **fields,
    )


async def texts(service: BaseSessionService, session_id: str = "s", **names: str) -> list[str]:
    found = await service.get_session(**(NAMES | names), session_id=session_id)
    assert found is not None
    return [each.content.parts[0].text for each in found.events if each.content and each.content.parts]  # type: ignore[misc]


async def got(service: WaypostSessionService, session_id: str = "s") -> Session:
    found = await service.get_session(**NAMES, session_id=session_id)
    assert found is not None
    return found
