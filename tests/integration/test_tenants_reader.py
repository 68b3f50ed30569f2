"""Readers of one tenant: what they find, what they refuse, and that nothing of it stays on a pooled connection."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.support.pgbouncer import pgbouncer
from tests.support.sharded import noted
from tests.support.tenanted import SESSIONS, TENANTS, Tenanted, fill, sessions_of, tenanted

import waypost
from waypost import AccessDeniedError, Reader
from waypost.errors import InvalidArgumentError
from waypost.model.tenants import tenant_of
from waypost.reader.client import sessions_of as sessions_in
from waypost.reader.session import checkpoints_of
from waypost_worker.postgres.statements import statement

__all__ = ["tenanted"]
pytestmark = pytest.mark.servers

SETTING = "waypost_tenant_reader"
#: Who connects: the administrator, whom no policy binds, a role that names its tenant, one that is bound.
ROLES = ("admin", "named", "bound")


async def opened(tenanted: Tenanted, role: str, tenant: str, **options: Any) -> Reader:
    if role == "admin":
        return Reader(tenanted.admin, tenant=tenant, **options)
    name = SETTING if role == "named" else await tenanted.role(tenant)
    return Reader(tenanted.dsn(name), tenant=tenant, **options)


async def ids(listing: Callable[..., Awaitable[waypost.SessionPage]], **options: Any) -> list[str]:
    """All that a listing has, in pages of two."""
    page = await listing(limit=2, **options)
    found = [each.session_id for each in page]
    while page.cursor is not None:
        page = await listing(limit=2, cursor=page.cursor, **options)
        found += [each.session_id for each in page]
    return found


@pytest.mark.parametrize("role", ROLES)
async def test_a_reader_of_a_tenant_reads_its_sessions_and_no_others(tenanted: Tenanted, role: str) -> None:
    for tenant in TENANTS:
        own = sessions_of(tenant)
        async with await opened(tenanted, role, tenant) as reader:
            assert await ids(reader.sessions) == own
            assert sorted(await ids(reader.recent_sessions)) == own
            for session_id in SESSIONS:
                if tenant_of(session_id) == tenant:
                    session = reader.session(session_id)
                    info = await reader.session_info(session_id)
                    assert info is not None
                    assert await session.count() == info.checkpoint_count == 2
                    continue
                with pytest.raises(AccessDeniedError, match="does not belong to the tenant"):
                    reader.session(session_id)
                with pytest.raises(AccessDeniedError, match=r"Nothing was read or changed\."):
                    await reader.session_info(session_id)


@pytest.mark.parametrize("role", ROLES)
async def test_a_prefix_narrows_a_tenants_listing_and_never_widens_it(tenanted: Tenanted, role: str) -> None:
    async with await opened(tenanted, role, "acme") as reader:
        for prefix in ("", "a", "acme", "acme/"):
            assert await ids(reader.sessions, prefix=prefix) == sessions_of("acme"), prefix
            assert sorted(await ids(reader.recent_sessions, prefix=prefix)) == sessions_of("acme"), prefix
        assert await ids(reader.sessions, prefix="acme/r") == ["acme/run-1"]
        for prefix in ("acme2", "acme2/", "acme0", "Acme/", "b", "%", "\0", "/"):
            assert await reader.sessions(prefix=prefix) == [], prefix
            assert await reader.recent_sessions(prefix=prefix) == [], prefix
        # A cursor is a place in the order of ids, and no way out.
        assert await reader.sessions(cursor="acme2/run-1") == []
        assert [each.session_id for each in await reader.sessions(cursor="Acme/")] == sessions_of("acme")


@pytest.mark.parametrize("role", ROLES)
async def test_every_read_of_a_session_works_with_a_tenant(tenanted: Tenanted, role: str) -> None:
    async with await opened(tenanted, role, "acme") as reader:
        session = reader.session("acme/run-1")
        numbers = [1, 2]
        assert [each.number for each in await session.get_all()] == numbers
        assert [each.number async for each in session] == numbers
        assert (await session.get_summary())["total_count"] == 2
        assert await session.export() == b"".join([piece async for piece in session.export_stream()]).decode()
        assert await session.get("acme/run-1:2") is not None
        assert await session.get("acme2/run-1:2") is None
        assert await session.get_latest("name") is not None
        await reader.wait_for((0, -1))
        async with reader.snapshot() as snapshot:
            listed = [each.session_id for each in await sessions_in(snapshot)]
            assert listed == sessions_of("acme")
            assert [each.number async for each in checkpoints_of(snapshot, "acme/run-1")] == numbers
            with pytest.raises(AccessDeniedError, match="does not belong to the tenant 'acme'"):
                await snapshot.fetch("count", "acme2/run-1")
            with pytest.raises(AccessDeniedError, match="does not belong to the tenant 'acme'"):
                snapshot.rows("oldest_first", "acme2/run-1")


async def test_a_barrier_of_another_tenants_session_is_denied_before_kafka_is_asked(
    tenanted: Tenanted,
) -> None:
    async with Reader(tenanted.admin, tenant="acme", bootstrap_servers="127.0.0.1:1") as reader:
        with pytest.raises(AccessDeniedError, match="does not belong to the tenant 'acme'"):
            await reader.barrier("acme2/run-1")


async def test_a_reader_without_a_tenant_learns_that_its_role_needs_one(tenanted: Tenanted) -> None:
    async with Reader(tenanted.dsn(SETTING)) as reader:
        for read in (reader.sessions, reader.session("acme/run-1").get_all, reader.recent_sessions):
            with pytest.raises(
                AccessDeniedError, match=r"this transaction names none\. Pass the reader a tenant"
            ):
                await read()
        with pytest.raises(AccessDeniedError, match="names none"):
            async for _ in reader.session("acme/run-1").export_stream():
                pass


async def test_a_bound_role_needs_no_tenant_and_takes_no_other(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    async with Reader(tenanted.dsn(role)) as reader:
        assert [each.session_id for each in await reader.sessions()] == sessions_of("acme")
        assert await reader.session("acme2/run-1").get_all() == []
        assert await reader.session_info("acme2/run-1") is None
    async with Reader(tenanted.dsn(role), tenant="acme2") as reader:
        with pytest.raises(AccessDeniedError, match="reads for the tenant 'acme', not for 'acme2'"):
            await reader.sessions()


async def test_what_may_not_be_read_is_denied(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    async with Reader(tenanted.dsn(role)) as reader:
        with pytest.raises(AccessDeniedError, match=r"permission denied for table (outbox|partitions)"):
            await reader._fetch_all("waypost_worker.console/partitions")


@pytest.mark.parametrize("tenant", ["", "/", "acme/", "a\0", "\ud800", "x" * 200])
def test_a_reader_takes_no_tenant_that_cannot_be(tenant: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Nothing was read or changed"):
        Reader("postgresql://nowhere", tenant=tenant)
    with pytest.raises(TypeError, match="a tenant must be a string"):
        Reader("postgresql://nowhere", tenant=7)  # type: ignore[arg-type]


def test_a_reader_shows_its_tenant() -> None:
    assert repr(Reader("postgresql://u:hush@host/db", tenant="acme")).endswith(": tenant 'acme'>")


async def test_no_tenant_stays_on_a_connection(tenanted: Tenanted) -> None:
    async with Reader(tenanted.dsn(SETTING), tenant="acme", pool_size=1) as reader:
        await reader.sessions()
        async with reader._shards.pools[0]._acquired() as connection:
            assert await connection.fetchval("select current_setting('waypost_reader.tenant', true)") in (
                None,
                "",
            )
            assert not connection.is_in_transaction()
        read = asyncio.ensure_future(reader._shards.pools[0].fetch("position", 0))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        assert [each.session_id for each in await reader.sessions()] == sessions_of("acme")


async def test_readers_of_many_tenants_share_pgbouncers_connections(tenanted: Tenanted) -> None:
    """One server connection for all of them: each transaction must see its own tenant, no matter who had it before."""
    async with pgbouncer(tenanted.dsn(SETTING), server_connections=1) as dsn:
        readers = [Reader(dsn, tenant=tenant, statement_cache_size=0, pool_size=2) for tenant in TENANTS]
        unnamed = Reader(dsn, statement_cache_size=0)

        async def work(reader: Reader, tenant: str) -> None:
            for _ in range(5):
                assert await ids(reader.sessions) == sessions_of(tenant)
                session = reader.session(f"{tenant}/run-1")
                assert await session.count() == 2
                assert b"".join([piece async for piece in session.export_stream()]).count(b'"id"') == 2

        async def refused() -> None:
            for _ in range(20):
                with pytest.raises(AccessDeniedError, match="names none"):
                    await unnamed.sessions()

        try:
            await asyncio.gather(refused(), *map(work, readers, TENANTS))
        finally:
            await asyncio.gather(*(reader.close() for reader in (*readers, unnamed)))


@pytest.fixture
async def pair_with_policies(pair: list[str]) -> list[str]:
    """Two databases on two servers, each with its roles and half of the sessions."""
    await noted(pair)
    for dsn in pair:
        connection: Any = await asyncpg.connect(dsn)
        try:
            await connection.execute(statement("tenants"))
            await connection.execute("alter role waypost_tenant_reader password 'waypost_tenant_reader'")
        finally:
            await connection.close()
    await fill(pair[0], "waypost", partitions=2)
    await fill(pair[1], "waypost", partitions=2, partition=1)
    return pair


async def test_a_tenants_sessions_are_read_from_all_shards(pair_with_policies: list[str]) -> None:
    dsns = [Tenanted(dsn, "waypost", 0).dsn(SETTING) for dsn in pair_with_policies]
    for tenant in TENANTS:
        async with Reader(dsns, tenant=tenant) as reader:
            assert await ids(reader.sessions) == sessions_of(tenant)
            assert sorted(await ids(reader.recent_sessions)) == sessions_of(tenant)
            for session_id in sessions_of(tenant):
                assert await reader.session(session_id).count() == 2
    async with Reader(dsns) as reader:
        with pytest.raises(AccessDeniedError, match="names none"):
            await reader.sessions()
