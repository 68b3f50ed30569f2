"""Threads of LangGraph's own savers, taken over: equal, whole or not at all, as often as one likes."""

import json
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.types import Command
from tests.integration.langgraph_threads import (
    delta_graph,
    fan_graph,
    history,
    put,
    put_all,
    records,
    review_graph,
    thread,
)
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment
from tests.support.worker_deployment import line, shared

from waypost import InvalidCommandError
from waypost.adapters import Backend
from waypost.adapters.allowed_types import TypeNotAllowedError
from waypost.adapters.langgraph import StrictSerializer, WaypostSaver
from waypost.adapters.langgraph_import import Outcome, SourceError, ThreadImport, opened

aio_postgres = pytest.importorskip("langgraph.checkpoint.postgres.aio")
aio_sqlite = pytest.importorskip("langgraph.checkpoint.sqlite.aio")
sqlite_saver = pytest.importorskip("langgraph.checkpoint.sqlite")

__all__ = ["line", "shared"]


@dataclass
class Plan:
    """A class of the application's own."""

    goal: str


@dataclass
class Origin:
    """A source: its saver, and where it is."""

    saver: BaseCheckpointSaver[Any]
    place: str
    kind: str

    async def run(self, statement: str, *values: Any) -> None:
        """Change the database as no saver would. Places of values are $1, $2."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.place)) as connection, connection:
                connection.execute(statement.replace("$", "?"), values)
            return
        connection = await asyncpg.connect(self.place)
        await connection.execute(statement, *values)
        await connection.close()


@asynccontextmanager
async def origin_of(kind: str, dsn: str, directory: Path) -> AsyncIterator[Origin]:
    if kind == "sqlite":
        file = str(directory / "threads.sqlite")
        async with aio_sqlite.AsyncSqliteSaver.from_conn_string(file) as saver:
            await saver.setup()
            yield Origin(saver, file, kind)
        return
    async with aio_postgres.AsyncPostgresSaver.from_conn_string(dsn) as saver:
        await saver.setup()
        yield Origin(saver, dsn, kind)


@pytest.fixture(params=["postgres", "sqlite"])
async def origin(
    request: pytest.FixtureRequest, adapter_world: Deployment, tmp_path: Path
) -> AsyncIterator[Origin]:
    async with origin_of(request.param, adapter_world.dsn, tmp_path) as made:
        yield made


async def taken(backend: Backend, origin: Origin, thread_id: str = "t", *, dry_run: bool = False) -> Outcome:
    async with opened(origin.place) as source:
        return await ThreadImport(backend, source).take(thread_id, dry_run=dry_run)


async def compared(backend: Backend, origin: Origin, thread_id: str = "t") -> list[str]:
    async with opened(origin.place) as source:
        return await ThreadImport(backend, source).compare(thread_id)


async def assert_equal(origin: Origin, saver: WaypostSaver, thread_id: str = "t") -> None:
    config: Any = {"configurable": {"thread_id": thread_id}}
    there, here = await history(origin.saver, config), await history(saver, config)
    assert there
    assert here == there
    for each in there:
        assert await saver.aget_tuple(each.config) == await origin.saver.aget_tuple(each.config)


async def test_threads_of_graphs_are_equal_and_continue(backend: Backend, origin: Origin) -> None:
    review: Any = {"configurable": {"thread_id": "review"}}
    await review_graph(origin.saver).ainvoke({"notes": [], "question": "why?"}, review)
    fan: Any = {"configurable": {"thread_id": "fan"}}
    await fan_graph(origin.saver).ainvoke({"topics": ["a", "b"], "notes": []}, fan)
    log: Any = {"configurable": {"thread_id": "log"}}
    for step in range(4):
        await delta_graph(origin.saver).ainvoke({"log": [f"asked {step}"], "step": step}, log)
    saver = WaypostSaver(backend)
    for thread_id in ("review", "fan", "log"):
        outcome = await taken(backend, origin, thread_id)
        assert outcome.problems == []
        assert outcome.imported > 1
        assert await compared(backend, origin, thread_id) == []
        await assert_equal(origin, saver, thread_id)
    answer = Command(resume="because")
    expected = await review_graph(origin.saver).ainvoke(answer, review)
    assert await review_graph(saver).ainvoke(answer, review) == expected
    assert await fan_graph(saver).ainvoke(None, fan) == await fan_graph(origin.saver).ainvoke(None, fan)
    again = {"log": ["asked again"], "step": 9}
    assert await delta_graph(saver).ainvoke(again, log) == await delta_graph(origin.saver).ainvoke(again, log)


async def test_a_second_import_adds_only_what_is_new(
    adapter_world: Deployment, backend: Backend, origin: Origin
) -> None:
    config = await put(origin.saver, {"text": "one", "list": [1]})  # type: ignore[arg-type]
    assert (await taken(backend, origin)).imported == 1
    stored = await records(adapter_world)
    again = await taken(backend, origin)
    assert (again.imported, again.present) == (0, 1)
    assert await records(adapter_world) == stored
    await origin.saver.aput_writes(config, [("text", "two"), ("list", [2])], "task")
    await put(origin.saver, {"text": "two", "list": [1]}, config, {"text"})  # type: ignore[arg-type]
    more = await taken(backend, origin)
    assert (more.imported, more.present) == (1, 1)
    assert await records(adapter_world) == {"checkpoint": 2, "writes": 1}
    await assert_equal(origin, WaypostSaver(backend))


async def test_an_interrupted_import_is_completed(
    adapter_world: Deployment, backend: Backend, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = None
    for number in range(6):
        config = await put_all(origin.saver, {"n": [number]}, config)  # type: ignore[arg-type]
        await origin.saver.aput_writes(config, [("n", [number])], f"task {number}")
    monkeypatch.setattr("waypost.adapters.langgraph_import._TOGETHER", 3)
    append, calls = backend.append, []

    async def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise InterruptedError
        return await append(*arguments, **options)

    monkeypatch.setattr(backend, "append", interrupted)
    with pytest.raises(InterruptedError):
        await taken(backend, origin)
    assert sum((await records(adapter_world)).values()) == 6
    assert (await compared(backend, origin)) != []
    outcome = await taken(backend, origin)
    assert (outcome.problems, outcome.present, outcome.imported) == ([], 3, 3)
    assert await records(adapter_world) == {"checkpoint": 6, "writes": 6}
    await assert_equal(origin, WaypostSaver(backend))


async def test_a_dry_run_stores_nothing(adapter_world: Deployment, backend: Backend, origin: Origin) -> None:
    await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
    outcome = await taken(backend, origin, dry_run=True)
    assert (outcome.imported, outcome.problems) == (1, [])
    assert await records(adapter_world) == {}
    assert await compared(backend, origin) != []


async def test_a_row_that_is_damaged_is_named_and_its_thread_left_out(
    adapter_world: Deployment, backend: Backend, origin: Origin
) -> None:
    first = await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
    second = await put(origin.saver, {"text": "two"}, first, {"text"})  # type: ignore[arg-type]
    await origin.saver.aput_writes(second, [("text", "three")], "task-7")
    column, table = ("value", "writes") if origin.kind == "sqlite" else ("blob", "checkpoint_writes")
    await origin.run(f"update {table} set {column} = $1", b"\xc1\xc1")
    outcome = await taken(backend, origin)
    (problem,) = outcome.problems
    assert second["configurable"]["checkpoint_id"] in problem
    assert "task-7" in problem
    assert outcome.imported == 0
    assert await records(adapter_world) == {}
    await origin.run(f"delete from {table}")
    assert (await taken(backend, origin)).imported == 2


async def test_a_checkpoint_that_is_damaged_is_named(
    adapter_world: Deployment, backend: Backend, origin: Origin
) -> None:
    first = await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
    await put(origin.saver, {"text": "two"}, first, {"text"})  # type: ignore[arg-type]
    broken: Any = b"\xc1" if origin.kind == "sqlite" else '"text"'
    which = first["configurable"]["checkpoint_id"]
    await origin.run("update checkpoints set checkpoint = $1 where checkpoint_id = $2", broken, which)
    outcome = await taken(backend, origin)
    assert [which in problem for problem in outcome.problems] == [True]
    assert await records(adapter_world) == {}


async def test_pickled_values_are_never_taken_over(
    adapter_world: Deployment, backend: Backend, origin: Origin
) -> None:
    config = await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
    await origin.saver.aput_writes(config, [("text", "two")], "task")
    table = "writes" if origin.kind == "sqlite" else "checkpoint_writes"
    await origin.run(f"update {table} set type = 'pickle'")
    (problem,) = (await taken(backend, origin)).problems
    assert "'pickle', which is never read" in problem
    assert await records(adapter_world) == {}


async def test_an_application_s_own_types_pass_and_are_named(backend: Backend, origin: Origin) -> None:
    values = {"plan": Plan("rome"), "all": [Plan("a"), uuid.UUID(int=7), {"deep": {1, 2}}]}
    await put(origin.saver, values)  # type: ignore[arg-type]
    outcome = await taken(backend, origin)
    assert outcome.problems == []
    assert outcome.types == {f"{__name__}:Plan"}
    assert await compared(backend, origin) == []
    with pytest.raises(TypeNotAllowedError):
        await WaypostSaver(backend).aget_tuple(thread())
    found = await WaypostSaver(backend, allowed_types=outcome.types).aget_tuple(thread())
    assert found is not None
    assert found.checkpoint["channel_values"] == values


async def test_a_thread_that_an_agent_continued_gets_nothing_more(
    adapter_world: Deployment, backend: Backend, origin: Origin
) -> None:
    config = await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
    await taken(backend, origin)
    await put(WaypostSaver(backend, durability="applied"), {"text": "here"}, config, {"text"})
    await put(origin.saver, {"text": "there"}, config, {"text"})  # type: ignore[arg-type]
    before = await records(adapter_world)
    (problem,) = (await taken(backend, origin)).problems
    assert "an agent has continued it in Waypost" in problem
    assert await records(adapter_world) == before


async def test_the_comparison_names_what_differs(backend: Backend, origin: Origin) -> None:
    config = await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
    await taken(backend, origin)
    which = config["configurable"]["checkpoint_id"]
    metadata: Any = json.dumps({"source": "changed"})
    await origin.run(
        "update checkpoints set metadata = $1", metadata.encode() if origin.kind == "sqlite" else metadata
    )
    await origin.run("update checkpoints set parent_checkpoint_id = 'other'")
    await origin.saver.aput_writes(config, [("text", "more")], "task")
    assert await compared(backend, origin) == [
        f"checkpoint '{which}' differs in Waypost: metadata, parent, writes"
    ]


async def test_large_values_and_strange_thread_ids_come_over(backend: Backend, origin: Origin) -> None:
    thread_id = "ü/" * 300
    values = {"large": "x" * 2_000_000, "bytes": b"\0\xff" * 20_000, "none": None, "float": 1.5}
    await put(origin.saver, values, thread(thread_id))  # type: ignore[arg-type]
    assert (await taken(backend, origin, thread_id)).problems == []
    await assert_equal(origin, WaypostSaver(backend), thread_id)


class Reversed:
    """A cipher that anybody can break."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "reversed", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return ciphertext[::-1]


async def test_encrypted_values_stay_encrypted(backend: Backend, origin: Origin) -> None:
    origin.saver.serde = EncryptedSerializer(Reversed())
    config = await put(origin.saver, {"list": ["one"]})  # type: ignore[arg-type]
    await origin.saver.aput_writes(config, [("list", ["two"])], "task")
    outcome = await taken(backend, origin)
    if origin.kind == "sqlite":
        assert ["'msgpack+reversed'" in problem for problem in outcome.problems] == [True]
        return
    assert outcome.problems == []
    assert await compared(backend, origin) == []
    await assert_equal(
        origin, WaypostSaver(backend, serde=EncryptedSerializer(Reversed(), StrictSerializer()))
    )


async def test_a_thread_without_room_is_left_out(
    adapter_world: Deployment, backend: Backend, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.adapters.langgraph_import.FULL", 2)
    config = None
    for number in range(3):
        config = await put_all(origin.saver, {"n": number}, config)  # type: ignore[arg-type]
    (problem,) = (await taken(backend, origin)).problems
    assert "3 records, and a thread has room for 2" in problem
    assert await records(adapter_world) == {}


async def test_a_rejection_in_the_middle_is_reported_as_such(
    adapter_world: Deployment, backend: Backend, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = None
    for number in range(3):
        config = await put_all(origin.saver, {"n": number}, config)  # type: ignore[arg-type]
    monkeypatch.setattr("waypost.adapters.langgraph_import._TOGETHER", 2)
    append = backend.append

    async def second_fails(session_id: str, group: Any, **options: Any) -> Any:
        if len(group) == 1:
            raise InvalidCommandError("unauthorized", "not today")
        return await append(session_id, group, **options)

    monkeypatch.setattr(backend, "append", second_fails)
    outcome = await taken(backend, origin)
    assert ["only a part of it was imported" in problem for problem in outcome.problems] == [True]
    assert await records(adapter_world) == {"checkpoint": 2}


async def test_what_an_old_parent_s_tasks_sent_is_taken_over(
    adapter_world: Deployment, backend: Backend
) -> None:
    async with origin_of("postgres", adapter_world.dsn, Path()) as origin:
        parent = await put(origin.saver, {"text": "one"})  # type: ignore[arg-type]
        await origin.saver.aput_writes(parent, [("__pregel_tasks", {"to": "look"})], "task")
        old: Any = {**empty_checkpoint(), "v": 3}
        old |= {"channel_values": {"text": "one"}, "channel_versions": {"text": "1"}}
        await origin.saver.aput(parent, old, {"source": "loop"}, {})
        assert (await taken(backend, origin)).problems == []
        await assert_equal(origin, WaypostSaver(backend))


async def test_an_invalid_source_is_an_error(adapter_world: Deployment, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database" * 100)
    for place in (
        str(text),
        str(tmp_path / "missing.sqlite"),
        adapter_world.dsn,
        "postgresql://127.0.0.1:1/x",
    ):
        with pytest.raises(SourceError, match="source"):
            async with opened(place) as source:
                await source.threads()


# On the command line.


def filled(file: Path, *thread_ids: str) -> str:
    with sqlite_saver.SqliteSaver.from_conn_string(str(file)) as saver:
        for thread_id in thread_ids:
            checkpoint = {**empty_checkpoint(), "channel_values": {"n": 1}, "channel_versions": {"n": "1"}}
            config = saver.put(thread(thread_id), checkpoint, {"source": "input"}, {"n": "1"})
            saver.put_writes(config, [("n", 2)], "task")
    return str(file)


def test_the_command_imports_skips_and_compares(line: CommandLine) -> None:
    names = [f"thread-{uuid.uuid4().hex}" for _ in range(3)]
    file = filled(line.directory / "threads.sqlite", *names)
    dry = line.run("import", "langgraph", "--from", file, "--dry-run", "-o", "json")
    assert dry.json == {"threads": 3, "would_import": 3, "skipped": 0, "left_out": 0, "types": []}
    one = line.run("import", "langgraph", "--from", file, "--thread", names[0], "-o", "json")
    assert (one.code, one.json["imported"]) == (0, 1)
    ended = line.run("import", "langgraph", "--from", file, "-o", "json")
    assert ended.code == 0
    assert ended.json == {
        "threads": 3,
        "imported": 2,
        "skipped": 1,
        "left_out": 0,
        "different": 0,
        "types": [],
    }
    assert "importing: 3 of 3 checkpoints" in ended.err
    shown = line.run("session", "show", f"langgraph/{names[0]}", "-o", "json").json
    assert {row["name"] for row in shown} == {"checkpoint", "writes"}


def test_the_command_fails_for_a_thread_that_it_leaves_out(line: CommandLine) -> None:
    good, bad = (f"thread-{uuid.uuid4().hex}" for _ in range(2))
    file = filled(line.directory / "threads.sqlite", good, bad)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update writes set value = x'c1' where thread_id = ?", (bad,))
    ended = line.run("import", "langgraph", "--from", file, "-o", "json")
    assert ended.code == 1
    assert (ended.json["imported"], ended.json["left_out"], ended.json["different"]) == (1, 1, 0)
    assert f"thread '{bad}': checkpoint" in ended.err
    assert line.run("session", "show", f"langgraph/{bad}").code == 1


def test_the_command_says_what_is_wrong_with_the_source(line: CommandLine) -> None:
    missing = line.run("import", "langgraph", "--from", "no-such-file")
    assert (missing.code, missing.error.startswith("The source")) == (1, True)
    file = filled(line.directory / "threads.sqlite", "thread-1")
    unknown = line.run("import", "langgraph", "--from", file, "--thread", "thread-2")
    assert (unknown.code, unknown.error) == (
        2,
        "The source has no thread 'thread-2'. Nothing was imported.",
    )
    no_tables = line.run("import", "langgraph", "--from", line.settings["WAYPOST_POSTGRES_DSN"])
    assert (no_tables.code, "setup()" in no_tables.error) == (1, True)
