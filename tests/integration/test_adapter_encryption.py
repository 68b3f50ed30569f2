"""Adapters with a codec: what frameworks store is encrypted, serialized values and parts of large ones included."""

import uuid
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from tests.integration.adapters import running_backend
from tests.support.deployment import Deployment
from tests.support.keys import key_codec

from waypost import PlaintextError
from waypost.adapters import Backend
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.openai_agents import WaypostSession

DURABILITY = pytest.mark.parametrize("durability", ["accepted", "logged", "applied"])


async def stored_data(world: Deployment) -> list[bytes]:
    connection = await asyncpg.connect(world.dsn)
    try:
        return [row["data"] for row in await connection.fetch("select data from waypost.checkpoints")]
    finally:
        await connection.close()


def said(text: str) -> Any:
    return {"role": "user", "content": text}


@DURABILITY
async def test_items_of_a_session_come_back_and_are_stored_encrypted(
    adapter_world: Deployment, tmp_path: Path, durability: Any
) -> None:
    secret = f"secret-{uuid.uuid4().hex}"
    large = said(secret + "x" * 1_500_000)
    async with running_backend(adapter_world, codec=await key_codec(tmp_path)) as backend:
        session = WaypostSession("user-7", backend, durability=durability)
        await session.add_items([said(f"{secret} {number}") for number in range(300)])
        await session.add_items([large])
        items = await session.get_items()
        assert len(items) == 301
        assert items[-1] == large
        assert await session.pop_item() == large
        await backend.settled("openai-agents/user-7")
    data = await stored_data(adapter_world)
    assert len(data) >= 300
    assert not any(secret.encode() in each for each in data)
    # Another process, with nothing in memory.
    async with running_backend(adapter_world, codec=await key_codec(tmp_path)) as backend:
        assert (await WaypostSession("user-7", backend).get_items(1)) == [said(f"{secret} 299")]


@DURABILITY
async def test_a_langgraph_thread_comes_back_and_its_copy_too(
    adapter_world: Deployment, tmp_path: Path, durability: Any
) -> None:
    secret = f"secret-{uuid.uuid4().hex}"
    codec = await key_codec(tmp_path)
    async with running_backend(adapter_world, codec=codec) as backend:
        saver = WaypostSaver(backend, durability=durability)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        for step in range(3):
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": [secret, step], "big": secret * 20_000}
            checkpoint["channel_versions"] = {"messages": step + 1, "big": 1}
            versions = {"messages": step + 1, "big": 1} if step == 0 else {"messages": step + 1}
            config = await saver.aput(config, checkpoint, {"step": step}, versions)
            await saver.aput_writes(config, [("out", secret)], f"task-{step}")
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"messages": [secret, 2], "big": secret * 20_000}
        assert found.pending_writes == [("task-2", "out", secret)]
        await saver.acopy_thread("t", "copy")
        copied = await saver.aget_tuple({"configurable": {"thread_id": "copy", "checkpoint_ns": ""}})
        assert copied is not None
        assert copied.checkpoint["channel_values"] == found.checkpoint["channel_values"]
    assert not any(secret.encode() in each for each in await stored_data(adapter_world))


async def test_a_planted_record_is_an_error_and_no_value(
    adapter_world: Deployment, backend: Backend, tmp_path: Path
) -> None:
    await WaypostSession("user-8", backend).add_items([said("planted without a key")])
    async with running_backend(adapter_world, codec=await key_codec(tmp_path)) as encrypting:
        with pytest.raises(PlaintextError, match="is not encrypted"):
            await WaypostSession("user-8", encrypting).get_items()
