"""Row-level security by tenant: what a role for readers sees, whatever it sends, and what it costs the others."""

import io
from typing import Any

import asyncpg
import orjson
import pytest
from tests.golden.files import HERE, formats
from tests.support.deployment import deployment
from tests.support.tenanted import BY_SESSION, SESSIONS, TENANTS, Tenanted, sessions_of, set_up, tenanted

from waypost import AccessDeniedError, Reader
from waypost.model.tenants import tenant_of
from waypost.statements import for_schema
from waypost_worker.cli.doctor.tenants import check_tenants
from waypost_worker.devserver import Servers
from waypost_worker.postgres.migrate import migrate_dsn
from waypost_worker.postgres.statements import statement

__all__ = ["tenanted"]
pytestmark = pytest.mark.servers

SETTING = "waypost_tenant_reader"
NAME = "select set_config('waypost_reader.tenant', $1, $2)"


async def seen(connection: Any, schema: str = "waypost") -> dict[str, set[str | None]]:
    """The sessions that each table shows to a connection."""
    return {
        table: {
            row[0]
            for row in await connection.fetch(for_schema(f"select session_id from waypost.{table}", schema))
        }
        for table in BY_SESSION
    }


def all_of(tenant: str) -> dict[str, set[str]]:
    return {table: set(sessions_of(tenant)) for table in BY_SESSION}


# A role that is bound to a tenant.


@pytest.mark.parametrize("tenanted", ["waypost", "order"], indirect=True)
async def test_a_bound_role_sees_its_tenant_in_every_table_and_view(tenanted: Tenanted) -> None:
    for tenant in TENANTS:
        async with tenanted.connected(await tenanted.role(tenant)) as connection:
            assert await seen(connection, tenanted.schema) == all_of(tenant), tenant


async def test_no_setting_and_no_role_leads_a_bound_role_to_another_tenant(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    async with tenanted.connected(role) as connection:
        for name in ("acme2", "%", "acme/", "acme' or true --", "waypost", " "):
            await connection.fetch(NAME, name, False)
            with pytest.raises(
                asyncpg.InsufficientPrivilegeError, match="reads for the tenant 'acme', not for"
            ):
                await seen(connection)
        await connection.execute("set role waypost_tenant_reader")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="reads for the tenant 'acme', not for"):
            await seen(connection)
        for name in ("acme", ""):
            await connection.fetch(NAME, name, False)
            assert await seen(connection) == all_of("acme")
        for sql in ("set role waypost_reader", "set session authorization waypost_reader"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
        await connection.execute("reset role; set row_security = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await seen(connection)


async def test_a_bound_role_learns_of_no_other_binding_and_can_change_none(tenanted: Tenanted) -> None:
    role, other = await tenanted.role("acme"), await tenanted.role("acme2")
    async with tenanted.connected(role) as connection:
        assert [tuple(row) for row in await connection.fetch("select * from waypost.tenant_roles")] == [
            (role, "acme")
        ]
        for sql in (
            f"update waypost.tenant_roles set tenant = 'acme2' where role_name = '{role}'",
            f"delete from waypost.tenant_roles where role_name = '{other}'",
            "insert into waypost.tenant_roles values ('x', 'acme2')",
            "drop policy one_tenant on waypost.sessions",
            "alter table waypost.sessions disable row level security",
            "delete from waypost.checkpoints",
            "update waypost.sessions set session_id = 'acme/stolen' where session_id = 'acme2/run-1'",
            f"alter role {role} bypassrls",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)


async def test_no_operator_or_function_of_the_role_is_asked_about_rows_of_others(tenanted: Tenanted) -> None:
    """In front of Postgres' own on the search path, and as conditions that are cheap to evaluate first."""
    role = await tenanted.role("acme")
    await tenanted.run(f"create schema evil authorization {role}")
    await tenanted.run(
        """
        create function evil.yes(name, name) returns boolean language sql as 'select true';
        create operator evil.= (leftarg = name, rightarg = name, function = evil.yes);
        create function evil.yes(text, text) returns boolean language sql as 'select true';
        create operator evil.>= (leftarg = text, rightarg = text, function = evil.yes);
        create operator evil.< (leftarg = text, rightarg = text, function = evil.yes);
        create function evil.current_setting(text, boolean) returns text language sql as 'select ''acme2''';
        create function evil.leak(text) returns boolean language plpgsql cost 0.0000001 as
        $$ begin raise notice '%', $1; return true; end $$;
        """,
        role=role,
    )
    async with tenanted.connected(role) as connection:
        told: list[str] = []
        connection.add_log_listener(lambda _, message: told.append(message.message))
        await connection.execute("set search_path = evil, pg_catalog")
        assert await seen(connection) == all_of("acme")
        for table in BY_SESSION:
            await connection.fetch(f"select from waypost.{table} where evil.leak(session_id)")
        assert set(told) == set(sessions_of("acme"))


async def test_copies_and_statistics_hide_other_tenants_from_a_role(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    statistics = "select count(*) from pg_stats where schemaname = 'waypost' and attname = 'session_id'"
    async with tenanted.connected() as connection:
        await connection.execute("analyze waypost.sessions, waypost.checkpoints")
        assert await connection.fetchval(statistics) > 0
    async with tenanted.connected(role) as connection:
        assert await connection.fetchval(statistics) == 0
        for table in ("sessions", "checkpoints"):
            copied = io.BytesIO()
            await connection.copy_from_table(
                table, schema_name="waypost", columns=["session_id"], output=copied
            )
            assert set(copied.getvalue().decode().splitlines()) == set(sessions_of("acme"))


async def test_a_role_that_inherits_nothing_still_sees_its_tenant_only(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme", "noinherit")
    async with tenanted.connected(role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await seen(connection)
        await connection.execute("set role waypost_tenant_reader")
        assert await seen(connection) == all_of("acme")


async def test_an_administrator_who_takes_the_role_on_sees_what_it_sees(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    async with tenanted.connected() as connection:
        await connection.execute(f"set role {role}")
        assert await seen(connection) == all_of("acme")


# Tenants that each transaction names.


async def test_a_transaction_sees_the_tenant_that_it_names_and_none_else(tenanted: Tenanted) -> None:
    async with tenanted.connected(SETTING) as connection:
        for tenant in TENANTS:
            async with connection.transaction():
                await connection.fetch(NAME, tenant, True)
                assert await seen(connection) == all_of(tenant), tenant
            # Postgres leaves an empty text behind where there was no setting.
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="this transaction names none"):
                await seen(connection)


@pytest.mark.parametrize("name", ["acme/", "/acme", "acme/run-1", "%", "_", "acm", "ACME", "nobody"])
async def test_a_name_that_no_tenant_has_shows_no_session(tenanted: Tenanted, name: str) -> None:
    async with tenanted.connected(SETTING) as connection, connection.transaction():
        await connection.fetch(NAME, name, True)
        assert not any((await seen(connection)).values())


async def test_an_unlisted_member_sees_nothing_and_learns_why(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    await tenanted.run("delete from waypost.tenant_roles where role_name = $1", role)
    async with tenanted.connected(role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="is not listed in tenant_roles"):
            await seen(connection)
    async with Reader(tenanted.dsn(role)) as reader:
        with pytest.raises(
            AccessDeniedError, match=r"not listed in tenant_roles\. An administrator adds it there"
        ):
            await reader.sessions()


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
async def test_a_prepared_statement_follows_the_tenant_of_each_transaction(
    tenanted: Tenanted, mode: str
) -> None:
    async with tenanted.connected(SETTING) as connection:
        await connection.execute(f"set plan_cache_mode = {mode}")
        statements = {
            table: await connection.prepare(f"select distinct session_id from waypost.{table} order by 1")
            for table in BY_SESSION
        }
        for turn in range(24):
            tenant = TENANTS[turn % 3]
            async with connection.transaction():
                await connection.fetch(NAME, tenant, True)
                for table, prepared in statements.items():
                    assert [row[0] for row in await prepared.fetch()] == sessions_of(tenant), table


async def test_a_cursor_stays_with_the_tenant_of_its_beginning(tenanted: Tenanted) -> None:
    async with tenanted.connected(SETTING) as connection, connection.transaction():
        await connection.fetch(NAME, "acme", True)
        await connection.execute("declare c cursor for select session_id from waypost.sessions")
        first = await connection.fetch("fetch 1 from c")
        await connection.fetch(NAME, "acme2", True)
        rest = await connection.fetch("fetch all from c")
        assert {row[0] for row in first + rest} == set(sessions_of("acme"))


# What is closed to both, and open to the others.


@pytest.mark.parametrize("tenanted", ["waypost", "order"], indirect=True)
async def test_every_table_is_closed_to_tenants_or_bound_by_a_policy(tenanted: Tenanted) -> None:
    """A table that a later migration adds is closed until somebody decides what a tenant may see of it."""
    rows = await tenanted.run(
        """
        select
            c.relname as name,
            has_table_privilege('waypost_tenant_reader', c.oid, 'select') as open,
            c.relrowsecurity and exists (
                select from pg_policy p
                where p.polrelid = c.oid and not p.polpermissive
                    and p.polroles = array['waypost_tenant_reader'::regrole::oid]
            ) as bound,
            exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'session_id') as by_session,
            array(
                select a.attname::text from pg_attribute a
                where a.attrelid = c.oid and a.attnum > 0
                    and has_column_privilege('waypost_tenant_reader', c.oid, a.attnum, 'select')
                order by a.attnum
            ) as columns,
            coalesce('security_invoker=true' = any(c.reloptions), false) as as_invoker,
            c.relkind = 'v' as view
        from pg_class c
        where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p', 'v', 'm', 'f')
        """,
        f'"{tenanted.schema}"',
    )
    found = {row["name"]: row for row in rows}
    open_ = {name for name, row in found.items() if row["open"]}
    assert open_ == {*BY_SESSION, "shard", "tenant_roles"}
    assert {name for name, row in found.items() if row["by_session"]} == set(BY_SESSION)
    for name in open_ - {"shard"}:
        row = found[name]
        assert row["as_invoker"] if row["view"] else row["bound"], name
    assert found["outbox"]["bound"]
    some = {name: row["columns"] for name, row in found.items() if row["columns"] and not row["open"]}
    assert some == {"partitions": ["partition", "partitions", "next_offset", "default_policy"]}


async def test_grants_of_everything_do_not_open_the_outbox(tenanted: Tenanted) -> None:
    role = await tenanted.role("acme")
    await tenanted.run(f"grant waypost_reader to {role}")
    async with tenanted.connected(role) as connection:
        assert await connection.fetch("select * from waypost.outbox") == []
        assert await seen(connection) == all_of("acme")


async def test_all_other_roles_see_all_rows(tenanted: Tenanted) -> None:
    await tenanted.run("create role reader_of_old login password 'reader_of_old'")
    try:
        await tenanted.run(
            "grant usage on schema waypost to reader_of_old; "
            "grant select on all tables in schema waypost to reader_of_old"
        )
        for role in ("waypost_migrator", "waypost_worker", "waypost_reader", "reader_of_old"):
            async with tenanted.connected(role) as connection:
                shown = await seen(connection)
                assert shown.pop("rejected_commands") == {None, *SESSIONS}, role
                assert all(found == set(SESSIONS) for found in shown.values()), role
                assert await connection.fetchval("select count(*) from waypost.outbox") == 1
    finally:
        await tenanted.run("drop owned by reader_of_old; drop role reader_of_old")


async def test_no_policy_is_in_the_statements_of_the_worker_and_the_owner(tenanted: Tenanted) -> None:
    for role in ("waypost_worker", "waypost_migrator"):
        async with tenanted.connected(role) as connection:
            for table in ("sessions", "checkpoints", "recent_commands", "rejected_commands", "outbox"):
                active = await connection.fetchval("select row_security_active($1)", f"waypost.{table}")
                assert not active, (role, table)


@pytest.mark.parametrize("bypass", ["bypassrls", "nobypassrls"])
async def test_a_worker_works_with_and_without_the_right_to_ignore_policies(
    servers: Servers, topic_prefix: str, bypass: str
) -> None:
    name = topic_prefix.replace("-", "_")
    made = Tenanted(servers.postgres.create_database(name), "waypost", 0)
    try:
        await set_up(made)
        await made.run(f"alter role waypost_worker {bypass}")
        async with deployment(servers.endpoints, made.dsn("waypost_worker"), topic_prefix) as world:
            world.own()
            for session in ("acme/s", "acme2/s", "s"):
                await world.create(session, "kept")
            await world.send(b"no JSON", b"acme/s")
            await world.answered(4)
            await world.balanced()
            async with Reader(made.dsn(SETTING), tenant="acme") as reader:
                assert [each.session_id for each in await reader.sessions()] == ["acme/s"]
                latest = await reader.session("acme/s").get_latest()
                assert latest is not None
                assert latest.name == "kept"
    finally:
        await made.run("alter role waypost_worker bypassrls")
        servers.postgres.drop_database(name)


# The SQL that makes it.


async def test_the_sql_may_be_run_again_and_repairs_what_was_changed(tenanted: Tenanted) -> None:
    database = tenanted.admin.rpartition("/")[2]
    await tenanted.run(
        "drop policy one_tenant on waypost.sessions; alter table waypost.checkpoints disable row level security; "
        "grant all on waypost.tenant_roles to waypost_worker; "
        f"alter role waypost_tenant_reader in database {database} set statement_timeout = '7s'"
    )
    await tenanted.run(statement("tenants"))
    await tenanted.run(statement("roles"))
    async with tenanted.connected(await tenanted.role("acme")) as connection:
        assert await seen(connection) == all_of("acme")
    async with tenanted.connected("waypost_worker") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("update waypost.tenant_roles set tenant = 'acme2'")
    async with tenanted.connected(SETTING) as connection:
        assert await connection.fetchval("show statement_timeout") == "7s"
        assert await connection.fetchval("show idle_session_timeout") == "1h"


@pytest.mark.parametrize("version", formats())
async def test_a_database_of_an_older_version_separates_tenants_once_it_is_migrated(
    servers: Servers, topic_prefix: str, version: str
) -> None:
    name = topic_prefix.replace("-", "_")
    made = Tenanted(servers.postgres.create_database(name), "waypost", 0)
    stored = (HERE / version / "database.sql").read_text()
    try:
        # Some of its sessions, with ids that have a tenant.
        await made.run(stored.replace("('run-1-1", "('acme/run-1-1"))
        await migrate_dsn(made.admin)
        await made.run(statement("tenants"))
        await made.run("alter role waypost_tenant_reader password 'waypost_tenant_reader'")
        async with made.connected() as connection:
            everything = await seen(connection)
        own = {
            table: {each for each in found if each is not None and tenant_of(each) == "acme"}
            for table, found in everything.items()
        }
        assert own["sessions"]
        assert own["checkpoints"]
        assert own["sessions"] < everything["sessions"]
        async with made.connected(SETTING) as connection, connection.transaction():
            await connection.fetch(NAME, "acme", True)
            assert await seen(connection) == own
    finally:
        servers.postgres.drop_database(name)


async def test_the_sql_changes_nothing_in_a_schema_that_is_too_old(database: str) -> None:
    connection: Any = await asyncpg.connect(database)
    try:
        await connection.execute("drop table waypost.tenant_roles")
        with pytest.raises(asyncpg.RaiseError, match=r"has no table tenant_roles\. Nothing was changed"):
            await connection.execute(statement("tenants"))
        assert await connection.fetchval("select count(*) from pg_policy") == 0
    finally:
        await connection.close()


async def test_an_administrator_who_is_not_a_superuser_sets_it_up_under_the_policies(
    tenanted: Tenanted,
) -> None:
    """As on a hosted server: the worker stays subject to the policy that is always true."""
    database = tenanted.admin.rpartition("/")[2]
    managed = await tenanted.role(None)
    await tenanted.run(
        f"revoke waypost_tenant_reader from {managed}; grant waypost_migrator to {managed}; "
        f"grant waypost_tenant_reader to {managed} with admin option; "
        f"alter database {database} owner to {managed}; alter role waypost_worker nobypassrls"
    )
    told: list[str] = []
    try:
        async with tenanted.connected(managed) as connection:
            connection.add_log_listener(lambda _, message: told.append(message.message))
            await connection.execute(statement("tenants"))
        assert any("waypost_worker stays subject to the policy" in message for message in told)
        async with tenanted.connected("waypost_worker") as connection:
            assert (await seen(connection))["sessions"] == set(SESSIONS)
            await connection.execute("delete from waypost.checkpoints where session_id = 'acme2/run-1'")
        async with tenanted.connected(await tenanted.role("acme")) as connection:
            assert await seen(connection) == all_of("acme")
    finally:
        await tenanted.run(
            f"alter role waypost_worker bypassrls; alter database {database} owner to postgres"
        )


@pytest.mark.parametrize("tenant", ["", "acme/", "/", "a/b", "x" * 200])
async def test_a_role_can_only_be_bound_to_tenants(tenanted: Tenanted, tenant: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await tenanted.run("insert into waypost.tenant_roles values ('somebody', $1)", tenant)


# What doctor says.


async def doctor_says(made: Tenanted) -> list[tuple[str, str]]:
    async with made.connected("waypost_worker") as connection:
        return [(one.level, one.message) for one in await check_tenants(connection, made.schema)]


async def test_doctor_counts_the_roles_that_policies_bind(tenanted: Tenanted) -> None:
    await tenanted.role("acme")
    told = "1 roles read for one tenant, 1 for the one that a transaction names"
    assert await doctor_says(tenanted) == [("ok", told)]


async def test_doctor_finds_what_undermines_the_policies(tenanted: Tenanted) -> None:
    bypassing, owning = await tenanted.role("acme"), await tenanted.role("acme")
    unlisted, stranger = await tenanted.role("acme"), await tenanted.role("acme")
    await tenanted.run(
        f"alter role {bypassing} bypassrls; alter table waypost.outbox owner to {owning}; "
        f"delete from waypost.tenant_roles where role_name = '{unlisted}'; "
        f"revoke waypost_tenant_reader from {stranger}; "
        "drop policy one_tenant on waypost.sessions; alter table waypost.checkpoints disable row level security"
    )
    assert await doctor_says(tenanted) == [
        ("error", "waypost_tenant_reader sees the rows of every tenant in 'checkpoints', 'sessions'"),
        ("error", f"no policy applies to '{bypassing}', '{owning}', which should read for one tenant"),
        ("warning", f"'{unlisted}' can read nothing: no tenant is noted in tenant_roles"),
        ("warning", f"tenant_roles lists '{stranger}', and no policy binds them to a tenant"),
    ]


async def test_doctor_says_nothing_without_tenants(database: str) -> None:
    connection: Any = await asyncpg.connect(database)
    try:
        assert await check_tenants(connection, "waypost") == []
    finally:
        await connection.close()


# Plans.


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_reads_of_a_tenant_look_at_its_rows_only(tenanted: Tenanted, mode: str) -> None:
    await tenanted.run(
        "insert into waypost.sessions (session_id, partition, counter, checkpoints, first_recorded_at, "
        "last_recorded_at) select format('team-%s/run-%s', i % 500, i), 0, 1, 1, now(), now() - i * interval '7 s' "
        "from generate_series(1, 20000) i; "
        "insert into waypost.checkpoints select session_id, 1, null, 'n', now(), now(), '{}', '{}', false, null, 0 "
        "from waypost.sessions where session_id like 'team%';"
    )
    async with tenanted.connected() as connection:
        await connection.execute("vacuum analyze waypost.sessions, waypost.checkpoints")
    whole = {
        "select * from waypost.sessions": 40,
        "select * from waypost.sessions where session_id > 'team-7/' order by session_id limit 500": 40,
        "select count(*) from waypost.sessions": 40,
        "select * from waypost.checkpoints": 40,
        "select count(*) from waypost.checkpoints where session_id = 'team-7/run-7'": 1,
        "select id, data from waypost.checkpoint_json where session_id = 'team-7/run-7'": 1,
        "select * from waypost.sessions where active_minute <= now() order by active_minute desc limit 50": 40,
    }
    async with tenanted.connected(SETTING) as connection, connection.transaction():
        await connection.fetch(NAME, "team-7", True)
        await connection.execute(f"set plan_cache_mode = {mode}")
        for sql, most in whole.items():
            await connection.execute(f"prepare looked_at as {sql}")
            raw = await connection.fetchval("explain (analyze, format json) execute looked_at")
            await connection.execute("deallocate looked_at")
            plan = orjson.loads(raw)[0]["Plan"]
            scans = [node for node in nodes(plan) if "Relation Name" in node or "Index Name" in node]
            assert not [node for node in scans if node["Node Type"] == "Seq Scan"], (sql, plan)
            looked = [node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans]
            assert max(looked) <= most, (sql, plan)
