"""Session store of the Claude Agent SDK: the SDK's own contracts, what its store in memory does, and outages."""

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import claude_agent_sdk as sdk
import pytest
from claude_agent_sdk import InMemorySessionStore, SessionKey
from claude_agent_sdk.testing import run_session_store_conformance
from tests.integration.adapters import running_backend
from tests.support.deployment import Deployment, deployment
from tests.support.servers import SOON_BACK, ServerDirectory, started
from tests.support.timeouts import PATIENCE

from waypost import InvalidCommandError, Reader
from waypost.adapters import Backend, SessionFullError
from waypost.adapters.backend import Durability
from waypost.adapters.claude_agent_sdk import PREFIX, WaypostSessionStore
from waypost.adapters.plain import TypedValue, plain_data
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints

KEY: SessionKey = {"project_key": "project", "session_id": "session"}
SESSION = "claude-agent-sdk/project/session"
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}


def said(text: Any, **more: Any) -> Any:
    return {"type": "user", "message": {"role": "user", "content": text}, **more}


@pytest.mark.parametrize("mode", ["accepted", "logged", "applied"])
async def test_the_conformance_suite_of_the_sdk_passes_whole(backend: Backend, mode: Durability) -> None:
    made = 0

    async def empty_store() -> WaypostSessionStore:
        nonlocal made
        made += 1
        async for session_id in backend.sessions(PREFIX):
            await backend.clear(session_id)
        return WaypostSessionStore(backend, durability=mode)

    await run_session_store_conformance(empty_store)
    assert made == 15  # a probe and 14 contracts: none was skipped


async def test_it_does_what_the_store_in_memory_does_even_if_two_processes_share_a_session(
    adapter_world: Deployment, backend: Backend
) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
    theirs = InMemorySessionStore()
    keys: list[SessionKey] = [
        {"project_key": project, "session_id": session, **sub}  # type: ignore[typeddict-item]
        for project in ("a", "a/b", "-home-" + "x" * 190)
        for session in ("one", "two")
        for sub in ({}, {"subpath": "subagents/agent-1"}, {"subpath": "subagents/agent-2"})
    ]
    async with running_backend(adapter_world) as elsewhere:
        stores = [WaypostSessionStore(each, durability="logged") for each in (backend, elsewhere)]
        for turn in range(120):
            ours, key = chance.choice(stores), chance.choice(keys)
            what = chance.choice(("append", "append", "append", "load", "subkeys", "list", "delete"))
            if what == "append":
                batch = [
                    said(f"{turn}/{each} ü\0", uuid=f"{turn}/{each}", gitBranch=f"b{turn}")
                    for each in range(chance.randrange(4))
                ]
                await ours.append(key, batch)
                if batch:
                    await theirs.append(key, batch)
            elif what == "delete" and turn % 3 == 0:
                await ours.delete(key)
                await theirs.delete(key)
            elif what == "load":
                assert await ours.load(key) == await theirs.load(key)
            elif what == "subkeys":
                wanted: Any = {name: key[name] for name in ("project_key", "session_id")}  # type: ignore[literal-required]
                assert sorted(await ours.list_subkeys(wanted)) == sorted(await theirs.list_subkeys(wanted))
            else:
                await assert_same_listing(ours, theirs, key["project_key"])
        for key in keys:
            assert await stores[0].load(key) == await theirs.load(key)
            await assert_same_listing(stores[1], theirs, key["project_key"])
    await adapter_world.balanced()


async def assert_same_listing(ours: WaypostSessionStore, theirs: InMemorySessionStore, project: str) -> None:
    listed = await ours.list_sessions(project)
    summaries = await ours.list_session_summaries(project)
    expected = {each["session_id"]: each["data"] for each in await theirs.list_session_summaries(project)}
    assert {each["session_id"]: each["data"] for each in summaries} == expected
    assert sorted(each["session_id"] for each in listed) == sorted(expected)
    times = {each["session_id"]: each["mtime"] for each in listed}
    assert {each["session_id"]: each["mtime"] for each in summaries} == times


async def test_summaries_are_read_without_transcripts_as_long_as_one_process_writes(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WaypostSessionStore(backend)
    await store.append(KEY, [said("first", customTitle="one")])
    await store.append(KEY, [said("second", customTitle="two")])
    async with running_backend(adapter_world) as elsewhere:
        resumed = WaypostSessionStore(elsewhere)
        await resumed.load(KEY)  # as the SDK does to resume a session
        await resumed.append(KEY, [said("third", customTitle="three")])
        monkeypatch.delattr(WaypostSessionStore, "_stored")
        (summary,) = await resumed.list_session_summaries("project")
        assert (summary["data"]["first_prompt"], summary["data"]["custom_title"]) == ("first", "three")
        # This process did not see the third batch.
        await store.append(KEY, [said("fourth", customTitle="four")])
        await backend.settled(SESSION)
        with pytest.raises(AttributeError, match="_stored"):
            await resumed.list_session_summaries("project")
        monkeypatch.undo()
        (summary,) = await resumed.list_session_summaries("project")
        assert (summary["data"]["first_prompt"], summary["data"]["custom_title"]) == ("first", "four")


async def test_a_summary_that_metadata_cannot_hold_is_folded_from_the_transcript(backend: Backend) -> None:
    store = WaypostSessionStore(backend)
    for prompt in ("x" * 20_000, "nul \0", "half \ud83d"):
        await store.append(KEY, [said("hello", lastPrompt=prompt)])
        (summary,) = await store.list_session_summaries("project")
        assert summary["data"]["last_prompt"] == prompt


def nested(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


async def test_everything_that_the_cli_writes_comes_back(adapter_world: Deployment, backend: Backend) -> None:
    store = WaypostSessionStore(backend)
    odd = [
        said("half an emoji: \ud83d"),
        said([2**70, 1e999, 0.1]),
        said(nested(150)),
        said("nul \0"),
        {"type": 7},
    ]
    await store.append(KEY, odd)
    large = [said("x" * 900_000, uuid=str(each)) for each in range(3)]
    await store.append(SUB, large)
    assert await store.load(KEY) == json.loads(json.dumps(odd))
    assert await store.load(SUB) == large
    await store.append(KEY, [said(math.nan)])
    assert "nan" in repr(await store.load(KEY))
    with pytest.raises(InvalidCommandError, match=r"the entries can't be written as JSON: .*object"):
        await store.append(KEY, [said(object())])
    with pytest.raises(InvalidCommandError, match=r"subpath contains U\+0000"):
        await store.append({**KEY, "subpath": "\0"}, [said("x")])
    await backend.settled(SESSION)
    async with Reader(adapter_world.dsn) as reader:
        found = await reader.session(SESSION).get_by_name("entries")
    assert found[-1].metadata["project"] == "project"
    (entry,) = plain_data(found[0].data)["entries"]
    assert entry["message"]["content"] == TypedValue("builtins:float", "NaN")
    await store.delete(SUB)
    assert await store.load(SUB) is None
    assert len(await store.load(KEY) or []) == 6
    info = await backend._connection.reader.session_info(SESSION)
    assert info is not None
    assert info.checkpoint_count == 2  # the parts of the large batch left with it
    await adapter_world.balanced()


async def test_an_entry_that_is_sent_again_counts_once(backend: Backend) -> None:
    store = WaypostSessionStore(backend)
    first, second, title = said("1", uuid="1"), said("2", uuid="2"), {"type": "title"}
    await store.append(KEY, [first, title])
    await store.append(KEY, [first, second, title])
    assert await store.load(KEY) == [first, title, second, title]
    await store.append(SUB, [first])
    assert await store.load(SUB) == [first]


@pytest.mark.parametrize("mode", ["accepted", "logged", "applied"])
async def test_batches_keep_the_order_of_their_calls(backend: Backend, mode: Durability) -> None:
    store = WaypostSessionStore(backend, durability=mode)
    sizes = [10, 900_000, 10, 10]
    batches = [[said("x" * size, n=number)] for number, size in enumerate(sizes * 5)]
    await asyncio.gather(*(store.append(KEY, each) for each in batches))
    assert await store.load(KEY) == [each[0] for each in batches]
    assert (await store.list_session_summaries("project"))[0]["data"]["first_prompt"] == "x" * 10


async def test_records_of_strangers_in_a_session_do_not_change_a_transcript(
    adapter_world: Deployment, backend: Backend
) -> None:
    store = WaypostSessionStore(backend)
    await store.append(KEY, [said("mine", customTitle="mine")])
    await backend.settled(SESSION)
    planted: list[tuple[Any, Any]] = [
        ({"entries": 7}, {"subpath": None}),
        ({"entries": [7]}, {"subpath": None, "tag": 7, "summary": {"first": None, "batches": 1, "data": {}}}),
        ({"entries_json": "{"}, {"subpath": None, "session": ["x"]}),
        ({}, {"subpath": 7}),
        ({"entries": []}, {"subpath": None, "session": "another"}),
    ]
    for data, metadata in planted:
        await backend._connection.publisher.create_and_wait(SESSION, "entries", data, metadata)
        assert await store.load(KEY) == [said("mine", customTitle="mine")]
        await store.list_sessions("project")
        await store.list_session_summaries("project")
        assert await store.list_subkeys({"project_key": "project", "session_id": "session"}) == []
    await store.append(KEY, [said("more")])
    (summary,) = await store.list_session_summaries("project")
    assert summary["data"]["custom_title"] == "mine"


async def test_a_full_session_is_an_error_and_loses_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 2)
    store = WaypostSessionStore(backend)
    for each in "12":
        await store.append(KEY, [said(each)])
    with pytest.raises(SessionFullError, match="Start another session, or delete this one"):
        await store.append(KEY, [said("3")])
    assert await store.load(KEY) == [said("1"), said("2")]
    await store.delete(KEY)
    await store.append(KEY, [said("3")])
    assert await store.load(KEY) == [said("3")]
    (summary,) = await store.list_session_summaries("project")
    assert summary["data"]["first_prompt"] == "3"


async def test_the_functions_of_the_sdk_work_on_it(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "config"))
    directory = tmp_path / "work"
    directory.mkdir()
    project = tmp_path / "config" / "projects" / sdk.project_key_for_directory(str(directory))
    session_id = "0b8f7f9e-3b1c-4a52-9d27-7a1f3c5e2d10"
    parent, lines = None, []
    for number in range(6):
        role = ("user", "assistant")[number % 2]
        uuid = f"00000000-0000-4000-8000-00000000000{number}"
        message = {"role": role, "content": f"message {number}"}
        lines.append(
            {
                "type": role,
                "uuid": uuid,
                "parentUuid": parent,
                "sessionId": session_id,
                "timestamp": f"2026-11-30T10:00:0{number}Z",
                "message": message,
            }
        )
        parent = uuid
    (project / session_id / "subagents").mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (project / f"{session_id}.jsonl").write_text(text)
    (project / session_id / "subagents" / "agent-7.jsonl").write_text(text)
    seen = []
    for store in (WaypostSessionStore(backend), InMemorySessionStore()):
        for _ in range(2):  # the second time, all entries are there already
            if isinstance(store, InMemorySessionStore):
                store.clear()  # which keeps repetitions
            await sdk.import_session_to_store(session_id, store, directory=str(directory), batch_size=4)
        await sdk.rename_session_via_store(store, session_id, "renamed", str(directory))
        forked = await sdk.fork_session_via_store(store, session_id, str(directory))
        listed = await sdk.list_sessions_from_store(store, str(directory))
        assert {each.session_id for each in listed} == {session_id, forked.session_id}
        messages = [
            await sdk.get_session_messages_from_store(store, each, str(directory))
            for each in (session_id, forked.session_id)
        ]
        inner = await sdk.get_subagent_messages_from_store(store, session_id, "7", str(directory))
        seen.append(
            [
                sorted(each.custom_title or "" for each in listed),
                [[each.message for each in some] for some in (*messages, inner)],
                await sdk.list_subagents_from_store(store, session_id, str(directory)),
            ]
        )
        await sdk.delete_session_via_store(store, session_id, str(directory))
        assert await sdk.list_subagents_from_store(store, session_id, str(directory)) == []
        assert [each.session_id for each in await sdk.list_sessions_from_store(store, str(directory))] == [
            forked.session_id
        ]
    assert seen[0] == seen[1]
    assert seen[0][2] == ["7"]


@pytest.fixture(scope="module")
def kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    """A broker of this file's own, for killing."""
    with started(EmbeddedKafka(server_directory("kafka"), ClusterOptions(properties=SOON_BACK))) as running:
        yield running


@pytest.fixture
async def world(kafka: EmbeddedKafka, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(Endpoints(kafka.bootstrap_servers, database), database, topic_prefix) as made:
        yield made


async def test_while_kafka_is_unreachable_nothing_waits_and_nothing_is_dropped(
    kafka: EmbeddedKafka, world: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the adapter's memory holds little of it, as in an outage of a day.
    monkeypatch.setattr("waypost.adapters.own_writes.MAX_BYTES", 50_000)
    options = {"spool": tmp_path / "spool"}
    batches = [[said("x" * 1_000, n=number), {"type": "mode", "n": number}] for number in range(600)]
    async with running_backend(world, publisher_options=options, timeout=PATIENCE) as backend:
        store = WaypostSessionStore(backend)
        for batch in batches[:100]:
            await store.append(KEY, batch)
        kafka.kill()
        longest = 0.0
        clock = asyncio.get_running_loop()
        for batch in batches[100:500]:
            start = clock.time()
            await store.append(KEY, batch)
            longest = max(longest, clock.time() - start)
            await asyncio.sleep(0)
        assert longest < 5  # and not the 30 s that a call to Kafka may take
        assert len(kept := [each for each in backend._unconfirmed.own.of_session(SESSION) if each.rows]) < 100
        assert kept
        await backend._connection.publisher.close(0)  # the backend would wait 10 s for Kafka
    # The process ended before Kafka had all of it; the next one sends the rest before its own.
    await asyncio.to_thread(kafka.restart)
    async with running_backend(world, publisher_options=options, timeout=PATIENCE) as backend:
        store = WaypostSessionStore(backend, durability="logged")
        for batch in batches[500:]:
            await store.append(KEY, batch)
        world.own()
        assert await store.load(KEY) == [entry for batch in batches for entry in batch]
    await world.balanced()


async def test_the_own_entries_of_a_process_that_memory_does_not_hold_are_read_once_kafka_is_back(
    kafka: EmbeddedKafka, world: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.own_writes.MAX_BYTES", 0)
    world.own()
    async with running_backend(
        world, publisher_options={"spool": tmp_path / "spool"}, timeout=PATIENCE
    ) as backend:
        store = WaypostSessionStore(backend, stale_ok=True)
        await store.append(KEY, [said("before")])
        assert await store.load(KEY) == [said("before")]
        kafka.kill()
        await store.append(KEY, [said("after")])
        loading = asyncio.create_task(store.load(KEY))
        await asyncio.to_thread(kafka.restart)
        assert await loading == [said("before"), said("after")]
