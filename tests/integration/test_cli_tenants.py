"""Commands with ``--tenant``: what they list, export and expire, and what they leave alone."""

import asyncio

import pytest
from tests.support.cli import CommandLine, Started
from tests.support.tenanted import Tenanted, sessions_of, tenanted
from tests.support.worker_deployment import create, own, own_worker

__all__ = ["own", "own_worker", "tenanted"]

IDS = ("acme/a", "acme/b", "acme2/a", "Acme/a", "a%/x", "ab/x", "acme", "/acme")


@pytest.fixture
def filled(own: CommandLine, own_worker: Started) -> CommandLine:
    for session in IDS:
        create(own, session, "one", "two")
    own.run("publish", "acme/a", "--type", "pin", "--body", '{"checkpoint_id": "acme/a:99"}', "--wait")
    own.run("publish", "acme2/a", "--type", "pin", "--body", '{"checkpoint_id": "acme2/a:99"}', "--wait")
    return own


def listed(line: CommandLine, *arguments: str) -> list[str]:
    done = line.run(*arguments, "-o", "json")
    assert done.code == 0, done
    return sorted(row["session_id"] for row in done.json)


def test_a_tenants_sessions_are_listed_exported_and_expired_and_no_others(filled: CommandLine) -> None:
    for order in ((), ("--recent",)):
        assert listed(filled, "session", "list", "--tenant", "acme", *order) == ["acme/a", "acme/b"]
        assert listed(filled, "session", "list", "--tenant", "a%", *order) == ["a%/x"]
        assert listed(filled, "session", "list", "--tenant", "acme", "--prefix", "acme/b", *order) == [
            "acme/b"
        ]
        assert listed(filled, "session", "list", "--tenant", "acme", "--prefix", "acme2/", *order) == []
        assert listed(filled, "session", "list", "--tenant", "nobody", *order) == []
    assert listed(filled, "rejected", "list", "--tenant", "acme") == ["acme/a"]

    exported = filled.run("session", "export", "--tenant", "acme")
    assert [row["id"] for row in exported.rows] == ["acme/a:1", "acme/a:2", "acme/b:1", "acme/b:2"]
    done = filled.run("session", "export", "--tenant", "acme", "--to", "acme.jsonl")
    assert (filled.directory / "acme.jsonl").read_text() == exported.out
    assert done.err == "4 checkpoints of 2 sessions written to acme.jsonl\n"
    assert [
        row["id"] for row in filled.run("session", "export", "--tenant", "acme", "--prefix", "acme/b").rows
    ] == [
        "acme/b:1",
        "acme/b:2",
    ]

    expire = ("expire", "--idle", "0s", "--tenant", "acme")
    assert listed(filled, *expire, "--dry-run") == ["acme/a", "acme/b"]
    assert listed(filled, *expire, "--yes") == ["acme/a", "acme/b"]
    left = {row["session_id"]: row["checkpoints"] for row in filled.run("session", "list", "-o", "json").json}
    assert left == {session: 0 if session.startswith("acme/") else 2 for session in IDS}
    assert listed(
        filled, "expire", "--idle", "0s", "--tenant", "acme", "--prefix", "acme/b", "--dry-run"
    ) == ["acme/b"]


def test_a_session_of_another_tenant_is_not_shown(filled: CommandLine) -> None:
    for command in (
        ("session", "show", "acme2/a"),
        ("session", "show", "acme2/a:1"),
        ("session", "timeline", "acme"),
        ("session", "export", "/acme"),
        ("session", "diff", "acme/a", "acme2/a"),
        ("session", "diff", "acme/a:1", "acme2/a:1"),
    ):
        refused = filled.run(*command, "--tenant", "acme")
        assert (refused.code, refused.out) == (1, ""), command
        assert "does not belong to the tenant 'acme', whose sessions begin with 'acme/'" in refused.error
    for command in (
        ("session", "show", "acme/a"),
        ("session", "timeline", "acme/a"),
        ("session", "export", "acme/a"),
    ):
        assert filled.run(*command, "--tenant", "acme").out == filled.run(*command).out


@pytest.mark.parametrize(
    "command",
    [
        ("session", "list"),
        ("session", "export"),
        ("expire", "--idle", "1d"),
        ("rejected", "list"),
        ("console",),
    ],
)
def test_a_name_that_no_tenant_can_have_ends_a_command(own: CommandLine, command: tuple[str, ...]) -> None:
    for name, problem in (("", "is empty"), ("acme/", "contains '/'"), ("a\n", "control character")):
        refused = own.run(*command, "--tenant", name)
        assert (refused.code, refused.out) == (2, "")
        assert problem in refused.error


def test_a_prefix_outside_of_the_tenant_is_an_error_and_expires_nothing(own: CommandLine) -> None:
    refused = own.run("expire", "--idle", "1d", "--tenant", "acme", "--prefix", "acme2/")
    assert (refused.code, refused.out) == (2, "")
    assert "no session of the tenant 'acme' begins with 'acme2/'" in refused.error


def test_the_roles_and_the_tenants_sql_are_not_printed_together(own: CommandLine) -> None:
    refused = own.run("migrate", "--roles", "--tenants")
    assert (refused.code, refused.out) == (2, "")
    printed = own.run("migrate", "--tenants", "--schema", "order").out
    assert 'create policy one_tenant on "order".%I' in printed
    assert "waypost." not in printed


async def test_commands_read_with_a_role_that_names_its_tenant(tenanted: Tenanted, own: CommandLine) -> None:
    def line(role: str) -> CommandLine:
        return CommandLine(own.directory, {**own.settings, "WAYPOST_POSTGRES_DSN": tenanted.dsn(role)})

    def work(bound: str) -> None:
        named = line("waypost_tenant_reader")
        assert listed(named, "session", "list", "--tenant", "acme") == sessions_of("acme")
        assert len(named.run("session", "export", "--tenant", "acme").rows) == 2 * len(sessions_of("acme"))
        for command in (
            ("session", "list"),
            ("session", "show", "acme/run-1"),
            ("session", "export", "--all"),
        ):
            refused = named.run(*command)
            assert refused.code == 1
            assert "this transaction names none; Pass the reader a tenant" in refused.error
        assert listed(line(bound), "session", "list") == sessions_of("acme")
        assert "not for 'acme2'" in line(bound).run("session", "list", "--tenant", "acme2").error

    bound = await tenanted.role("acme")
    await asyncio.to_thread(work, bound)
