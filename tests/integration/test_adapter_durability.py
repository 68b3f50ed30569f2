"""What a write of an adapter waits for, and what reads see: what was promised, in every mode, whoever reads or dies."""

import asyncio
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agents import SQLiteSession
from aiokafka import AIOKafkaProducer
from tests.integration.adapters import running_backend
from tests.integration.langgraph_threads import history, put, put_all, thread
from tests.support.commands import create_body
from tests.support.deployment import CREATE, TIME, Deployment, deployment
from tests.support.histories import Operation, is_linearizable
from tests.support.timeouts import PATIENCE

from waypost import Publisher, Reader, ReaderTimeoutError
from waypost.adapters import Backend, RejectedWriteError
from waypost.adapters import commands as commands_module
from waypost.adapters.agent_framework import WaypostCheckpointStorage
from waypost.adapters.backend import Durability
from waypost.adapters.claude_agent_sdk import WaypostSessionStore
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.openai_agents import WaypostSession
from waypost.wire.encode import CreateParts
from waypost.wire.envelope import command_headers
from waypost_worker.devserver import Servers

NO_OBJECT = CreateParts("n", b'{"name":"n"', b"7")
MODES: tuple[Durability, ...] = ("accepted", "logged", "applied")
HERE = Path(__file__).parent


def addresses(world: Deployment) -> tuple[str, str, str]:
    return world.endpoints.bootstrap_servers, world.dsn, world.topics.prefix


async def value_of(saver: WaypostSaver, thread_id: str = "t") -> Any:
    found = await saver.aget_tuple(thread(thread_id))
    return None if found is None else found.checkpoint["channel_values"].get("step")


@pytest.mark.parametrize("mode", ["accepted", "logged"])
async def test_a_process_reads_its_own_writes_although_no_worker_runs(
    servers: Servers, database: str, topic_prefix: str, mode: Durability
) -> None:
    async with (
        deployment(servers.endpoints, database, topic_prefix) as world,
        running_backend(world, timeout=PATIENCE) as backend,
    ):
        saver = WaypostSaver(backend, durability=mode)
        config = await put(saver, {"step": 1, "large": "x" * 20_000})
        await saver.aput_writes(config, [("step", 2)], "task")
        found = await saver.aget_tuple(thread())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"step": 1, "large": "x" * 20_000}
        assert found.pending_writes == [("task", "step", 2)]
        assert await saver.aget_tuple(thread(checkpoint_id="another")) is None
        session = WaypostSession("s", backend, durability=mode)
        await session.add_items([{"role": "user", "content": str(each)} for each in range(3)])
        assert [item["content"] for item in await session.get_items()] == ["0", "1", "2"]  # type: ignore[typeddict-item]
        assert [item["content"] for item in await session.get_items(2)] == ["1", "2"]  # type: ignore[typeddict-item]
        # Now it is applied, in part from Postgres and in part not.
        world.own()
        await history(saver, thread())
        assert (await saver.aget_tuple(thread())) == found
        await put(saver, {"step": 3, "large": "x" * 20_000}, config, {"step"})
        newest = await saver.aget_tuple(thread())
        assert newest is not None
        assert newest.checkpoint["channel_values"] == {"step": 3, "large": "x" * 20_000}
        await session.add_items([{"role": "user", "content": "3"}])
        assert [item["content"] for item in await session.get_items()] == ["0", "1", "2", "3"]  # type: ignore[typeddict-item]


@pytest.mark.parametrize("mode", ["logged", "applied"])
async def test_what_another_process_reads_is_linearizable(
    adapter_world: Deployment, backend: Backend, mode: Durability
) -> None:
    watchers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, HERE / "thread_watcher.py", *addresses(adapter_world), "watched"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for watcher in watchers:
        assert watcher.stdout is not None
        assert await asyncio.wait_for(watcher.stdout.readline(), PATIENCE) == b"ready\n"
    operations: list[Operation] = []

    async def write(name: str, saver: WaypostSaver) -> None:
        for step in range(25):
            value = f"{name}{step}"
            start = time.monotonic()
            await put_all(saver, {"step": value}, thread("watched"))
            operations.append(Operation("write", value, start, time.monotonic()))
            start = time.monotonic()
            seen = await value_of(saver, "watched")
            operations.append(Operation("read", seen, start, time.monotonic()))

    async with running_backend(adapter_world) as elsewhere:
        savers = [WaypostSaver(each, durability=mode) for each in (backend, elsewhere)]
        await asyncio.gather(write("a", savers[0]), write("b", savers[1]))
    by_watchers = 0
    for watcher in watchers:
        out, _ = await asyncio.wait_for(watcher.communicate(b""), PATIENCE)
        for line in out.decode().splitlines():
            start, end, value = line.split()
            operations.append(Operation("read", None if value == "None" else value, float(start), float(end)))
            by_watchers += 1
    assert by_watchers > 20
    assert is_linearizable(operations)


async def test_accepted_writes_are_linearizable_within_their_process(
    adapter_world: Deployment, backend: Backend
) -> None:
    operations: list[Operation] = []
    saver = WaypostSaver(backend, durability="accepted")

    async def write() -> None:
        for step in range(40):
            start = time.monotonic()
            await put_all(saver, {"step": step})
            operations.append(Operation("write", step, start, time.monotonic()))
            await asyncio.sleep(0)

    async def read() -> None:
        while len(operations) < 80:
            start = time.monotonic()
            seen = await value_of(saver)
            operations.append(Operation("read", seen, start, time.monotonic()))

    await asyncio.gather(write(), read(), read())
    assert is_linearizable(operations)
    await adapter_world.balanced()


async def test_what_the_worker_rejects_is_logged_and_raised_by_a_later_call(
    adapter_world: Deployment,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    saver = WaypostSaver(backend)
    await put(saver, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(commands_module, "encoded_create", lambda *_: NO_OBJECT)
        await put(saver, {"step": 2, "other": "never stored"})
    with pytest.raises(
        RejectedWriteError, match=r"rejected an earlier write to 'langgraph/t'.*invalid-body"
    ) as caught:
        await history(saver, thread())  # which waits until it is known
    assert (caught.value.session_id, caught.value.code) == ("langgraph/t", "invalid-body")
    assert [each.levelno for each in caplog.records if "rejected an earlier write" in each.message] == [
        logging.ERROR
    ]
    assert await value_of(saver) == 1
    await put(saver, {"step": 3, "other": "never stored"})
    newest = await saver.aget_tuple(thread())
    assert newest is not None
    assert newest.checkpoint["channel_values"]["other"] == "never stored"


async def test_a_rejection_that_nobody_reads_is_logged_all_the_same(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "rejected an earlier write" in record.getMessage():
                loop.call_soon_threadsafe(told.set)

    listener = Listener()
    logging.getLogger("waypost").addHandler(listener)
    try:
        monkeypatch.setattr(commands_module, "encoded_create", lambda *_: NO_OBJECT)
        await put(WaypostSaver(backend), {"step": 1})
        await asyncio.wait_for(told.wait(), PATIENCE)
    finally:
        logging.getLogger("waypost").removeHandler(listener)


@pytest.mark.parametrize(("mode", "spool"), [("accepted", True), ("logged", False), ("applied", False)])
async def test_an_agent_that_is_killed_has_what_it_was_promised(
    adapter_world: Deployment, backend: Backend, tmp_path: Path, mode: Durability, spool: bool
) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.mortal_agent", *addresses(adapter_world), mode),
        str(tmp_path / "spool") if spool else "",
        stdout=asyncio.subprocess.PIPE,
    )
    assert agent.stdout is not None
    promised = 0
    for _ in range(chance.randrange(20, 120)):
        promised = int(await asyncio.wait_for(agent.stdout.readline(), PATIENCE))
    agent.kill()
    rest, _ = await agent.communicate()
    promised = max([promised, *(int(each) for each in rest.split(b"\n")[:-1])])
    if spool:
        server = adapter_world.endpoints.bootstrap_servers
        prefix = adapter_world.topics.prefix
        async with Publisher(server, topic_prefix=prefix, spool=tmp_path / "spool") as next_one:
            assert await next_one.flush(PATIENCE) == 0
    found = {
        each.checkpoint["channel_values"]["step"]: each
        for each in await history(WaypostSaver(backend), thread("mortal"))
    }
    assert set(range(1, promised + 1)) <= set(found)
    assert max(found) <= promised + 1
    for step in range(1, promised + 1):
        assert found[step].pending_writes == [(f"task-{step}", "step", step)]
    await adapter_world.balanced()


async def test_reads_that_may_be_stale_need_no_kafka(adapter_world: Deployment, backend: Backend) -> None:
    await put(WaypostSaver(backend, durability="applied"), {"step": 1})
    nowhere = Backend("127.0.0.1:1", adapter_world.dsn, topic_prefix=adapter_world.topics.prefix, timeout=0.5)
    async with nowhere:
        assert await value_of(WaypostSaver(nowhere, stale_ok=True)) == 1
        assert await WaypostSession("s", nowhere, stale_ok=True).get_items() == []
        assert (
            await WaypostCheckpointStorage(nowhere, "r", stale_ok=True).list_checkpoint_ids(workflow_name="w")
            == []
        )
        transcripts = WaypostSessionStore(nowhere, stale_ok=True)
        assert await transcripts.load({"project_key": "p", "session_id": "s"}) is None
        assert await transcripts.list_subkeys({"project_key": "p", "session_id": "s"}) == []
        with pytest.raises(
            Exception, match=r"Kafka did not say within .* Nothing was read.*No broker can be reached"
        ):
            await value_of(WaypostSaver(nowhere))


async def test_a_barrier_waits_for_what_kafka_acknowledged(
    servers: Servers, database: str, topic_prefix: str
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix) as world:
        await world.create("s")
        options: dict[str, Any] = {
            "bootstrap_servers": world.endpoints.bootstrap_servers,
            "topic_prefix": topic_prefix,
        }
        async with Reader(world.dsn, **options) as reader:
            with pytest.raises(
                ReaderTimeoutError, match=r"applied the commands below 0 of partition 0.* up to 1"
            ):
                await reader.barrier("s", timeout=0.2)
            world.own()
            for number in range(1, 20):
                await reader.barrier("s", timeout=PATIENCE)
                assert await reader.session("s").count() == number
                await world.create("s")
    with pytest.raises(ValueError, match="bootstrap_servers"):
        await Reader(database).barrier("s")


@pytest.mark.parametrize("ends", ["commit", "abort"])
async def test_a_barrier_passes_over_the_ends_of_transactions(
    servers: Servers, database: str, topic_prefix: str, ends: str
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix) as world:
        world.own()
        await world.create("s")
        producer = AIOKafkaProducer(
            bootstrap_servers=world.endpoints.bootstrap_servers, transactional_id=topic_prefix
        )
        await producer.start()
        try:
            await producer.begin_transaction()
            headers = command_headers("in-a-transaction", b"/test", CREATE, TIME)
            await producer.send_and_wait(
                world.topics.commands, create_body("n", {}), key=b"s", headers=headers, partition=0
            )
            await (producer.commit_transaction() if ends == "commit" else producer.abort_transaction())
        finally:
            await producer.stop()
        servers_, prefix = world.endpoints.bootstrap_servers, topic_prefix
        async with Reader(world.dsn, bootstrap_servers=servers_, topic_prefix=prefix) as reader:
            await reader.barrier("s", timeout=PATIENCE)
            assert await reader.session("s").count() == (2 if ends == "commit" else 1)


@pytest.mark.parametrize("mode", MODES)
async def test_the_other_adapters_promise_the_same(
    adapter_world: Deployment, backend: Backend, mode: Durability
) -> None:
    theirs = SQLiteSession("twin")
    async with running_backend(adapter_world) as elsewhere:
        ours = WaypostSession("twin", backend, durability=mode)
        other = WaypostSession("twin", elsewhere)
        for turn in range(12):
            items: list[Any] = [{"role": "user", "content": f"{turn}/{each}"} for each in range(turn % 3 + 1)]
            await ours.add_items(items)
            await theirs.add_items(items)
            assert await ours.get_items(4) == await theirs.get_items(4)
            if mode != "accepted":
                assert await other.get_items() == await theirs.get_items()
            if turn % 4 == 3:
                assert await ours.pop_item() == await theirs.pop_item()
        storage = WaypostCheckpointStorage(backend, "twin", durability=mode)
        from agent_framework import WorkflowCheckpoint

        for turn in range(5):
            made = WorkflowCheckpoint(workflow_name="f", graph_signature_hash="h", state={"turn": turn})
            await storage.save(made)
            latest = await storage.get_latest(workflow_name="f")
            assert latest == made
            if mode != "accepted":
                assert await WaypostCheckpointStorage(elsewhere, "twin").get_latest(workflow_name="f") == made
    theirs.close()
    await adapter_world.balanced()


def test_a_mode_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="durability is 'accepted', 'logged' or 'applied', not 'sync'"):
        WaypostSaver(Backend("localhost:1", "postgresql://x"), durability="sync")  # type: ignore[arg-type]
