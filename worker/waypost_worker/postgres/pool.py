"""Connections: sizes, time limits, and how the types that matter travel."""

import secrets
from typing import Any, Final

import asyncpg

from waypost_worker.postgres.migrate import check_schema
from waypost_worker.postgres.statements import statement

__all__ = ["Pool", "check_schema", "open_pool", "parsed", "prepare"]

Pool = Any  # asyncpg.Pool; its stub takes a parameter that the class does not
_POSTGRES_EPOCH_MICROS: Final = 946_684_800_000_000  # 2000-01-01 after 1970-01-01


def _to_wire(micros: int) -> tuple[int]:
    return (micros - _POSTGRES_EPOCH_MICROS,)


def _from_wire(wire: tuple[int]) -> int:
    return wire[0] + _POSTGRES_EPOCH_MICROS


def _jsonb_to_wire(text: bytes) -> bytes:
    return b"\x01" + text


def _jsonb_from_wire(wire: bytes) -> bytes:
    return bytes(wire[1:])


async def prepare(connection: Any) -> None:
    """Times are microseconds since the Unix epoch, as in the model; jsonb is its text in bytes."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_to_wire, decoder=_from_wire, format="tuple"
    )
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_jsonb_to_wire, decoder=_jsonb_from_wire, format="binary"
    )


async def parsed(connection: Any, sql: str) -> Any:
    """A statement to run later in the transaction at hand, once that has locked something, in a single message.

    asyncpg has a statement parsed in one message and run in the next, and between the two Postgres counts the
    transaction as active, whatever limits its idling: a process that froze there would hold what it locked before for
    as long as it stays frozen.
    """
    # A name that is nobody else's, for poolers that give each transaction another server connection.
    return await connection.prepare(sql, name=f"waypost_{secrets.token_hex(8)}")


async def _no_reset(_: Any) -> None:
    # Session settings stay as set_up made them, so the round trip that would reset a session is saved.
    return None


async def open_pool(dsn: str, *, size: int = 8, timeout: float = 10, statement_cache_size: int = 100) -> Pool:
    """A pool of at most ``size`` connections; no statement waits longer than ``timeout`` seconds.

    ``statement_cache_size=0`` is for poolers that give each transaction another server connection: nothing is
    prepared ahead then, and nothing is set for a session that others would get.
    """

    async def set_up(connection: Any) -> None:
        await prepare(connection)
        if statement_cache_size:
            await connection.execute(statement("session"))

    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        timeout=timeout,
        command_timeout=timeout,
        statement_cache_size=statement_cache_size,
        init=set_up,
        reset=_no_reset,
        server_settings={"application_name": "waypost"},
    )
