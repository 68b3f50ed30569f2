"""The view for people with psql: every checkpoint shows, whatever its data."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest
from tests.conformance.stores import Hand, entry, puts

from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.store import PostgresStore


@pytest.fixture
async def hand(database: str) -> AsyncIterator[Hand]:
    pool = await open_pool(database)
    store = PostgresStore(pool, 0)
    yield Hand(store, await store.acquire(1))
    await pool.close()


async def view(
    database: str, query: str = "select * from waypost.checkpoint_json order by number"
) -> list[Any]:
    connection: Any = await asyncpg.connect(database)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def test_a_checkpoint_shows_with_its_id_and_its_data_as_json(database: str, hand: Hand) -> None:
    changes = puts("run:7", [entry(3, "done", pinned=True, imported_id="a:1")], data=b'{"b": [1, 2.50]}')
    await hand.commit(changes)
    (row,) = await view(database)
    assert (row["id"], row["name"], row["pinned"], row["imported_id"]) == ("run:7:3", "done", True, "a:1")
    assert orjson.loads(row["data"]) == {"b": [1, 2.5]}
    (found,) = await view(database, "select data -> 'b' -> 1 as b from waypost.checkpoint_json")
    assert found["b"] == "2.50"


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"a":"\\ud83d\\ude00 \\u0000"}',
        b'{"a":1e-400000}',
        b'{"a":' + b"9" * 200_000 + b".5}",
    ],
    ids=["NUL", "NUL in a key", "NUL and emoji", "a tiny number", "a long number"],
)
async def test_data_that_jsonb_refuses_shows_as_its_text(database: str, hand: Hand, data: bytes) -> None:
    await hand.commit(puts("s", [entry(1)], data=data))
    await hand.commit(puts("s", [entry(2)], data=b'{"fine":true}'))
    refused, fine = await view(database)
    assert orjson.loads(refused["data"]) == data.decode()
    assert orjson.loads(fine["data"]) == {"fine": True}


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"a":1e300,"b":-0.0,"c":18446744073709551615}',
        b'{"a":"\\\\u0000 \xc2\x85 \xf0\x9f\x98\x80"}',
        b'{"a":' + b"[" * 99 + b"]" * 99 + b"}",
        b'{"a":"' + b"x" * 900_000 + b'"}',
    ],
    ids=["empty", "odd numbers", "odd texts", "deep", "large"],
)
async def test_odd_data_shows_as_json(database: str, hand: Hand, data: bytes) -> None:
    await hand.commit(puts("s", [entry(1)], data=data))
    (row,) = await view(database)
    assert orjson.loads(row["data"]) == orjson.loads(data)
