"""What every key store promises, in a directory and in Postgres alike."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from waypost.encryption.directory import DirectoryKeyStore
from waypost.encryption.key_store import KeyStore, StoredKey
from waypost.encryption.postgres import PostgresKeyStore
from waypost.errors import KeyStoreError

NOW = datetime(2026, 11, 30, 14, 20, 30, 123456, tzinfo=UTC)
SESSIONS = ["plain", "with/segments", "ünïcödé 会话", "a:7", "x" * 200]
Opener = Callable[[], KeyStore]


@pytest.fixture(params=["directory", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "directory":
        return lambda: DirectoryKeyStore(tmp_path / "keys")
    dsn = request.getfixturevalue("database")
    return lambda: PostgresKeyStore(dsn)


@pytest.fixture
async def store(open_store: Opener) -> KeyStore:
    made = open_store()
    assert await made.initialize()
    return made


def key(session_id: str = "s", key_id: str = "key-1", wrapped: bytes = b"wrapped\0bytes") -> StoredKey:
    return StoredKey(session_id, key_id, "kek-1", wrapped, NOW)


async def listed(store: KeyStore, limit: int) -> list[StoredKey]:
    found: list[StoredKey] = []
    after = None
    while page := await store.page(after, limit):
        found += page
        after = page[-1].session_id
    return found


async def test_nothing_but_its_making_makes_a_store(open_store: Opener) -> None:
    store = open_store()
    for use in (
        store.deployment(),
        store.find(["s"]),
        store.create(key()),
        store.replace(key(), key()),
        store.erase("s", NOW),
        store.page(),
    ):
        with pytest.raises(KeyStoreError, match=r"no key store.*no key was read or made.*waypost keys init"):
            await use
    await store.close()


async def test_a_store_is_made_once_and_keeps_its_id(open_store: Opener) -> None:
    stores = [open_store() for _ in range(4)]
    assert sorted(await asyncio.gather(*(store.initialize() for store in stores))) == [False] * 3 + [True]
    ids = {await store.deployment() for store in stores}
    assert len(ids) == 1
    assert len(ids.pop()) == 36
    for store in stores:
        await store.close()


@pytest.mark.parametrize("session_id", SESSIONS)
async def test_a_key_comes_back_as_it_was(store: KeyStore, session_id: str) -> None:
    made = key(session_id)
    assert await store.create(made) == made
    assert await store.find([session_id, "other"]) == {session_id: made}
    await store.close()


async def test_of_several_that_make_a_session_s_key_one_wins_and_all_learn_which(
    open_store: Opener, store: KeyStore
) -> None:
    stores = [open_store() for _ in range(8)]
    made = await asyncio.gather(
        *(each.create(key(key_id=f"key-{number}")) for number, each in enumerate(stores))
    )
    assert len({found.key_id for found in made}) == 1
    assert (await store.find(["s"]))["s"] == made[0]
    for each in (*stores, store):
        await each.close()


async def test_a_key_is_replaced_only_by_who_knows_it_as_it_is(store: KeyStore) -> None:
    old = await store.create(key())
    new = replace(old, wrapping_key="kek-2", wrapped=b"again")
    assert await store.replace(old, new)
    assert not await store.replace(old, replace(new, wrapped=b"late"))
    assert not await store.replace(replace(old, session_id="other"), new)
    assert await store.find(["s", "other"]) == {"s": new}
    await store.close()


async def test_a_deleted_key_leaves_a_tombstone_that_nothing_replaces(store: KeyStore) -> None:
    made = await store.create(key())
    erased = await store.erase("s", NOW + timedelta(days=1))
    assert erased == StoredKey("s", "key-1", "", b"", NOW, NOW + timedelta(days=1))
    assert erased.erased
    assert await store.create(key(key_id="key-2")) == erased
    assert not await store.replace(made, replace(made, wrapped=b"again"))
    assert not await store.replace(erased, made)
    assert await store.erase("s", NOW + timedelta(days=2)) == erased
    assert await store.find(["s"]) == {"s": erased}
    await store.close()


async def test_a_session_that_never_had_a_key_gets_none_once_it_was_erased(store: KeyStore) -> None:
    erased = await store.erase("s", NOW)
    assert erased == StoredKey("s", "", "", b"", NOW, NOW)
    assert await store.create(key()) == erased
    await store.close()


async def test_a_rotation_never_brings_back_what_is_erased_meanwhile(
    open_store: Opener, store: KeyStore
) -> None:
    for number in range(20):
        made = await store.create(key(f"s-{number}"))
        others = [open_store() for _ in range(3)]
        await asyncio.gather(
            others[0].replace(made, replace(made, wrapped=b"again")),
            others[1].erase(made.session_id, NOW),
            others[2].replace(made, replace(made, wrapped=b"and again")),
        )
        assert (await store.find([made.session_id]))[made.session_id].erased
        for each in others:
            await each.close()
    await store.close()


@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_pages_hold_every_key_once(store: KeyStore, limit: int) -> None:
    made = {session_id: await store.create(key(session_id)) for session_id in SESSIONS}
    made["plain"] = await store.erase("plain", NOW)
    found = await listed(store, limit)
    assert len(found) == len(made)
    assert {each.session_id: each for each in found} == made
    await store.close()


async def test_another_loop_can_use_the_same_store(store: KeyStore) -> None:
    await store.create(key())
    await store.close()

    async def read() -> str:
        found = await store.find(["s"])
        await store.close()
        return found["s"].key_id

    assert await asyncio.to_thread(asyncio.run, read()) == "key-1"
    assert (await store.find(["s"]))["s"].key_id == "key-1"
    await store.close()


def test_a_repr_shows_no_key() -> None:
    assert "wrapped\\x00" not in repr(key())
    assert repr(key()) == "<StoredKey 'key-1' of 's': wrapped with 'kek-1'>"
