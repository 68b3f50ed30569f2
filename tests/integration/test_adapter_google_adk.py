"""Session service of Google's ADK: what its service in memory does, and what only a shared one must do."""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from google.adk.agents import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from tests.integration.adapters import running_backend
from tests.support.deployment import Deployment
from tests.support.google_adk import NAMES, PATH, event, got, texts

from waypost import ResultTimeoutError
from waypost.adapters import Backend
from waypost.adapters.backend import Appended
from waypost.adapters.google_adk import APP_PREFIX, WaypostSessionService
from waypost.wire.event_types import EventType


def plain(session: Session | None) -> Any:
    """A session as JSON. When it was created is told by two clocks."""
    if session is None:
        return None
    dumped = session.model_dump(mode="json", exclude_none=True)
    if not session.events:
        del dumped["last_update_time"]
    return dumped


def some_state(chance: random.Random) -> dict[str, Any]:
    keys = ["one", "two", "app:one", "app:two", "user:one", "user:two", "temp:one"]
    values: list[Any] = [None, 1, "text ü\0", {"in": [1, {"deep": None}]}, 0.1, True, []]
    return {key: chance.choice(values) for key in chance.sample(keys, chance.randrange(4))}


async def test_it_does_what_the_service_in_memory_does(adapter_world: Deployment, backend: Backend) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
    theirs = InMemorySessionService()
    apps, users = ("a", "a/b", "x" * 120), ("u", "v/w")
    ids = ["one", " two ", "three/3"]
    moment = 0.0  # of the last event
    async with running_backend(adapter_world) as elsewhere:
        services = [WaypostSessionService(each) for each in (backend, elsewhere)]
        for turn in range(150):
            ours = chance.choice(services)
            where: Any = {"app_name": chance.choice(apps), "user_id": chance.choice(users)}
            session_id = chance.choice(ids)
            what = chance.choice(("create", "append", "append", "append", "get", "list", "state", "delete"))
            if what == "create":
                state = some_state(chance)
                outcomes = [
                    await outcome(each.create_session(**where, session_id=session_id, state=state))
                    for each in (ours, theirs)
                ]
                assert outcomes[0] == outcomes[1]
            elif what == "append":
                found = [await each.get_session(**where, session_id=session_id) for each in (ours, theirs)]
                assert plain(found[0]) == plain(found[1])
                if found[0] is None or found[1] is None:
                    continue
                made = event(f"{turn}", some_state(chance), partial=chance.random() < 0.1)
                moment = made.timestamp
                for repeated in range(chance.choice((1, 1, 2))):
                    copies = [made.model_copy(deep=True) for _ in range(2)]
                    if repeated:  # as the same object, without what is temporary
                        copies = [each.events[-1] for each in found if each is not None and each.events]
                    for service, session, each in zip((ours, theirs), found, copies, strict=False):
                        assert session is not None
                        await service.append_event(session, each)
                assert plain(found[0]) == plain(found[1])
            elif what == "get":
                config = GetSessionConfig(
                    num_recent_events=chance.choice((None, 0, 1, 3)),
                    after_timestamp=chance.choice((None, 0.0, moment, 1e11)),
                )
                found = [
                    await each.get_session(**where, session_id=session_id, config=config)
                    for each in (ours, theirs)
                ]
                assert plain(found[0]) == plain(found[1])
            elif what == "list":
                if chance.random() < 0.5:
                    del where["user_id"]
                listed = [(await each.list_sessions(**where)).sessions for each in (ours, theirs)]
                for one, other in zip(*listed, strict=True):
                    assert (one.state, one.events) == (other.state, [])
                    assert (one.app_name, one.user_id, one.id) == (other.app_name, other.user_id, other.id)
            elif what == "state":
                assert await ours.get_user_state(**where) == await theirs.get_user_state(**where)
            elif turn % 3 == 0:
                for each in (ours, theirs):
                    await each.delete_session(**where, session_id=session_id)
        for app, user, session_id in itertools.product(apps, users, ids):
            where = {"app_name": app, "user_id": user, "session_id": session_id}
            assert plain(await services[0].get_session(**where)) == plain(await theirs.get_session(**where))
    await adapter_world.balanced()


async def outcome(call: Any) -> Any:
    try:
        return plain(await call)
    except AlreadyExistsError as error:
        return str(error)


async def test_an_append_to_a_stale_object_raises_and_stores_nothing(
    adapter_world: Deployment, backend: Backend
) -> None:
    async with running_backend(adapter_world) as elsewhere:
        ours, other = WaypostSessionService(backend), WaypostSessionService(elsewhere)
        mine = await ours.create_session(**NAMES, session_id="s", state={"n": 0})
        theirs = await other.get_session(**NAMES, session_id="s")
        assert theirs is not None
        # A clock far ahead and one far behind: the log decides.
        await other.append_event(theirs, event("first", {"n": 1, "app:n": 1}, timestamp=1.0))
        late = event("late", {"n": 7, "app:n": 7, "user:n": 7, "temp:n": 7}, timestamp=9e9)
        with pytest.raises(StaleSessionError, match="Session s has an event that this object lacks"):
            await ours.append_event(mine, late)
        assert (mine.events, mine.state["n"]) == ([], 0)
        again = await ours.get_session(**NAMES, session_id="s")
        assert again is not None
        assert again.state == {"n": 1, "app:n": 1}
        await ours.append_event(again, late)
        assert await texts(other) == ["first", "late"]
        info = await backend._connection.reader.session_info(PATH)
        assert info is not None
        assert info.checkpoint_count == 3  # the loser was deleted
    await adapter_world.balanced()


async def test_of_writers_at_the_same_time_one_wins_and_every_increment_counts(
    adapter_world: Deployment, backend: Backend
) -> None:
    async with running_backend(adapter_world) as elsewhere:
        services = [WaypostSessionService(each) for each in (backend, elsewhere, backend)]
        await services[0].create_session(**NAMES, session_id="s", state={"n": 0})
        stale = 0

        async def count(service: WaypostSessionService, name: str) -> None:
            nonlocal stale
            done = 0
            while done < 10:
                session = await service.get_session(**NAMES, session_id="s")
                assert session is not None
                try:
                    await service.append_event(
                        session, event(f"{name}{done}", {"n": session.state["n"] + 1, "user:last": name})
                    )
                    done += 1
                except StaleSessionError:
                    stale += 1

        await asyncio.gather(*(count(each, name) for each, name in zip(services, "abc", strict=True)))
        found = await services[1].get_session(**NAMES, session_id="s")
        assert found is not None
        assert found.state["n"] == 30
        assert stale > 0
        for name in "abc":
            mine = [each for each in await texts(services[0]) if each[0] == name]
            assert mine == [f"{name}{number}" for number in range(10)]
    await adapter_world.balanced()


async def test_branches_of_one_invocation_share_an_object(backend: Backend) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s")
    await asyncio.gather(*(service.append_event(session, event(str(each))) for each in range(10)))
    assert await texts(service) == [str(each) for each in range(10)]
    assert [each.id for each in session.events] == [each.id for each in (await got(service)).events]


async def test_an_append_after_a_time_out_stores_its_event_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s")
    append = backend.append

    async def too_late(*arguments: Any, **options: Any) -> Appended:
        await append(*arguments, **options)
        raise ResultTimeoutError("id", "no result came in time", "acknowledged", 0, 0)

    late = event("late", {"a": 1, "app:b": 2})
    with monkeypatch.context() as patch:
        patch.setattr(backend, "append", too_late)
        with pytest.raises(ResultTimeoutError):
            await service.append_event(session, late)
    assert session.events == []
    await service.append_event(session, late)
    await service.append_event(session, event("next"))
    assert await texts(service) == ["late", "next"]
    assert (await got(service)).state == {"a": 1, "app:b": 2}


@pytest.mark.parametrize("found_by", ["get", "list", "append"])
async def test_shared_state_of_an_event_whose_writer_was_killed_is_stored_by_the_next_who_comes(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch, found_by: str
) -> None:
    class KilledError(Exception):
        pass

    async def killed(*_: Any) -> None:
        raise KilledError

    service = WaypostSessionService(backend)
    with monkeypatch.context() as patch:
        patch.setattr(WaypostSessionService, "_change_shared", killed)
        with pytest.raises(KilledError):
            await service.create_session(**NAMES, session_id="s", state={"app:made": 1, "user:made": 2})
    session = await got(service)
    assert session.state == {"app:made": 1, "user:made": 2}
    await service.append_event(session, event("whole", {"app:x": 1}))
    lost = event("lost", {"n": 1, "app:x": 2, "user:x": 3})
    with monkeypatch.context() as patch:
        patch.setattr(WaypostSessionService, "_change_shared", killed)
        with pytest.raises(KilledError):
            await service.append_event(session, lost)
    assert await service.get_user_state(app_name="app", user_id="user") == {"made": 2}
    async with running_backend(adapter_world) as elsewhere:
        other = WaypostSessionService(elsewhere)
        state = {"n": 1, "app:made": 1, "user:made": 2, "app:x": 2, "user:x": 3}
        if found_by == "list":
            (listed,) = (await other.list_sessions(app_name="app")).sessions
            assert listed.state == state
        elif found_by == "append":
            await service.append_event(session, lost)
        assert (await got(other)).state == state
        assert await other.get_user_state(app_name="app", user_id="user") == {"made": 2, "x": 3}
        # What comes later is not undone when somebody looks again.
        another = await other.create_session(**NAMES, session_id="t", state={"app:x": 9})
        assert another.state["app:x"] == 9
        assert (await got(service)).state["app:x"] == 9
        info = await elsewhere._connection.reader.session_info(f"{APP_PREFIX}app")
        assert info is not None
        assert info.checkpoint_count == 4  # two of creations, two of events
    await adapter_world.balanced()


async def test_a_deleted_session_takes_no_event_and_its_id_can_be_used_again(
    adapter_world: Deployment, backend: Backend
) -> None:
    service = WaypostSessionService(backend)
    old = await service.create_session(**NAMES, session_id="s", state={"a": 1})
    await service.append_event(old, event("old"))
    for _ in range(2):
        await service.delete_session(**NAMES, session_id="s")
        with pytest.raises(SessionNotFoundError, match="Session s not found"):
            await service.append_event(old, event("into the void"))
        assert await service.get_session(**NAMES, session_id="s") is None
    assert (await service.list_sessions(app_name="app")).sessions == []
    new = await service.create_session(**NAMES, session_id="s")
    with pytest.raises(StaleSessionError):
        await service.append_event(old, event("old"))
    await service.append_event(new, event("new"))
    assert await texts(service) == ["new"]
    assert (await got(service)).state == {}
    await service.delete_session(app_name="app", user_id="user", session_id="unknown")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(Session(id="unknown", app_name="app", user_id="user"), event())
    assert await backend._connection.reader.session_info("google-adk/app/user/unknown") is None
    await adapter_world.balanced()


async def test_the_holder_of_a_session_that_was_rolled_back_or_cleared_gets_an_error(
    adapter_world: Deployment, backend: Backend
) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s")
    for each in "123":
        await service.append_event(session, event(each))
    roll_back = orjson.dumps({"checkpoint_id": f"{PATH}:2", "discard_later": True})
    publish = backend._connection.publisher.publish_and_wait
    await publish(PATH, EventType.ROLLBACK, roll_back)
    with pytest.raises(StaleSessionError):
        await service.append_event(session, event("4"))
    assert await texts(service) == ["1"]
    session = await got(service)
    await service.append_event(session, event("2 again"))
    assert await texts(service) == ["1", "2 again"]
    await publish(PATH, EventType.CLEAR, b"{}")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, event("into the void"))
    assert await service.get_session(**NAMES, session_id="s") is None
    await service.create_session(**NAMES, session_id="s")
    assert await texts(service) == []
    await adapter_world.balanced()


async def test_of_several_who_create_a_session_one_succeeds(
    adapter_world: Deployment, backend: Backend
) -> None:
    async with running_backend(adapter_world) as elsewhere:
        services = [WaypostSessionService(each) for each in (backend, elsewhere, backend, elsewhere)]
        for _ in range(3):
            made = await asyncio.gather(
                *(
                    each.create_session(**NAMES, session_id="s", state={"by": number})
                    for number, each in enumerate(services)
                ),
                return_exceptions=True,
            )
            (created,) = [each for each in made if isinstance(each, Session)]
            assert sum(isinstance(each, AlreadyExistsError) for each in made) == 3
            assert (await got(services[0])).state == created.state
            await services[1].append_event(created, event())
            await services[0].delete_session(**NAMES, session_id="s")


async def test_a_session_that_was_copied_as_json_continues_if_it_is_not_stale(backend: Backend) -> None:
    service = WaypostSessionService(backend)
    session = await service.create_session(**NAMES, session_id="s")
    for number in range(2):
        copied = Session.model_validate_json(session.model_dump_json())
        await service.append_event(copied, event(str(number)))
        with pytest.raises(StaleSessionError):
            await service.append_event(Session.model_validate_json(session.model_dump_json()), event("stale"))
        session = copied
    (listed,) = (await service.list_sessions(app_name="app")).sessions
    await service.append_event(listed, event("listed"))
    assert await texts(service) == ["0", "1", "listed"]


async def test_state_of_an_app_that_changes_often_stays_short_and_right(
    adapter_world: Deployment, backend: Backend
) -> None:
    async with running_backend(adapter_world) as elsewhere:
        services = [WaypostSessionService(each) for each in (backend, elsewhere)]

        async def change(service: WaypostSessionService, name: str) -> None:
            session = await service.create_session(**NAMES, session_id=name)
            for number in range(100):
                await service.append_event(session, event(state={"app:" + name: number, "app:last": name}))

        await asyncio.gather(*(change(each, name) for each, name in zip(services, "xy", strict=True)))
        state = (await got(services[0], "x")).state
        assert (state["app:x"], state["app:y"]) == (99, 99)

        async def is_short() -> bool:
            info = await backend._connection.reader.session_info(f"{APP_PREFIX}app")
            return info is not None and info.checkpoint_count < 150

        await adapter_world.until(is_short)
        assert (await got(services[1], "y")).state == state
    await adapter_world.balanced()


class Counter(BaseAgent):
    """Says how many events it sees, and counts in every kind of state."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        seen = len(ctx.session.events)
        turns = ctx.session.state.get("turns", 0) + 1
        yield Event(
            author=self.name,
            invocation_id=ctx.invocation_id,
            content=types.Content(role="model", parts=[types.Part(text=f"I see {seen} events")]),
            actions=EventActions(
                state_delta={"turns": turns, "user:turns": turns, "app:turns": turns, "temp:note": "x"}
            ),
        )


async def test_a_runner_continues_where_another_process_stopped(
    adapter_world: Deployment, backend: Backend
) -> None:
    answers = []
    async with running_backend(adapter_world) as elsewhere:
        theirs = InMemorySessionService()
        for pair in ([WaypostSessionService(backend), WaypostSessionService(elsewhere)], [theirs, theirs]):
            said = []
            await pair[0].create_session(**NAMES, session_id="s")
            for turn in range(4):
                runner = Runner(app_name="app", agent=Counter(name="counter"), session_service=pair[turn % 2])
                message = types.Content(role="user", parts=[types.Part(text=f"turn {turn}")])
                async for each in runner.run_async(user_id="user", session_id="s", new_message=message):
                    assert each.content is not None
                    assert each.content.parts is not None
                    said.append(each.content.parts[0].text)
            found = await pair[0].get_session(**NAMES, session_id="s")
            assert found is not None
            answers.append((said, found.state, [each.author for each in found.events]))
    assert answers[0] == answers[1]
    assert answers[0][0] == [f"I see {seen} events" for seen in (1, 3, 5, 7)]
