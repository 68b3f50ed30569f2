"""How LangGraph threads lie in sessions: once per version, cut where large, bounded, found again."""

import threading
from datetime import timedelta
from importlib.resources import files
from typing import Any

import asyncpg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from tests.integration.langgraph_threads import history, put, records, thread
from tests.support.deployment import Deployment

from waypost import InvalidCommandError
from waypost.adapters import Backend, SessionFullError
from waypost.adapters import _langgraph_cleanup as cleanup
from waypost.adapters.langgraph import WaypostSaver
from waypost.wire.encode import policy_body
from waypost.wire.event_types import EventType

STATEMENTS: dict[str, list[Any]] = {
    "claude_sessions": ["session-7", "session-8", True],
    "everything": ["session-7"],
    "google_adk_sessions": ["session-7", "session-8"],
    "holders": ["session-7", ["digest"], "", "id"],
    "index": ["session-7"],
    "newest": ["session-7", "checkpoint", "{}", 1],
    "numbers": ["session-7", [1, 2]],
    "part_numbers": ["session-7", ["batch"]],
    "parts": ["session-7", ["batch"]],
    "place": ["session-7", "{}"],
    "records": ["session-7"],
    "rejected": [0, [1, 2]],
    "runs": ["session-7", "session-8", ["run"]],
    "tag": ["session-7", 3],
    "thread": ["session-7", "{}", None, None, 2**63 - 1, 1],
}


async def test_no_statement_reads_the_whole_table(database: str) -> None:
    folder = files("waypost.adapters").joinpath("sql")
    assert {path.name for path in folder.iterdir()} == {f"{name}.sql" for name in STATEMENTS}
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "insert into waypost.checkpoints select 'session-' || n / 50, n % 50, null, 'checkpoint', now(), now(), "
            "'{}', '{}', false, null, n from generate_series(1, 20000) n; analyze waypost.checkpoints"
        )
        for name, arguments in STATEMENTS.items():
            statement = folder.joinpath(f"{name}.sql").read_text()
            plan = await connection.fetch(f"explain {statement}", *arguments)
            text = "\n".join(row[0] for row in plan)
            assert "Seq Scan on checkpoints" not in text, text
            assert f"{'rejected_commands' if name == 'rejected' else 'checkpoints'}_pkey" in text, text
    finally:
        await connection.close()


async def test_a_value_is_stored_once_however_many_checkpoints_have_it(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    config = await put(saver, {"document": "x" * 200_000, "step": 0})
    for step in range(1, 20):
        config = await put(saver, {"document": "x" * 200_000, "step": step}, config, {"step"})
    for each in await history(saver, thread()):
        assert each.checkpoint["channel_values"]["document"] == "x" * 200_000
    connection = await asyncpg.connect(adapter_world.dsn)
    stored = await connection.fetchval("select sum(length(data)) from waypost.checkpoints")
    await connection.close()
    assert stored < 2 * 200_000


async def test_a_listed_checkpoint_has_no_value_of_another_one(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    parent = await put(saver, {"text": "one"})
    bare: Any = {**empty_checkpoint(), "channel_versions": {"text": "1"}}
    config = await saver.aput(parent, bare, {"source": "loop"}, {})
    found = await saver.aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {}
    assert [each.checkpoint["channel_values"] for each in await history(saver, thread())] == [
        {},
        {"text": "one"},
    ]


async def test_what_exceeds_a_command_is_cut_and_put_together(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = WaypostSaver(backend, durability="applied")
    large = {"blob": bytes(range(256)) * 12_000, "text": "ü" * 1_000_000}
    config = await put(saver, {**large, "small": 1})
    await saver.aput_writes(config, [("blob", large["text"]), ("small", 2)], "task")
    assert (await records(adapter_world))["part"] > 6
    found = await saver.aget_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"] == {**large, "small": 1}
    assert found.pending_writes == [("task", "blob", large["text"]), ("task", "small", 2)]
    await saver.acopy_thread("t", "copy")
    copied = await saver.aget_tuple(thread("copy"))
    assert copied is not None
    assert copied.checkpoint == found.checkpoint
    await put(saver, {"small": 3}, config, {"small"})
    monkeypatch.setattr(cleanup, "LEASE", timedelta(0))
    await saver.aprune(["t"])
    assert await records(adapter_world) == {"checkpoint": 1}


async def test_deleting_a_run_leaves_other_checkpoints_their_values(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend)
    values = {"small": "kept", "large": "x" * 30_000}
    first = await put(saver, values, run_id="one")
    await put(saver, {**values, "more": 1}, first, {"more"}, run_id="two")
    await saver.adelete_for_runs(["one"])
    (left,) = await history(saver, thread())
    assert left.checkpoint["channel_values"] == {**values, "more": 1}
    await saver.adelete_for_runs(["two", "none"])
    assert await history(saver, thread()) == []
    assert await records(adapter_world) == {}


async def test_a_deployment_that_keeps_little_keeps_a_thread_whole(
    adapter_world: Deployment, backend: Backend
) -> None:
    for partition in range(adapter_world.partitions):
        body = policy_body({"max_checkpoints": 2, "max_age": 1})
        await adapter_world.send(body, None, EventType.CONFIGURE_DEFAULTS.wire, partition=partition)
    saver = WaypostSaver(backend)
    config = None
    for step in range(12):
        config = await put(saver, {"step": step}, config, {"step"}, step=step)
    assert [each.metadata["step"] for each in await history(saver, thread())] == list(reversed(range(12)))


async def test_a_full_thread_is_refused_and_continues_after_pruning(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.backend.FULL", 20)
    saver = WaypostSaver(backend)
    for step in range(20):
        await put(saver, {"step": step})
    with pytest.raises(
        SessionFullError, match=r"holds 20 records.*Prune the thread, delete it, or give WaypostSaver keep=N"
    ):
        await put(saver, {"step": 20})
    assert len(await history(saver, thread())) == 20
    await saver.aprune(["t"])
    await put(saver, {"step": 20})
    assert len(await history(saver, thread())) == 2


async def test_a_write_that_cost_an_older_one_is_reported(
    adapter_world: Deployment, backend: Backend
) -> None:
    saver = WaypostSaver(backend, durability="applied")
    await put(saver, {"step": 0})
    await adapter_world.send(policy_body({"max_checkpoints": 2}), b"langgraph/t", EventType.CONFIGURE.wire)
    await put(saver, {"step": 1})
    with pytest.raises(SessionFullError, match=r"lost 1 records to its retention, the first langgraph/t:2"):
        await put(saver, {"step": 2})


async def test_as_many_channels_as_the_page_promises(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    values = {f"a-channel-with-a-long-name-{number}": number for number in range(700)}
    facts = {f"fact-{number}": "v" * 100 for number in range(32)}  # as many as are searchable
    await put(saver, values, **facts)
    found = await saver.aget_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"] == values
    with pytest.raises(InvalidCommandError, match=r"1100 channels with values.* About 700 fit"):
        await put(saver, {f"channel-{number}": number for number in range(1_100)})


async def test_keep_bounds_a_thread_without_anybody_pruning(
    adapter_world: Deployment, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "LEASE", timedelta(0))
    saver = WaypostSaver(backend, keep=5)
    config = await put(saver, {"document": "x" * 20_000, "step": 0})
    for step in range(1, 130):
        config = await put(saver, {"document": "x" * 20_000, "step": step}, config, {"step"}, step=step)
        await backend._clean_ups.ended("langgraph/t")
    found = await history(saver, thread())
    assert 5 <= len(found) <= 5 + 64
    assert all(each.checkpoint["channel_values"]["document"] == "x" * 20_000 for each in found)
    assert [each.metadata["step"] for each in found] == list(reversed(range(130 - len(found), 130)))
    assert (await records(adapter_world))["values"] == 1


async def test_all_threads_are_listed_whatever_they_are_called(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    names = [
        "short",
        "long " * 100,
        "line\nbreak",
        "sha256:none",
        "ünï",
        "a/b:c",
        "nul\0",
        "ü" * 2_000,
        "half \ud83d",  # as a value, LangGraph's serializer does not keep it
    ]
    for name in names:
        await put(saver, {"name": name}, thread(name))
        await put(saver, {"name": name}, thread(name, "child:1"))
    await saver.acopy_thread("long " * 100, "copied " * 50)
    await saver.acopy_thread("line\nbreak", "plain")
    await saver.acopy_thread("nul\0", "nul\0\0")
    found = [each async for each in saver.alist(None)]
    assert sorted({each.config["configurable"]["thread_id"] for each in found}) == sorted(
        [*names, "copied " * 50, "plain", "nul\0\0"]
    )
    assert len(found) == 2 * (len(names) + 3)
    for name in names[:-1]:
        in_child = await history(saver, thread(name, "child:1"))
        assert [each.checkpoint["channel_values"] for each in in_child] == [{"name": name}]


async def test_filters_find_facts_that_postgres_holds_and_those_it_does_not(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    many = {f"key-{number}": "v" * 200 for number in range(60)}  # too many to be searchable
    told: list[dict[str, Any]] = [
        {"user": "ann", "score": 1},
        {"user": "ann", "score": 1.5},
        {"user": "ann", "score": 1.0},
        {"user": "ann", "score": 2},
        {"user": "zoe"},
        {"user": "bob", "score": True, "nested": {"a": [1]}},
        {"user": "ann", **many},
    ]
    for each in told:
        await put(saver, {}, **each)
    filters: list[dict[str, Any]] = [
        {"user": "ann"},
        {"user": "ann", "score": 1.5},
        {"nested": {"a": [1]}},
        {"key-7": "v" * 200, "user": "ann"},
        {"score": None},
        {"score": 1},
        {"score": True},
        {"score": 2, "user": "ann"},
        {"score": 2.0},
        {"user": "nobody"},
        {"\ud83d": 1},
        {"user": "\ud83d"},
        {"a\0": 1},
    ]
    everything = await history(saver, thread())
    for wanted in filters:
        expected = [
            each.config
            for each in everything
            if all(dict(each.metadata).get(key) == value for key, value in wanted.items())
        ]
        assert [each.config async for each in saver.alist(thread(), filter=wanted)] == expected
        assert [each.config async for each in saver.alist(thread(), filter=wanted, limit=1)] == expected[:1]


async def test_before_an_unknown_checkpoint_counts_by_id(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    configs = [await put(saver, {}) for _ in range(3)]
    ids = [config["configurable"]["checkpoint_id"] for config in configs]
    listed = [each async for each in saver.alist(thread(), before=thread(checkpoint_id=ids[2][:-1]))]
    assert [each.config["configurable"]["checkpoint_id"] for each in listed] == [ids[1], ids[0]]


async def test_a_checkpoint_that_is_put_again_replaces_the_first(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    checkpoint: Any = {**empty_checkpoint(), "channel_values": {}, "channel_versions": {}}
    for step in (1, 2):
        await saver.aput(thread(), checkpoint, {"source": "loop", "step": step}, {})
    (found,) = await history(saver, thread())
    assert found.metadata["step"] == 2


async def test_ids_that_cannot_be_stored_are_not_found(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    await put(saver, {}, run_id="run")
    for config in (thread(checkpoint_id="1\0"), thread(ns="\0")):
        assert await saver.aget_tuple(config) is None
        assert await history(saver, config) == []
    await saver.adelete_for_runs(["\0"])
    assert len([each async for each in saver.alist(thread(), before=thread(checkpoint_id="~\0"))]) == 1
    with pytest.raises(InvalidCommandError, match=r"U\+0000"):
        await put(saver, {}, thread(ns="\0"))


async def test_clocks_that_disagree_hide_nothing(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    early = {**empty_checkpoint(), "id": "1e000000-0000-6000-8000-000000000000"}
    late = {**empty_checkpoint(), "id": "1f000000-0000-6000-8000-000000000000"}
    for each in (late, early):  # the second writer's clock is behind
        each["channel_values"], each["channel_versions"] = {}, {}
        await saver.aput(thread(), each, {"source": "loop", "step": 0}, {})  # type: ignore[arg-type]
    newest = await saver.aget_tuple(thread())
    assert newest is not None
    assert newest.checkpoint["id"] == early["id"]


async def test_nothing_is_pickled(backend: Backend) -> None:
    saver = WaypostSaver(backend)
    assert saver.serde.pickle_fallback is False  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        await put(saver, {"lock": threading.Lock()})
    assert await saver.aget_tuple(thread()) is None


def test_keep_must_keep_something() -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        WaypostSaver(Backend("localhost:1", "postgresql://x"), keep=0)
