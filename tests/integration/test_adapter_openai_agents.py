"""Sessions of the OpenAI Agents SDK: what the SDK's own session does, and what only a shared one must do."""

import asyncio
import math
import random
from typing import Any

import orjson
import pytest
from agents import Agent, Model, ModelResponse, Runner, Session, SQLiteSession, Usage, set_tracing_disabled
from agents.memory.session_settings import SessionSettings
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from tests.support.deployment import Deployment

from waypost import InvalidCommandError, Publisher, Reader
from waypost.adapters import Backend, SessionFullError
from waypost.adapters.openai_agents import WaypostSession
from waypost.adapters.plain import TypedValue, plain_data
from waypost.wire.event_types import EventType


def said(text: str, role: str = "user") -> Any:
    return {"role": role, "content": text}


async def test_it_is_a_session_and_does_what_that_of_the_sdk_does(backend: Backend) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
    ours = WaypostSession("twin", backend)
    theirs = SQLiteSession("twin")
    assert isinstance(ours, Session)
    for turn in range(60):
        what = chance.choice(("add", "add", "pop", "get", "limit", "clear" if turn % 7 == 0 else "add"))
        if what == "add":
            items = [said(f"{turn}/{number} ü\0") for number in range(chance.randrange(4))]
            for each in (ours, theirs):
                await each.add_items(items)
        elif what == "pop":
            assert await ours.pop_item() == await theirs.pop_item()
        elif what == "clear":
            for each in (ours, theirs):
                await each.clear_session()
        else:
            limit = None if what == "get" else chance.randrange(5)
            assert await ours.get_items(limit) == await theirs.get_items(limit)
    assert await ours.get_items() == await theirs.get_items()
    theirs.close()


async def test_an_erased_session_is_empty_and_takes_nothing_more(
    backend: Backend, adapter_world: Deployment
) -> None:
    ours = WaypostSession("gone", backend)
    await ours.add_items([said("one"), said("two")])
    server, prefix = adapter_world.endpoints.bootstrap_servers, adapter_world.topics.prefix
    async with Publisher(server, topic_prefix=prefix) as publisher:
        result = await publisher.publish_and_wait(ours._session, EventType.ERASE, b"{}")
    assert result.type == EventType.ERASED
    assert await WaypostSession("gone", backend).get_items() == []
    with pytest.raises(InvalidCommandError, match="was erased") as caught:
        await WaypostSession("gone", backend, durability="applied").add_items([said("three")])
    assert caught.value.code == "erased"


def nested(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = {"in": value}
    return value


ODD: list[Any] = [
    said("half an emoji: \ud83d"),
    {"\ud83d": "as a key"},
    {"type": "message\0", "role": "user\0", "content": "x"},
    {"type": "\ud83d", "role": "r" * 100, "content": "x"},
    said([1e999, -1e999, 2**70, -(2**70), 2**64 - 1, 0.1]),  # type: ignore[arg-type]
    said(nested(120)),
    {"role": "user", "content": {1: "one", None: "none", False: "false", 1.5: "half"}},
    "a text",
    17,
    None,
    ["a", "list"],
    {},
    {"item_json": "of the user"},
]


async def test_odd_items_are_kept_as_the_session_of_the_sdk_keeps_them(
    adapter_world: Deployment, backend: Backend
) -> None:
    ours, theirs = WaypostSession("odd", backend), SQLiteSession("odd")
    for session in (ours, theirs):
        await session.add_items(ODD)
        await session.add_items([said("next")])
    assert await ours.get_items() == await theirs.get_items()
    assert repr(await ours.get_items()) == repr(await theirs.get_items())
    await ours.add_items([said(float("nan"))])  # type: ignore[arg-type]
    popped: Any = await ours.pop_item()
    assert math.isnan(popped["content"])
    assert await ours.pop_item() == await theirs.pop_item()
    for _ in ODD:
        assert await ours.pop_item() == await theirs.pop_item()
    assert await ours.get_items() == []
    theirs.close()
    await adapter_world.balanced()


async def test_odd_items_can_be_looked_at(adapter_world: Deployment, backend: Backend) -> None:
    await WaypostSession("odd", backend, durability="applied").add_items(ODD)
    async with Reader(adapter_world.dsn) as reader:
        seen = [plain_data(each.data) for each in await reader.session("openai-agents/odd").get_all()]
    assert orjson.loads(orjson.dumps(seen))[0]["item"] == {
        "role": "user",
        "content": {"type": "builtins:str", "value": "half an emoji: \\ud83d"},
    }
    assert seen[4]["item"]["content"][:3] == [
        TypedValue("builtins:float", "Infinity"),
        TypedValue("builtins:float", "-Infinity"),
        TypedValue("builtins:int", str(2**70)),
    ]
    assert seen[5]["item"].type == "unreadable json"  # for a page; the session reads it
    assert seen[-1] == {"item": {"item_json": "of the user"}}


class Scripted(Model):
    """Calls the tool once, then answers; remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        self.shown.append(input)
        if any(item.get("type") == "function_call_output" for item in input):
            text = ResponseOutputText(text="12 degrees", type="output_text", annotations=[])
            output: Any = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            output = ResponseFunctionToolCall(
                arguments='{"city":"Oslo"}', call_id="call-1", name="weather", type="function_call"
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


async def test_the_runner_resumes_where_another_process_stopped(backend: Backend) -> None:
    from agents import function_tool

    @function_tool
    def weather(city: str) -> str:
        return f"12 in {city}"

    set_tracing_disabled(True)
    model = Scripted()
    agent = Agent(name="a", model=model, tools=[weather])
    done = await Runner.run(agent, "how warm is it?", session=WaypostSession("user-1", backend))
    assert done.final_output == "12 degrees"
    kept = await WaypostSession("user-1", backend).get_items()
    kinds = [item.get("type", item.get("role")) for item in kept]
    assert kinds == ["user", "function_call", "function_call_output", "message"]
    await Runner.run(agent, "and now?", session=WaypostSession("user-1", backend))
    assert len(model.shown[-1]) == 5
    short = WaypostSession("user-1", backend, session_settings=SessionSettings(limit=1))
    assert [item.get("role") for item in await short.get_items()] == ["assistant"]


async def test_each_of_many_who_pop_gets_another_item(backend: Backend) -> None:
    session = WaypostSession("popular", backend)
    await session.add_items([said(str(number)) for number in range(12)])
    sessions = [WaypostSession("popular", backend) for _ in range(15)]
    popped: list[Any] = await asyncio.gather(*(each.pop_item() for each in sessions))
    texts = [each["content"] for each in popped if each is not None]
    assert sorted(texts, key=int) == [str(number) for number in range(12)]
    assert popped.count(None) == 3
    assert await session.get_items() == []


async def test_items_of_one_call_come_together_or_not_at_all(
    adapter_world: Deployment, backend: Backend
) -> None:
    session = WaypostSession("atomic", backend)
    await session.add_items([said("before")])
    with pytest.raises(InvalidCommandError, match=r"the item can't be written as JSON: .*object"):
        await session.add_items([said("fine"), said("not"), said(object())])  # type: ignore[arg-type]
    assert await session.get_items() == [said("before")]
    sent = [[said(f"{writer}/{number}") for number in range(5)] for writer in range(4)]
    others = [WaypostSession("atomic", backend) for _ in sent]
    await asyncio.gather(*(each.add_items(items) for each, items in zip(others, sent, strict=True)))
    found = (await session.get_items())[1:]
    groups = [found[at : at + 5] for at in range(0, 20, 5)]
    assert sorted(groups, key=lambda group: str(group[0]["content"])) == sent
    await adapter_world.balanced()


async def test_a_large_item_is_kept_and_popped_whole(adapter_world: Deployment, backend: Backend) -> None:
    session = WaypostSession("large", backend)
    image = said("x" * 2_000_000)
    await session.add_items([said("look"), image])
    assert await session.get_items(1) == [image]
    assert await session.pop_item() == image
    assert await session.get_items() == [said("look")]
    info = await backend._connection.reader.session_info("openai-agents/large")
    assert info is not None
    assert info.checkpoint_count == 1


async def test_keep_bounds_a_conversation(backend: Backend) -> None:
    session = WaypostSession("long", backend, keep=10)
    for turn in range(60):
        await session.add_items([said(f"q{turn}"), said(f"a{turn}", "assistant")])
    await backend._clean_ups.ended("openai-agents/long")
    found = await session.get_items()
    assert 10 <= len(found) <= 10 + 64 + 2
    assert (
        found
        == [
            said(f"{letter}{turn}", role)
            for turn in range(60)
            for letter, role in (("q", "user"), ("a", "assistant"))
        ][-len(found) :]
    )


async def test_a_full_session_is_an_error_and_loses_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 5)
    session = WaypostSession("full", backend)
    await session.add_items([said(str(number)) for number in range(4)])
    with pytest.raises(SessionFullError, match=r"holds 4 records, and 2 more .* Clear the session"):
        await session.add_items([said("4"), said("5")])
    assert len(await session.get_items()) == 4
    await session.clear_session()
    await session.add_items([said("4"), said("5")])


def test_keep_must_keep_something(backend: Backend) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        WaypostSession("s", backend, keep=0)


async def test_an_add_to_a_full_session_waits_for_the_clean_up_under_way(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 5)
    session = WaypostSession("full", backend, keep=2)
    await session.add_items([{"role": "user", "content": str(each)} for each in range(5)])
    backend.tidy("openai-agents/full", lambda: session._drop_old(2))
    await session.add_items([{"role": "user", "content": "5"}])
    assert [item["content"] for item in await session.get_items()] == ["3", "4", "5"]  # type: ignore[typeddict-item]
    with pytest.raises(SessionFullError, match="keep=2 is set"):
        await session.add_items([{"role": "user", "content": str(each)} for each in range(3)])
