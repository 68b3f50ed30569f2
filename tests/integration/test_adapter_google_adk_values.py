"""Google ADK sessions: odd and large values, events that are gone, and what strangers write."""

import itertools
from typing import Any

import pytest
from google.adk.events import Event
from google.genai import types
from tests.support.deployment import Deployment
from tests.support.google_adk import NAMES, PATH, event, got, texts

from waypost.adapters import Backend, MissingValueError, SessionFullError, UnreadableValueError
from waypost.adapters.google_adk import APP_PREFIX, WaypostSessionService


def nested(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


async def test_odd_and_large_values_are_kept_as_the_adk_writes_them(
    adapter_world: Deployment, backend: Backend
) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(
        **NAMES, session_id="s", state={"big": 2**70, "half": "\ud83d", "user:deep": nested(120)}
    )
    image = types.Part(inline_data=types.Blob(data=bytes(range(256)) * 8_000, mime_type="image/png"))
    call = types.Part(function_call=types.FunctionCall(id="f", name="tool", args={"n": [1, None]}))
    sent = [
        event("half an emoji: \ud83d", {"nul\0": "\0", "half": "\udc00"}),
        Event(
            author="a" * 500 + "\0", content=types.Content(parts=[image, call]), long_running_tool_ids={"f"}
        ),
        event("next", {"big": -(2**70), "app:large": "x" * 1_000_000}),
    ]
    for each in sent:
        await service.append_event(session, each)
    found = await got(service)
    assert found.events == sent
    assert found.state == session.state | {"app:large": "x" * 1_000_000}
    (listed,) = (await service.list_sessions(app_name="app")).sessions
    assert listed.state == found.state
    await service.delete_session(**NAMES, session_id="s")
    info = await backend._connection.reader.session_info(PATH)
    assert info is not None
    assert info.checkpoint_count == 1  # says that it was deleted
    await adapter_world.balanced()


async def test_an_event_that_is_gone_is_an_error_and_never_left_out(backend: Backend) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s")
    for each in "123":
        await service.append_event(session, event(each))
    await backend.delete(PATH, [3])
    for call in (
        service.get_session(**NAMES, session_id="s"),
        service.list_sessions(app_name="app"),
        service.create_session(**NAMES, session_id="s"),
    ):
        with pytest.raises(MissingValueError, match=rf"record 4 of '{PATH}' follows is missing"):
            await call
    await service.delete_session(**NAMES, session_id="s")
    await service.create_session(**NAMES, session_id="s")
    assert await texts(service) == []


async def test_records_of_strangers_in_a_session_are_not_events(
    adapter_world: Deployment, backend: Backend
) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s", state={"app:a": 1})
    create = backend._connection.publisher.create_and_wait
    odd: list[Any] = [{}, {"tag": 7}, {"tag": "t", "after": ["x"], "born": 7}, {"tag": "t", "covers": "x"}]
    for path, name, metadata in itertools.product(
        (PATH, f"{APP_PREFIX}app"), ("event", "session", "other"), odd
    ):
        await create(path, name, {"event": 7, "state": [1]}, metadata)
    await create(
        "google-adk/app/user/t", "session", {}, {"tag": "t", "app": "app", "user": "user", "session": "s"}
    )
    await service.append_event(session, event("mine", {"b": 2}))
    assert await texts(service) == ["mine"]
    (listed,) = (await service.list_sessions(app_name="app")).sessions
    assert listed.state == {"b": 2, "app:a": 1}
    log = await service._log(PATH)
    await create(
        PATH, "event", {"event": {"content": 7}}, {"tag": "planted", "after": log.head, "born": log.born}
    )
    with pytest.raises(UnreadableValueError, match="is not an event of the ADK"):
        await service.get_session(**NAMES, session_id="s")


async def test_a_full_session_is_an_error_and_loses_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s")
    monkeypatch.setattr("waypost.adapters.backend.FULL", 2)
    await service.append_event(session, event("1"))
    with pytest.raises(SessionFullError, match="Continue in a new session"):
        await service.append_event(session, event("2"))
    assert await texts(service) == ["1"]
    await service.delete_session(**NAMES, session_id="s")
