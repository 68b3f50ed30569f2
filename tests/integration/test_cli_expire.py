"""``waypost expire``: what leaves, what stays, and what happens to it at the wrong time."""

import asyncio
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest
from tests.support.cli import CommandLine, Started
from tests.support.deployment import deployment
from tests.support.worker_deployment import commands_in, create, line, own, own_worker, session, shared

from waypost.wire import decode
from waypost.wire.event_types import EventType
from waypost_worker.cli.expire import app
from waypost_worker.devserver import Servers

__all__ = ["line", "own", "own_worker", "session", "shared"]
IDLE = ("expire", "--idle", "0s")


def numbers(line: CommandLine, session: str) -> list[str]:
    return [row["id"].rpartition(":")[2] for row in line.run("session", "show", session, "-o", "jsonl").rows]


def publish(line: CommandLine, session: str, kind: str, body: str) -> None:
    done = line.run("publish", session, "--type", kind, "--body", body, "--wait", "--timeout", "30")
    assert done.code == 0, done


def test_an_idle_session_loses_its_checkpoints_but_the_pinned(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b", "c")
    publish(line, session, "pin", f'{{"checkpoint_id": "{session}:2"}}')
    expire = (*IDLE, "--prefix", session)

    plan = line.run(*expire, "--dry-run", "-o", "json")
    assert plan.err == "1 session would expire, 2 checkpoints to remove\n"
    (row,) = plan.json
    assert (row["session_id"], row["would_remove"], row["would_keep"]) == (session, 2, 1)
    assert numbers(line, session) == ["3", "2", "1"]

    done = line.run(*expire, "-o", "jsonl")
    assert done.code == 0
    assert done.err.endswith("1 session expired, 2 checkpoints removed\n")
    (row,) = done.rows
    assert (row["outcome"], row["removed"]) == ("expired", 2)
    assert numbers(line, session) == ["2"]
    create(line, session, "d")
    assert numbers(line, session) == ["4", "2"]

    assert line.run(*expire, "--pinned", "-o", "jsonl").rows[0]["removed"] == 2
    assert numbers(line, session) == []


def test_a_session_that_was_active_is_not_a_candidate(line: CommandLine, session: str) -> None:
    create(line, session, "a")
    for flag in ("--dry-run", "--yes"):
        done = line.run("expire", "--idle", "1h", "--prefix", session, flag)
        assert (done.code, done.out) == (0, "")
        assert line.run("expire", "--idle", "1h", "--prefix", session, flag, "-o", "json").json == []
        assert re.match("0 sessions (would expire|expired), 0 checkpoints", done.err)


def test_an_expiry_of_nothing_forgets_the_ids_and_is_the_last(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b")
    expire = (*IDLE, "--prefix", session, "-o", "jsonl")
    assert [row["removed"] for row in line.run(*expire).rows] == [2]
    assert [row["removed"] for row in line.run(*expire).rows] == [0]
    assert line.run(*expire).rows == []
    dsn = line.settings["WAYPOST_POSTGRES_DSN"]
    assert ids_left(dsn, session) == 1


def noted(line: CommandLine) -> list[tuple[Any, ...]]:
    async def read() -> list[tuple[Any, ...]]:
        connection: Any = await asyncpg.connect(line.settings["WAYPOST_POSTGRES_DSN"])
        try:
            sql = "select prefix, idle, expired, removed from waypost.expiry_runs order by ended_at"
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return asyncio.run(read())


def test_a_run_is_noted_for_doctor_whether_or_not_there_was_anything_to_do(
    own: CommandLine, own_worker: Started
) -> None:
    create(own, "acme/a", "a", "b")
    assert own.run("expire", "--idle", "30d", "--dry-run").code == 0
    assert noted(own) == []
    assert own.run("expire", "--idle", "30d", "--yes").code == 0
    assert noted(own) == [("", timedelta(days=30), 0, 0)]
    assert own.run(*IDLE, "--tenant", "acme", "--yes").code == 0
    assert own.run(*IDLE, "--yes").code == 0
    assert noted(own) == [("acme/", timedelta(0), 1, 2), ("", timedelta(0), 1, 0)]
    (told,) = [row for row in own.run("doctor", "-o", "json").json if row["subject"] == "sessions"]
    assert told["message"].startswith(
        "0 hold checkpoints and had no command for 0 seconds; 'waypost expire --idle 0s'"
    )
    assert told["message"].endswith("ago and expired 1 session")


def test_a_run_with_a_role_that_may_only_read_does_its_work_and_is_not_noted(
    own: CommandLine, own_worker: Started
) -> None:
    create(own, "s", "a")
    dsn = own.settings["WAYPOST_POSTGRES_DSN"]
    readonly = CommandLine(
        own.directory,
        {**own.settings, "WAYPOST_POSTGRES_DSN": f"{dsn}?options=-c%20default_transaction_read_only%3Don"},
    )
    done = readonly.run(*IDLE, "--yes", "-o", "jsonl")
    assert (done.code, done.rows[0]["removed"]) == (0, 1)
    assert (
        "all of it was done, but the run was not noted for 'waypost doctor': cannot execute INSERT"
        in done.err
    )
    assert noted(own) == []


def ids_left(dsn: str, session: str) -> int:
    async def count() -> int:
        connection: Any = await asyncpg.connect(dsn)
        try:
            sql = "select count(*) from waypost.recent_commands where session_id = $1"
            return int(await connection.fetchval(sql, session))
        finally:
            await connection.close()

    return asyncio.run(count())


def test_pinned_checkpoints_and_the_last_expiry_make_no_candidate(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b")
    publish(line, session, "pin", f'{{"checkpoint_id": "{session}:1"}}')
    expire = (*IDLE, "--prefix", session, "-o", "jsonl")
    assert [row["removed"] for row in line.run(*expire).rows] == [1]
    assert [row["removed"] for row in line.run(*expire).rows] == [0]
    assert line.run(*expire).rows == []
    assert numbers(line, session) == ["1"]


def test_two_in_parallel_have_one_effect(line: CommandLine, session: str) -> None:
    names = [f"{session}-{number:02}" for number in range(20)]
    for name in names:
        create(line, name, "a", "b")
    both = [line.start(*IDLE, "--prefix", f"{session}-", "-o", "jsonl") for _ in range(2)]
    rows = [row for one in both for row in one.wait().rows]
    removed = [row["session_id"] for row in rows if row["outcome"] == "expired" and row["removed"]]
    assert sorted(removed) == names
    assert {row["outcome"] for row in rows} <= {"expired", "kept"}


def test_a_session_that_becomes_active_meanwhile_is_kept(
    own: CommandLine, own_worker: Started, session: str
) -> None:
    create(own, session, "a")
    own_worker.process.send_signal(signal.SIGSTOP)
    since = datetime.now(UTC)
    # The worker does not see it before the sessions that look idle in Postgres were read.
    assert own.run("publish", session, "b").code == 0
    results = app._Expiry.results

    async def wake(expiry: app._Expiry, rows: Any) -> Any:
        own_worker.process.send_signal(signal.SIGCONT)
        return await results(expiry, rows)

    with (
        patch.object(app, "moment_before", lambda *_: since),
        patch.object(app._Expiry, "results", wake),
    ):
        done = own.run(*IDLE, "-o", "jsonl")
    (row,) = done.rows
    assert (row["session_id"], row["outcome"]) == (session, "kept")
    assert done.err.endswith("0 sessions expired, 0 checkpoints removed; 1 kept\n")
    assert numbers(own, session) == ["2", "1"]


def test_it_can_be_stopped_and_started_again(own: CommandLine, own_worker: Started, session: str) -> None:
    for number in range(3):
        create(own, f"{session}-{number}", "a")
    own_worker.process.send_signal(signal.SIGSTOP)
    running = own.start(*IDLE, "--timeout", "60")
    while commands_in(own) < 4:
        pass
    running.stop(signal.SIGKILL)
    own_worker.process.send_signal(signal.SIGCONT)
    assert own.run(*IDLE).code == 0
    for number in range(3):
        assert numbers(own, f"{session}-{number}") == []
    done = own.run("verify", "--strict", "-o", "json")
    assert done.json["equal"], done


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--idle", "soon"), "--idle: 'soon' is not an age, which looks like 30d, 12h or 90m"),
        (("--idle", "1d", "--prefix", "a\nb"), "--prefix: the session id contains a control character"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    line: CommandLine, arguments: tuple[str, ...], problem: str
) -> None:
    done = line.run("expire", *arguments)
    assert done.code == 2
    assert done.error.startswith(problem)


async def test_a_worker_that_does_not_know_the_command_keeps_it_for_after_the_upgrade(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix, 1) as live:
        line = CommandLine(
            tmp_path,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": database,
                "WAYPOST_TOPIC_PREFIX": topic_prefix,
            },
        )
        for name in ("one", "two"):
            await live.create(name, "a", step=1)
        live.own(0)
        await live.answered(2)
        with patch.dict(decode._PARSERS):
            del decode._PARSERS[EventType.EXPIRE]
            done = await asyncio.to_thread(line.run, *IDLE)
            assert done.code == 1
            assert "the worker of partition 0 is of an earlier version" in done.err
        # One command found that out; the other session was left alone.
        await live.answered(3)
        (row,) = (await asyncio.to_thread(line.run, "rejected", "list", "-o", "jsonl")).rows
        assert (row["code"], row["session_id"]) == ("unsupported-type", "one")

        retried = await asyncio.to_thread(line.run, "rejected", "retry", "--all", "--yes")
        assert (retried.code, retried.err) == (0, "1 accepted\n")
        done = await asyncio.to_thread(line.run, *IDLE, "-o", "jsonl")
        assert {row["session_id"]: row["removed"] for row in done.rows} == {"one": 0, "two": 1}
