"""A publisher with a codec: no call waits for a key, nothing is sent unencrypted, and nothing is lost silently."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.commands import create_body
from tests.support.keys import key_codec, read_back
from tests.support.timeouts import PATIENCE

from waypost import (
    BufferFullError,
    Codec,
    DirectoryKeyStore,
    InvalidCommandError,
    KeyErasedError,
    KeyNotLoadedError,
    KeyStoreError,
    Publisher,
    SyncPublisher,
)
from waypost.encryption.codec import MAX_PLAINTEXT_BYTES, Found
from waypost.encryption.key_store import StoredKey
from waypost.wire.event_types import EventType

NOWHERE = "127.0.0.1:1"
NOW = datetime(2026, 11, 30, tzinfo=UTC)
SECRET = {"said": "the marker"}


class GatedStore(DirectoryKeyStore):
    """A store that answers once it may, or fails."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = asyncio.Event()
        self.asked = asyncio.Event()
        self.failure: KeyStoreError | None = None

    async def find(self, session_ids: Collection[str]) -> dict[str, StoredKey]:
        self.asked.set()
        if self.failure is not None:
            raise self.failure
        await self.open.wait()
        return await super().find(session_ids)


@pytest.fixture
async def codec(tmp_path: Path) -> Codec:
    return await key_codec(tmp_path)


@asynccontextmanager
async def gated(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Publisher, GatedStore]]:
    made = await key_codec(tmp_path)
    store = GatedStore(tmp_path / "keys")
    publisher = Publisher(NOWHERE, codec=Codec(store, made.wrapper), **options)
    await publisher.start()
    try:
        yield publisher, store
    finally:
        store.open.set()
        await publisher.close(timeout=0)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


def sent(publisher: Publisher) -> list[tuple[str, bytes]]:
    return [(pending.command_type, pending.value) for pending in publisher._buffer.left()]


async def opened(codec: Codec, publisher: Publisher) -> list[Any]:
    """What is in the buffer, decrypted."""
    found = []
    for pending in publisher._buffer.left():
        if pending.command_type == EventType.CREATE:
            assert b"marker" not in pending.value
            data = read_back(pending.value)
            name = orjson.loads(pending.value)["name"]
            found.append(Found(str(pending.session_id), name, pending.command_id, data, "it"))
    return [orjson.loads(data) for data in await codec.decrypt(found)]


async def test_data_is_encrypted_and_names_and_metadata_stay_readable(codec: Codec) -> None:
    async with Publisher(NOWHERE, codec=codec) as publisher:
        await publisher.prepare("s")
        publisher.create("s", "task_done", SECRET, {"step": 7})
        body = orjson.loads(sent(publisher)[0][1])
        assert (body["name"], body["metadata"]) == ("task_done", {"step": 7})
        assert await opened(codec, publisher) == [SECRET]
        assert publisher.stats().waiting_for_keys == 0
        await publisher.close(timeout=0)


async def test_the_first_call_of_a_session_does_not_wait_for_its_key(tmp_path: Path) -> None:
    async with gated(tmp_path) as (publisher, store):
        began = time.perf_counter()
        first = publisher.create("s", "a", {**SECRET, "n": 1})
        publisher.pin("s", "s:1")
        publisher.create("s", "b", {**SECRET, "n": 2})
        assert time.perf_counter() - began < 1
        assert len(first) == 36
        assert sent(publisher) == []
        stats = publisher.stats()
        assert (stats.accepted, stats.buffered, stats.waiting_for_keys) == (3, 3, 3)
        await asyncio.wait_for(store.asked.wait(), PATIENCE)
        store.open.set()
        await until(lambda: publisher.stats().waiting_for_keys == 0)
        kinds = [kind for kind, _ in sent(publisher)]
        assert kinds == [EventType.CREATE, EventType.PIN, EventType.CREATE]
        assert publisher._buffer.left()[0].command_id == first
        assert [data["n"] for data in await opened(await key_codec(tmp_path), publisher)] == [1, 2]
        stats = publisher.stats()
        assert (stats.accepted, stats.buffered) == (3, 3)


async def test_other_sessions_are_not_held_up(tmp_path: Path) -> None:
    async with gated(tmp_path) as (publisher, store):
        store.open.set()
        await publisher.prepare("ready")
        store.open.clear()
        publisher.create("waiting", "a", SECRET)
        publisher.create("ready", "a", SECRET)
        assert len(sent(publisher)) == 1
        assert publisher.stats().waiting_for_keys == 1


async def test_an_unreachable_key_store_is_reported_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gated(tmp_path) as (publisher, store):
        store.failure = KeyStoreError("it is away")
        with caplog.at_level(logging.WARNING, logger="waypost"):
            publisher.create("s", "a", SECRET)
            await until(lambda: publisher.stats().key_error is not None)
        assert publisher.stats().key_error == "it is away"
        assert "commands wait in memory: it is away" in caplog.text
        assert sent(publisher) == []
        store.failure = None
        store.open.set()
        await until(lambda: len(sent(publisher)) == 1)
        assert publisher.stats().key_error is None


async def test_flush_and_close_count_what_waits_for_a_key_and_nobody_sends_it(tmp_path: Path) -> None:
    told: list[tuple[str, BaseException | None]] = []
    async with gated(tmp_path, on_delivery=lambda *each: told.append(each)) as (publisher, _):
        identifier = publisher.create("s", "a", SECRET)
        assert await publisher.flush(timeout=0.05) == 1
        assert await publisher.close(timeout=0) == 1
        assert [(each, type(error).__name__) for each, error in told] == [(identifier, "DeliveryError")]
        assert "its key could not be loaded" in str(told[0][1])


async def test_what_waits_for_a_key_is_bounded(tmp_path: Path) -> None:
    async with gated(tmp_path, max_buffer_count=2) as (publisher, _):
        publisher.create("s", "a", SECRET)
        publisher.create("t", "a", SECRET)
        with pytest.raises(BufferFullError, match="2 commands wait for the keys of their sessions"):
            publisher.create("s", "b", SECRET)
        assert publisher.stats().accepted == 2


async def test_what_can_t_be_encrypted_is_refused_at_the_call(tmp_path: Path) -> None:
    async with gated(tmp_path) as (publisher, store):
        with pytest.raises(InvalidCommandError, match="if it is encrypted"):
            publisher.create("s", "a", {"x": "y" * MAX_PLAINTEXT_BYTES})
        with pytest.raises(InvalidCommandError):
            publisher.publish_raw("s", EventType.CREATE, b'{"name":"n","data":')
        assert publisher.stats().accepted == 0
        assert not store.asked.is_set()


async def test_a_body_that_somebody_else_encoded_is_encrypted_too(codec: Codec) -> None:
    async with Publisher(NOWHERE, codec=codec) as publisher:
        await publisher.prepare("s")
        publisher.publish_raw("s", EventType.CREATE, create_body("n", SECRET, {"m": {"nested": 1}}))
        publisher.import_checkpoints(
            "s",
            orjson.dumps([{"id": "s:1", "name": "n", "timestamp": "2026-11-30T00:00:00Z", "data": SECRET}]),
        )
        assert [kind for kind, _ in sent(publisher)] == [EventType.CREATE, EventType.IMPORT]
        assert not any(b"marker" in body for _, body in sent(publisher))
        assert await opened(codec, publisher) == [SECRET]
        await publisher.close(timeout=0)


async def test_an_erased_session_takes_nothing_more(codec: Codec) -> None:
    await codec.store.erase("s", NOW)
    told: list[tuple[str, BaseException | None]] = []
    async with Publisher(NOWHERE, codec=codec, on_delivery=lambda *each: told.append(each)) as publisher:
        identifier = publisher.create("s", "a", SECRET)  # it is not known yet
        await until(lambda: len(told) == 1)
        assert told[0][0] == identifier
        assert "the session was erased" in str(told[0][1])
        with pytest.raises(KeyErasedError, match="the session was erased"):
            publisher.create("s", "b", SECRET)
        stats = publisher.stats()
        assert (stats.accepted, stats.dropped, stats.buffered) == (1, 1, 0)


async def test_a_publisher_learns_soon_that_a_session_was_erased(tmp_path: Path) -> None:
    codec = await key_codec(tmp_path, refresh=1e-9)
    async with Publisher(NOWHERE, codec=codec) as publisher:
        await publisher.prepare("s")
        await codec.store.erase("s", NOW)
        publisher.create("s", "a", SECRET)  # with the key in memory, which is looked up again meanwhile

        def refuses() -> bool:
            try:
                publisher.create("s", "b", SECRET)
            except KeyErasedError:
                return True
            return False

        await until(refuses)
        await publisher.close(timeout=0)


async def test_with_a_spool_a_call_needs_its_key_and_no_plaintext_is_on_the_disk(
    codec: Codec, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    async with Publisher(NOWHERE, codec=codec, spool=spool) as publisher:
        with pytest.raises(KeyNotLoadedError, match=r"Await publisher\.prepare"):
            publisher.create("s", "a", SECRET)
        await publisher.prepare("s")
        publisher.create("s", "a", SECRET)
        await publisher.close(timeout=0)
    content = b"".join(path.read_bytes() for path in spool.rglob("*") if path.is_file())
    assert b"waypost.encrypted" in content
    assert b"marker" not in content


def test_a_sync_publisher_waits_for_the_key_itself(tmp_path: Path) -> None:
    codec = asyncio.run(key_codec(tmp_path))
    with SyncPublisher(NOWHERE, codec=codec, spool=tmp_path / "spool") as publisher:
        publisher.create("s", "a", SECRET)
        publisher.prepare("t")
        publisher.create("t", "a", SECRET)
        assert publisher.stats().accepted == 2
        assert not any(b"marker" in body for _, body in sent(publisher._publisher))
        publisher.close(timeout=0)


async def test_without_a_codec_prepare_does_nothing() -> None:
    async with Publisher(NOWHERE) as publisher:
        await publisher.prepare("s")
        publisher.create("s", "a", SECRET)
        assert b"marker" in sent(publisher)[0][1]
        await publisher.close(timeout=0)
