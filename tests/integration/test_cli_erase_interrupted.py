"""An erasure that is killed at any of its steps, under load too, completes when it is started again."""

import asyncio
import json
import signal
from typing import Any

import asyncpg
import pytest
from tests.integration.test_cli_erase import MARKER, found_in_postgres, secret
from tests.support.cli import CommandLine, Started
from tests.support.database_state import state_hash
from tests.support.kill_points import run_until_killed
from tests.support.worker_deployment import commands_in, line, own, own_worker, session, shared

import waypost
from waypost.errors import InvalidCommandError

__all__ = ["line", "own", "own_worker", "session", "shared"]

# Functions of the command, in the order in which it calls them: it is killed before each.
STEPS = (
    "require_this_version",
    "look",
    "confirm",
    "delete_key",
    "Eraser._command",
    "result_of",
    "Eraser._settle",
    "purge_rejected",
    "require_gone",
    "Places.remaining",
    "make_receipt",
    "write_receipt",
)


def start_again(line: CommandLine, session: str) -> Any:
    path = line.directory / "receipt.json"
    done = line.run("erase", session, "--yes", "--receipt", str(path), "-o", "json")
    assert done.code == 0, done
    assert json.loads(path.read_text()) == done.json
    assert [one.name for one in line.directory.iterdir()] == ["receipt.json"]
    assert found_in_postgres(line, MARKER) == []
    late = secret(line, session)
    assert (late.code, late.json["code"]) == (1, "erased")
    return done.json


@pytest.mark.parametrize("step", STEPS)
def test_killed_before_a_step(line: CommandLine, session: str, step: str) -> None:
    assert secret(line, session).code == 0
    path = line.directory / "receipt.json"
    run_until_killed(line, "call", step, 1, "erase", session, "--yes", "--receipt", str(path))
    assert not path.exists()
    receipt = start_again(line, session)
    again = start_again(line, session)
    assert again["erased_at"] == receipt["erased_at"]
    assert line.run("verify", "-o", "json").json["equal"]


@pytest.mark.parametrize(
    ("step", "option"),
    [
        ("delete_key", "--tenant"),
        ("Places.remaining", "--prefix"),
        ("Eraser._settle", "--tenant"),
        ("make_receipt", "--prefix"),
        ("write_receipt", "--tenant"),
    ],
)
def test_of_several_sessions_killed_in_the_second(
    line: CommandLine, session: str, step: str, option: str
) -> None:
    names = [f"{session}/{name}" for name in "abc"]
    for name in names:
        assert secret(line, name).code == 0
    these = session if option == "--tenant" else f"{session}/"
    receipts = line.directory / "receipts"
    command = ("erase", option, these, "--yes", "--receipt", str(receipts))
    run_until_killed(line, "call", step, 2, *command)
    (first,) = [json.loads(one.read_text()) for one in receipts.iterdir()]
    assert (first["session_id"], first["checkpoints_removed_now"]) == (names[0], 1)
    done = line.run(*command, "-o", "json")
    assert (done.code, done.err) == (0, "3 sessions erased\n")
    assert [row["session_id"] for row in done.json] == names
    assert done.json[0]["erased_at"] == first["erased_at"]
    written = [json.loads(one.read_text()) for one in receipts.iterdir()]
    assert sorted(written, key=lambda one: str(one["session_id"])) == done.json
    for name in names:
        late = secret(line, name)
        assert (late.code, late.json["code"]) == (1, "erased")
    assert line.run("verify", "-o", "json").json["equal"]


@pytest.mark.parametrize("event", ["tempfile.mkstemp", "os.rename"])
def test_killed_while_it_writes_the_receipt(line: CommandLine, session: str, event: str) -> None:
    assert secret(line, session).code == 0
    path = line.directory / "receipt.json"
    run_until_killed(line, event, "receipt.json", 1, "erase", session, "--yes", "--receipt", str(path))
    assert not path.exists()
    for draft in line.directory.iterdir():
        draft.unlink()
    assert start_again(line, session)["checkpoints_removed_now"] == 0


def test_killed_while_it_waits_for_a_worker(own: CommandLine, own_worker: Started, session: str) -> None:
    assert secret(own, session).code == 0
    own_worker.process.send_signal(signal.SIGSTOP)
    running = own.start("erase", session, "--yes", "--timeout", "60")
    while commands_in(own) < 2:
        assert running.process.poll() is None
    running.stop(signal.SIGKILL)
    own_worker.process.send_signal(signal.SIGCONT)
    assert start_again(own, session)["checkpoints_removed_now"] == 0
    assert own.run("verify", "--strict", "-o", "json").json["equal"]


def test_killing_a_worker_meanwhile_loses_nothing(own: CommandLine, session: str) -> None:
    worker = own.start("worker")
    try:
        worker.until("worker_ready")
        assert secret(own, session).code == 0
        worker.process.send_signal(signal.SIGSTOP)
        running = own.start("erase", session, "--yes", "--timeout", "120", "-o", "json")
        while commands_in(own) < 2:
            assert running.process.poll() is None
        worker.stop(signal.SIGKILL)
    finally:
        worker.end()
    other = own.start("worker")
    try:
        other.until("worker_ready", 120)
        done = running.wait(120)
        assert done.code == 0, done
        assert done.json["checkpoints_removed_now"] == 1
        assert found_in_postgres(own, MARKER) == []
    finally:
        running.end()
        other.end()


async def test_under_load(own: CommandLine, own_worker: Started, session: str) -> None:
    """Agents publish to many sessions, and to those that are erased, while that is killed and started again."""
    names = [f"{session}-{number}" for number in range(30)]
    erased = names[:6]
    stop = asyncio.Event()
    async with waypost.Publisher(
        own.settings["WAYPOST_BOOTSTRAP_SERVERS"], topic_prefix=own.settings["WAYPOST_TOPIC_PREFIX"]
    ) as publisher:

        async def agents() -> None:
            number = 0
            while not stop.is_set():
                name = names[number % len(names)]
                publisher.create(name, "step", {"text": f"{MARKER}-{name}-", "number": number})
                if number % 7 == 0:
                    publisher.rollback(name, f"{name}:1")
                number += 1
                if number % 40 == 0:  # so that a worker is never far behind
                    await publisher.create_and_wait(names[-1], "step", {}, timeout=60)

        load = asyncio.create_task(agents())
        try:
            for name, step in zip(
                erased,
                ("look", "Eraser._command", "Eraser._settle", "Places.remaining", "make_receipt", ""),
                strict=True,
            ):
                if step:
                    await asyncio.to_thread(
                        run_until_killed, own, "call", step, 1, "erase", name, "--yes", "--unknown"
                    )
                done = await asyncio.to_thread(own.run, "erase", name, "--yes", "--unknown", "-o", "json")
                assert done.code == 0, done
            # Some more, so that each of them has late commands.
            for name in erased:
                publisher.create(name, "late", {"text": f"{MARKER}-{name}-"})
        finally:
            stop.set()
            await load
        last = [publisher.create_and_wait(name, "last", {}, timeout=60) for name in names]
        answers = dict(zip(names, await asyncio.gather(*last, return_exceptions=True), strict=True))
        for name in erased:
            answer = answers.pop(name)
            assert isinstance(answer, InvalidCommandError)
            assert answer.code == "erased"
        assert not [answer for answer in answers.values() if isinstance(answer, BaseException)]
    for name in erased:
        assert await asyncio.to_thread(found_in_postgres, own, f"{MARKER}-{name}-") == []
    assert await asyncio.to_thread(found_in_postgres, own, f"{MARKER}-{names[-1]}-") != []
    found = await asyncio.to_thread(own.run, "verify", "--strict", "-o", "json")
    assert found.json["equal"], found
    done = await asyncio.to_thread(own.run, "replay", "--schema", "side", "-o", "json")
    assert done.code == 0, done
    dsn = own.settings["WAYPOST_POSTGRES_DSN"]
    assert await state_hash(dsn) == await state_hash(dsn, "side")
    connection: Any = await asyncpg.connect(dsn)
    try:
        left = await connection.fetchval("select count(*) from waypost.sessions where erased_at is not null")
    finally:
        await connection.close()
    assert left == len(erased)
