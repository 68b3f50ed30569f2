"""``waypost erase`` with encryption: the key goes first, and one that comes back is noticed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_cli_erase import MARKER, erased, places, secret
from tests.support.cli import CommandLine, Started
from tests.support.kill_points import run_until_killed
from tests.support.worker_deployment import prepared, session

from waypost_worker.devserver import Servers

__all__ = ["session"]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def line(servers: Servers, database: str, topic_prefix: str, tmp_path: Path, keys: Path) -> CommandLine:
    """A deployment with a key store, and without a worker."""
    (tmp_path / "here").mkdir()
    plain = prepared(servers, database, topic_prefix, tmp_path / "here")
    wrapping = str(tmp_path / "wrapping.key")
    named = {"WAYPOST_KEYS_DIRECTORY": str(keys), "WAYPOST_WRAPPING_KEY_FILE": wrapping}
    made = CommandLine(plain.directory, {**plain.settings, **named})
    assert made.run("keys", "create-wrapping-key", wrapping).code == 0
    assert made.run("keys", "init").code == 0
    return made


@pytest.fixture
def worker(line: CommandLine) -> Any:
    started = line.start("worker")
    started.until("worker_ready")
    yield started
    started.end()


def state(line: CommandLine, session: str) -> str | None:
    rows = line.run("keys", "list", "--prefix", session, "--limit", "0", "-o", "jsonl").rows
    return next((row["state"] for row in rows if row["session_id"] == session), None)


def findings(line: CommandLine) -> list[tuple[str, str]]:
    rows = line.run("doctor", "-o", "jsonl").rows
    return [(row["level"], row["message"]) for row in rows if row["subject"] == "erased sessions"]


def test_a_replay_meets_ciphertext_without_a_key_and_gives_the_same(
    line: CommandLine, worker: Started, session: str
) -> None:
    for name in (session, f"{session}-other"):
        assert secret(line, name).code == 0
    assert line.run("replay", "--schema", "before", "-o", "json").code == 0
    assert line.run("verify", "--strict", "-o", "json").json["equal"]
    plan = line.run("erase", session, "--dry-run", "-o", "json")
    assert plan.json["would_remove"]["key"] is True
    assert state(line, session) == "wrapped"

    receipt = erased(line, session)
    assert state(line, session) == "erased"
    assert receipt["key"]["key_id"]
    assert receipt["key"]["deleted_at"] < receipt["erased_at"]
    found = places(receipt)
    assert found["key store backups"]["until"] is None
    assert "unreadable" in next(one["what"] for where, one in found.items() if ".commands/" in where)
    assert line.run("verify", "--strict", "-o", "json").json["equal"]
    assert line.run("replay", "--schema", "after", "-o", "json").code == 0
    assert line.run("verify", "--strict", "--schema", "after", "-o", "json").json["equal"]
    # A copy from before the erasure holds ciphertext that nobody can read, and others are as they were.
    copy = line.run("session", "show", f"{session}:1", "--schema", "before")
    assert (copy.code, MARKER in copy.out) == (1, False)
    assert MARKER in line.run("session", "show", f"{session}-other:1", "--schema", "before", "-o", "json").out


def test_a_restored_older_key_store_is_noticed(
    line: CommandLine, worker: Started, session: str, keys: Path
) -> None:
    assert secret(line, session).code == 0
    shutil.copytree(keys, keys.with_name("older"))
    first = erased(line, session)
    assert first["key_came_back"] is False
    assert not [one for one in findings(line) if one[0] == "error"]

    shutil.rmtree(keys)
    shutil.copytree(keys.with_name("older"), keys)
    assert state(line, session) == "wrapped"
    (problem,) = [message for level, message in findings(line) if level == "error"]
    assert f"1 of them have a key again, such as '{session}': an older key store was restored" in problem

    again = line.run("erase", session, "--yes", "-o", "json")
    assert (again.code, again.json["key_came_back"]) == (0, True)
    assert "an older key store was restored" in again.err
    assert again.json["erased_at"] == first["erased_at"]
    assert state(line, session) == "erased"
    assert not [one for one in findings(line) if one[0] == "error"]


@pytest.mark.parametrize(
    "step", ["publishing", "delete_key", "Eraser._command", "Eraser._settle", "make_receipt"]
)
def test_killed_on_either_side_of_the_key(
    line: CommandLine, worker: Started, session: str, step: str
) -> None:
    assert secret(line, session).code == 0
    path = line.directory / "receipt.json"
    run_until_killed(line, "call", step, 1, "erase", session, "--yes", "--receipt", str(path))
    assert state(line, session) == ("wrapped" if step in ("publishing", "delete_key") else "erased")
    assert not path.exists()
    receipt = erased(line, session, "--receipt", str(path))
    again = erased(line, session)
    for one in (receipt, again):
        assert one["key"]["key_id"]
        assert one["key_came_back"] is False
    assert {name: again[name] for name in ("erased_at", "key")} == {
        name: receipt[name] for name in ("erased_at", "key")
    }
    assert json.loads(path.read_text()) == receipt
    late = secret(line, session)
    assert late.code != 0
    assert line.run("verify", "--strict", "-o", "json").json["equal"]


def test_without_the_key_store_nothing_is_erased(
    line: CommandLine, worker: Started, session: str, keys: Path
) -> None:
    assert secret(line, session).code == 0
    keys.rename(keys.with_name("elsewhere"))
    done = line.run("erase", session, "--yes")
    assert (done.code, "There is no key store" in done.error) == (1, True)
    keys.with_name("elsewhere").rename(keys)
    assert MARKER in line.run("session", "show", f"{session}:1", "-o", "json").out
    assert erased(line, session)["checkpoints_removed_now"] == 1


def test_a_session_without_a_key_gets_a_tombstone_in_the_store_too(
    line: CommandLine, worker: Started, session: str
) -> None:
    receipt = erased(line, session, "--unknown")
    assert receipt["key"]["key_id"] is None
    assert "key store backups" not in places(receipt)
    assert state(line, session) == "erased"
    assert secret(line, session).code != 0
