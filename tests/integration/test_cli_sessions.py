"""Sessions as a whole: out, in, to another deployment, from a checkpoint on, and how two differ."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import CommandLine, Started
from tests.support.worker_deployment import create, line, own, own_worker, prepared, session, shared

from waypost_worker.devserver import Servers

__all__ = ["line", "own", "own_worker", "session", "shared"]


def exported(line: CommandLine, session: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = line.run("session", "export", session).json
    return found


def test_many_sessions_go_out_as_lines_and_come_back_the_same(
    line: CommandLine, session: str, own: CommandLine, own_worker: Started
) -> None:
    names = [f"{session}-{n}" for n in range(3)]
    for name in names:
        create(line, name, "a", "b")
    file = line.directory / "all.jsonl"
    out = line.run("session", "export", "--prefix", f"{session}-", "--to", str(file))
    assert out.err == f"6 checkpoints of 3 sessions written to {file}\n"
    assert [json.loads(text)["id"] for text in file.read_text().splitlines()] == [
        f"{name}:{n}" for name in names for n in (1, 2)
    ]
    back = own.run("session", "import", str(file), "-o", "json")
    assert back.json == {"sessions": 3, "imported": 6, "replaced": 0, "skipped": 0}
    for name in names:
        assert exported(own, name) == exported(line, name)
    everything = own.run("session", "export", "--all", "-o", "jsonl")
    assert everything.out == file.read_text()
    again = own.run("session", "import", "-", "-o", "json", stdin=everything.out)
    assert again.json["skipped"] == 6


# Copies.


@pytest.fixture
def other(servers: Servers, database_template: str, tmp_path: Path) -> Iterator[CommandLine]:
    """A second deployment with a worker."""
    dsn = servers.postgres.create_database("test_cli_other", template=database_template)
    made = prepared(servers, dsn, f"test-{uuid.uuid4().hex[:12]}", tmp_path)
    worker = made.start("worker")
    try:
        worker.until("worker_ready")
        yield made
    finally:
        worker.end()
    servers.postgres.drop_database("test_cli_other")


def test_a_session_is_copied_to_another_deployment_with_its_policy_and_pins(
    line: CommandLine, session: str, other: CommandLine
) -> None:
    policy = json.dumps({"max_checkpoints": 7, "compress_after": 6, "keep_recent": 3, "max_age": 3600.5})
    line.run("publish", session, "--type", "configure", "--body", policy, "--wait")
    create(line, session, "a", "b", "c")
    line.run("publish", session, "--type", "pin", "--body", f'{{"checkpoint_id": "{session}:2"}}', "--wait")
    to = ("--to-topic-prefix", other.settings["WAYPOST_TOPIC_PREFIX"])
    plan = line.run("session", "copy", session, *to, "--dry-run", "-o", "json").json
    assert (plan["would_copy"], plan["commands"]) == (3, 3)
    assert other.run("session", "show", session).code == 1

    copied = line.run("session", "copy", session, *to, "-o", "json")
    assert copied.json == {
        "session_id": session,
        "imported": 3,
        "replaced": 0,
        "skipped": 0,
    }
    assert exported(other, session) == exported(line, session)
    shown = other.run("session", "show", session, "-o", "json").json
    assert [row["pinned"] for row in shown] == [False, True, False]
    again = line.run("session", "copy", session, *to, "-o", "json").json
    assert (again["imported"], again["repeated"]) == (0, 3)
    config = line.directory / "other.toml"
    config.write_text(f'topic_prefix = "{to[1]}"\n')
    # What the file does not say is as here, secrets in files too.
    secret = line.directory / "dsn"
    secret.write_text(line.settings["WAYPOST_POSTGRES_DSN"])
    settings = {name: value for name, value in line.settings.items() if name != "WAYPOST_POSTGRES_DSN"}
    secretly = CommandLine(line.directory, {**settings, "WAYPOST_POSTGRES_DSN_FILE": str(secret)})
    named = secretly.run("session", "copy", session, "--to-config", str(config), "--as", "new", "-o", "json")
    assert named.code == 0, named.err
    assert named.json["imported"] == 3
    assert [row["imported_id"] for row in other.run("session", "show", "new", "-o", "json").json] == [
        f"{session}:{n}" for n in (3, 2, 1)
    ]
    assert [row["pinned"] for row in other.run("session", "show", "new", "-o", "json").json] == [
        False,
        True,
        False,
    ]


def test_an_import_reports_what_retention_dropped_again(line: CommandLine, session: str) -> None:
    policy = json.dumps({"max_checkpoints": 3, "compress_after": 3, "keep_recent": 1})
    line.run("publish", session, "--type", "configure", "--body", policy, "--wait")
    fields = {"name": "n", "timestamp": "2026-11-24T12:00:00Z", "data": {}}
    text = "".join(json.dumps({"id": f"{session}:{n}", **fields}) + "\n" for n in range(1, 6))
    ended = line.run("session", "import", session, "-", "-o", "json", stdin=text)
    assert (ended.json["imported"], ended.json["removed"]) == (5, 2)
    assert len(exported(line, session)) == 3


def test_a_copy_refuses_what_it_cannot_do(line: CommandLine, session: str) -> None:
    assert "no session 'nobody' is known" in line.run("session", "copy", "nobody", "--as", "x").error
    bad = line.directory / "bad.toml"
    bad.write_text("topic_prefx = 'x'")
    ended = line.run("session", "copy", session, "--to-config", str(bad))
    assert (ended.code, "is not a setting. Did you mean topic_prefix?" in ended.error) == (2, True)


def test_a_fork_says_where_it_comes_from_and_goes_its_own_way(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b", "c")
    fork = f"{session}-fork"
    made = line.run("session", "fork", f"{session}:2", fork, "-o", "json")
    assert made.json == {
        "session_id": fork,
        "forked_from": f"{session}:2",
        "imported": 2,
        "replaced": 0,
        "skipped": 0,
    }
    shown = line.run("session", "show", f"{fork}:2", "-o", "json").json
    assert (shown["metadata"], shown["imported_id"]) == ({"forked_from": f"{session}:2"}, f"{session}:2")
    again = line.run("session", "fork", f"{session}:2", fork, "-o", "json").json
    assert (again["imported"], again["repeated"]) == (0, 1)
    create(line, fork, "d")
    taken = line.run("session", "fork", f"{session}:1", fork)
    assert (taken.code, "there is already a session" in taken.error) == (1, True)
    assert len(exported(line, fork)) == 3
    assert len(exported(line, session)) == 3
    unknown = line.run("session", "fork", f"{session}:9", f"{session}-none")
    assert "holds no checkpoint" in unknown.error

    rows = line.run("session", "diff", session, fork, "-o", "json").json["checkpoints"]
    assert [(row["change"], row["before"], row["after"]) for row in rows] == [
        ("removed", f"{session}:3", None),
        ("changed", f"{session}:2", f"{fork}:2"),
        ("added", None, f"{fork}:3"),
    ]
    assert rows[1]["changes"] == [
        {"change": "added", "path": "/metadata/forked_from", "after": f"{session}:2"}
    ]
    people = line.run("session", "diff", session, fork)
    assert "+/metadata/forked_from" in people.out
    timeline = line.run("session", "timeline", fork, "-o", "jsonl").rows
    assert [row["forked_from"] for row in timeline] == [None, f"{session}:2", None]
    assert f"forked from {session}:2" in " ".join(line.run("session", "timeline", fork).out.split())


# Comparing.


def test_two_checkpoints_are_compared_place_by_place(line: CommandLine, session: str) -> None:
    for data in ({"step": 1, "plan": ["x"], "old": True}, {"step": 2, "plan": ["x", "y"]}):
        line.run("publish", session, "n", "--data", json.dumps(data), "--wait")
    both = (f"{session}:1", f"{session}:2")
    found = line.run("session", "diff", *both, "-o", "json").json
    assert found == {
        "before": both[0],
        "after": both[1],
        "changes": [
            {"change": "removed", "path": "/data/old", "before": True},
            {"change": "added", "path": "/data/plan/1", "after": "y"},
            {"change": "changed", "path": "/data/step", "before": 1, "after": 2},
        ],
    }
    assert line.run("session", "diff", *both, "-o", "jsonl").rows == found["changes"]
    people = line.run("session", "diff", *both)
    assert people.err == "1 added, 1 removed, 1 changed\n"
    assert [row.split()[:2] for row in people.out.splitlines()[2:]] == [
        ["-", "/data/old"],
        ["+", "/data/plan/1"],
        ["~", "/data/step"],
    ]
    assert line.run("session", "diff", both[0], both[0]).err == "no difference\n"
    for text in ("a\nb\nc", "a\nB\nc"):
        line.run("publish", session, "n", "--data", json.dumps({"text": text}), "--wait")
    texts = line.run("session", "diff", f"{session}:3", f"{session}:4").out
    assert [row.split() for row in texts.splitlines()[2:]] == [
        ["~", "/data/text", "a", "a"],
        ["-", "b", "+", "B"],
        ["c", "c"],
    ]
    mixed = line.run("session", "diff", both[0], session)
    assert (mixed.code, "compare two checkpoints or two sessions" in mixed.error) == (1, True)
    assert "is known" in line.run("session", "diff", both[0], "nobody:1").error


def test_sessions_without_a_common_origin_are_compared_by_number(line: CommandLine, session: str) -> None:
    other = f"{session}-b"
    create(line, session, "a", "b")
    create(line, other, "a", "c", "d")
    rows = line.run("session", "diff", session, other, "-o", "jsonl").rows
    assert [(row["change"], row["before"], row["after"]) for row in rows] == [
        ("changed", f"{session}:2", f"{other}:2"),
        ("added", None, f"{other}:3"),
    ]


def test_a_timeline_shows_gaps_and_changes(line: CommandLine, session: str) -> None:
    for data in ({"a": 1}, {"a": 1, "b": 1}, {"a": 2}):
        line.run("publish", session, "n", "--data", json.dumps(data), "--wait")
    line.run(
        "publish", session, "--type", "delete", "--body", f'{{"checkpoint_id": "{session}:2"}}', "--wait"
    )
    rows = line.run("session", "timeline", session, "-o", "json").json
    assert [(row["id"], row["gone_before"]) for row in rows] == [(f"{session}:1", 0), (f"{session}:3", 1)]
    assert (rows[1]["changed"], rows[1]["added"]) == (["a"], [])
    assert rows[1]["seconds_since"] > 0
    last = line.run("session", "timeline", session, "--limit", "1")
    assert "1 gone before" in last.out
    assert "there are more than 1" in last.err
    assert max(len(row) for row in last.out.splitlines()) <= 80
    assert line.run("session", "timeline", "nobody").code == 1


def test_a_rollback_shows_what_would_change_before_it_does(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b")
    dry = ("session", "rollback", f"{session}:1", "--dry-run")
    changes = line.run(*dry, "-o", "json").json["would_change"]
    assert changes == [
        {"change": "changed", "path": "/data/at", "before": "b", "after": "a"},
        {"change": "changed", "path": "/name", "before": "b", "after": "a"},
    ]
    people = line.run(*dry)
    assert "/data/at" in people.out
    assert "2 changed" in people.err
