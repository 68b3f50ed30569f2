"""The commands on real servers, with a worker process that applies what they publish."""

import json
import re
from pathlib import Path

import pytest
from tests.support.cli import CommandLine, Started
from tests.support.worker_deployment import create, line, own, own_worker, session, shared

from waypost import SyncPublisher
from waypost.wire.event_types import EventType

__all__ = ["line", "own", "own_worker", "session", "shared"]


# Publishing.


def test_publish_and_wait_shows_the_result(line: CommandLine, session: str) -> None:
    made = line.run("publish", session, "started", "--data", '{"step": 1}', "--wait", "-o", "json")
    assert (made.code, made.err) == (0, "")
    assert (made.json["result"], made.json["checkpoint"]["id"]) == ("created", f"{session}:1")
    assert made.json["checkpoint"]["data"] == {"step": 1}
    body = json.dumps({"checkpoint_id": f"{session}:1"})
    people = line.run("publish", session, "--type", "pin", "--body", body, "--wait")
    assert people.code == 0
    assert people.out.splitlines()[0].split() == ["result", "pinned"]


def test_a_command_that_is_refused_is_exit_code_1_and_kept(line: CommandLine, session: str) -> None:
    body = json.dumps({"checkpoint_id": f"{session}:9"})
    refused = line.run("publish", session, "--type", "pin", "--body", body, "--wait")
    assert refused.code == 1
    assert "unknown-checkpoint" in refused.out
    (row,) = line.run("rejected", "list", "--session", session, "-o", "jsonl").rows
    assert (row["session_id"], row["code"]) == (session, "unknown-checkpoint")
    shown = line.run("rejected", "show", row["place"], "-o", "json").json
    assert (shown["value"], shown["key"]) == (body, session)
    assert ["ce_type", EventType.PIN] in shown["headers"]
    assert body in line.run("rejected", "show", row["place"]).out
    other = line.run("rejected", "list", "--session", session, "--code", "conflict", "-o", "json")
    assert other.json == []
    assert row["place"] in line.run("rejected", "list").out
    missing = line.run("rejected", "show", "0/99999")
    assert missing.code == 1
    assert "no rejected command 0/99999 is stored" in missing.error


def test_lines_of_standard_input_are_published_in_order(line: CommandLine, session: str) -> None:
    given = [
        json.dumps({"session": f"{session}-{n % 3}", "name": f"n{n}", "data": {"n": n}}) for n in range(60)
    ]
    bad = {"session": f"{session}-1", "type": "pin", "body": {"checkpoint_id": f"{session}-1:99"}}
    given[10:10] = ["nope", "", json.dumps(bad)]
    ended = line.run("publish", "--stdin", "--wait", "-o", "jsonl", stdin="\n".join(given))
    assert ended.code == 1
    assert ended.err.splitlines()[0].startswith("line 11 was not published: not JSON")
    assert ended.err.splitlines()[-1] == "60 created, 1 not sent, 1 rejected"
    created = [row for row in ended.rows if row["result"] == "created"]
    assert [row["checkpoint"]["name"] for row in created] == [f"n{n}" for n in range(60)]
    names = [row["name"] for row in line.run("session", "show", f"{session}-0", "-o", "json").json]
    assert names == [f"n{n}" for n in range(57, -1, -3)]


def test_without_waiting_a_count_is_shown(line: CommandLine, session: str) -> None:
    one_line = json.dumps({"session": session, "name": "n", "data": {}}) + "\n"
    ended = line.run("publish", "--stdin", "-o", "json", stdin=one_line * 1000)
    assert (ended.code, ended.json) == (0, {"published": 1000, "refused": 0, "lost": 0})
    assert ended.err.startswith(
        f"{session!r} got 1000 checkpoints. By default, a session keeps at most 100, and above 50"
    )
    ended = line.run("publish", "--stdin", stdin=one_line * 50)
    assert "got 50 checkpoints" not in ended.err
    one = line.run("publish", session, "last", "-o", "json")
    assert list(one.json) == ["command_id"]
    assert line.run("publish", "--stdin", "-o", "json").json == {"published": 0, "refused": 0, "lost": 0}


def left_behind(line: CommandLine, directory: Path, session: str, *, prefix: str | None = None) -> None:
    """What a publisher leaves that can't reach Kafka."""
    prefix = prefix or line.settings["WAYPOST_TOPIC_PREFIX"]
    with SyncPublisher("127.0.0.1:1", topic_prefix=prefix, spool=directory) as publisher:
        for number in range(20):
            publisher.create(session, f"n{number}", {})
        publisher.close(0)


def test_what_publishers_left_in_a_spool_is_sent(line: CommandLine, session: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    left_behind(line, spool, session)
    left_behind(line, spool, session, prefix="another")
    drained = line.run("spool", "drain", f"{spool}", "-o", "json")
    assert (drained.code, drained.json) == (
        0,
        {"found": 20, "sent": 20, "refused": 0, "damaged": 0, "left": 0},
    )
    assert "Other spools in the directory were left alone" in drained.err
    line.run("publish", session, "last", "--wait")
    names = [row["name"] for row in line.run("session", "show", session, "-o", "json").json]
    assert names == ["last", *(f"n{number}" for number in range(19, -1, -1))]
    assert [path.name[:13] for path in spool.glob("*.log")] == ["000000000002-"], "that of the other topic"
    again = line.run("spool", "drain", f"{spool}", "-o", "json")
    assert (again.code, again.json["found"]) == (0, 0)


def test_a_damaged_or_missing_spool_is_reported(line: CommandLine, session: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    left_behind(line, spool, session)
    (path,) = spool.glob("*.log")
    data = path.read_bytes()
    path.write_bytes(data[:-10] + bytes(10))
    drained = line.run("spool", "drain", f"{spool}")
    assert drained.code == 1
    assert dict(row.split() for row in drained.out.splitlines())["damaged"] == "1"
    assert "files that end in .damaged" in drained.err
    missing = line.run("spool", "drain", f"{tmp_path}/nothing")
    assert (missing.code, missing.error) == (2, f"There is no directory {tmp_path}/nothing")
    spool.chmod(0o755)
    opened = line.run("spool", "drain", f"{spool}")
    assert opened.code == 1
    assert "chmod 700" in opened.error


def test_without_a_worker_waiting_ends_in_time_and_says_why(own: CommandLine) -> None:
    ended = own.run("publish", "s", "n", "--wait", "--timeout", "1")
    assert (ended.code, ended.out) == (1, "")
    assert ended.error.endswith("check that a worker is running")


def test_defaults_reach_every_partition_and_a_worker_ends_well(own: CommandLine, own_worker: Started) -> None:
    planned = own.run("defaults", "--max-checkpoints", "3", "--dry-run", "-o", "json")
    nothing = {"sessions": 0, "would_remove": 0, "by_session": []}
    assert planned.json == {"max_checkpoints": 3, "sent": False, **nothing}
    sent = own.run("defaults", "--max-checkpoints", "3", "--compress-after", "2", "--keep-recent", "1")
    assert sent.code == 0
    watch = own.run("tail", "--from-beginning", "--type", "defaults.configured", "-n", "2", "-o", "json")
    assert {row["body"]["policy"]["max_checkpoints"] for row in watch.json} == {3}
    assert {row["partition"] for row in watch.json} == {0, 1}
    create(own, "s", "n", "n", "n", "n", "n")
    assert len(own.run("session", "show", "s", "-o", "json").json) <= 3
    ended = own_worker.stop()
    assert (ended.code, ended.out) == (0, "")


# Watching.


def test_tail_filters_and_follows(line: CommandLine, session: str) -> None:
    other = f"{session}-other"
    create(line, session, "a", "b")
    create(line, other, "a")
    flags = ("--from-beginning", "--session", session, "--name", "a", "--type", "created")
    found = line.run("tail", *flags, "-n", "1", "-o", "json")
    assert [row["subject"] for row in found.json] == [f"{session}:1"]
    following = line.start("tail", "--session", session)
    try:
        following.until("watching")
        create(line, other, "b")
        create(line, session, "c")
        assert f"created     {session}:3" in following.until(f"{session}:3")
        ended = following.stop()
    finally:
        following.end()
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 1


def test_tail_since_a_moment(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b")
    mine = ("--session", session, "-o", "jsonl")
    rows = line.run("tail", "--from-beginning", "-n", "2", *mine).rows
    after = line.run("tail", "--since", rows[0]["time"], "-n", "1", *mine)
    assert after.rows[0]["subject"] == f"{session}:1"


# Sessions.


def test_sessions_are_listed_in_pages(line: CommandLine, session: str) -> None:
    for number in (1, 2):
        create(line, f"{session}-{number}", "n")
    mine = ("session", "list", "--prefix", f"{session}-")
    ids = [f"{session}-1", f"{session}-2"]
    assert [row["session_id"] for row in line.run(*mine, "-o", "jsonl").rows] == ids
    first = line.run(*mine, "--limit", "1")
    assert ids[0] in first.out
    assert f"--cursor '{ids[0]}'" in first.err
    second = line.run(*mine, "--cursor", ids[0], "-o", "json")
    assert [row["session_id"] for row in second.json] == ids[1:]
    assert line.run("session", "list", "--prefix", "none").err == "no sessions\n"


def test_sessions_are_listed_by_their_last_activity(line: CommandLine, session: str) -> None:
    for number in (1, 2, 3, 1):
        create(line, f"{session}-{number}", "n")
    mine = ("session", "list", "--recent", "--prefix", f"{session}-")
    ids = [f"{session}-{number}" for number in (1, 3, 2)]
    assert [row["session_id"] for row in line.run(*mine, "-o", "json").json] == ids
    first = line.run(*mine, "--limit", "2")
    cursor = re.search(r"--cursor '([^']+)'", first.err)
    assert cursor is not None, first.err
    second = line.run(*mine, "--cursor", cursor[1], "-o", "json")
    assert [row["session_id"] for row in second.json] == ids[2:]
    wrong = line.run(*mine, "--cursor", "yesterday")
    assert (wrong.code, wrong.out) == (2, "")
    assert "'yesterday' is not a cursor of this list" in wrong.error


def test_a_session_goes_out_and_in_again(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b")
    exported = line.run("session", "export", session)
    assert [row["id"] for row in exported.json] == [f"{session}:1", f"{session}:2"]
    by_line = line.run("session", "export", session, "-o", "jsonl")
    assert by_line.rows == exported.json
    file = line.directory / "s.json"
    written = line.run("session", "export", session, "--to", str(file))
    assert written.err == f"2 checkpoints written to {file}\n"
    assert file.read_text() == exported.out
    assert [path.name for path in line.directory.iterdir()] == ["s.json"]

    copy = f"{session}-copy"
    copied = line.run("session", "import", copy, "-", "-o", "json", stdin=exported.out)
    assert copied.json == {"session_id": copy, "imported": 2, "replaced": 0, "skipped": 0}
    assert [row["data"] for row in line.run("session", "export", copy).json] == [{"at": "a"}, {"at": "b"}]
    shown = line.run("session", "show", f"{copy}:2", "-o", "json").json
    assert shown["imported_id"] == f"{session}:2"
    again = line.run("session", "import", session, str(file), "-o", "json")
    assert again.json["skipped"] == 2
    refused = line.run("session", "import", session, str(file), "--on-conflict", "reject")
    assert refused.code == 1
    assert "part 1 of 1 was refused, conflict: " in refused.error


@pytest.mark.parametrize("text", ["nope", "{}", '[{"id": "s:1"}]', "[1]"])
def test_a_file_that_is_not_an_export_is_not_sent(line: CommandLine, session: str, text: str) -> None:
    ended = line.run("session", "import", session, "-", stdin=text)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error


def test_a_failed_export_leaves_no_file(line: CommandLine) -> None:
    ended = line.run("session", "export", "nobody", "--to", "x.json")
    assert ended.code == 1
    assert "no session 'nobody' is known" in ended.error
    assert list(line.directory.iterdir()) == []
    elsewhere = line.run("session", "export", "nobody", "--to", "no/such/directory/x.json")
    assert elsewhere.code == 1
    assert "can't be written" in elsewhere.error


def test_rollback_shows_before_and_after(line: CommandLine, session: str) -> None:
    ids = [f"{session}:{number}" for number in (1, 2, 3)]
    create(line, session, "a", "b", "c")
    rollback = ("session", "rollback", ids[0])
    plan = line.run(*rollback, "--discard-later", "--dry-run", "-o", "json").json
    assert (plan["would_go_back_to"], plan["would_remove"]) == (ids[0], ids[1:])
    gentle = line.run(*rollback, "--dry-run", "-o", "json").json
    assert (gentle["would_remove"], gentle["would_keep_later"]) == ([], ids[1:])
    assert len(line.run("session", "show", session, "-o", "json").json) == 3

    done = line.run(*rollback, "--discard-later", "--yes", "-o", "json")
    assert (done.code, done.json["result"]) == (0, "rolled_back")
    assert done.json["removed"] == ids[1:]
    assert done.json["checkpoint"]["data"] == {"at": "a"}
    assert [row["id"] for row in line.run("session", "show", session, "-o", "json").json] == ids[:1]

    unknown = line.run("session", "rollback", ids[1])
    assert unknown.code == 1
    assert "unknown-checkpoint" in unknown.out
    nothing = line.run("session", "rollback", ids[1], "--discard-later")
    assert nothing.code == 1
    assert f"holds no checkpoint '{ids[1]}'" in nothing.error


def test_missing_things_are_reported(line: CommandLine, session: str) -> None:
    shown = line.run("session", "show", "nobody")
    assert (shown.code, shown.out) == (1, "")
    assert "neither a session nor a checkpoint 'nobody' is known" in shown.error
    create(line, session, "a")
    none = line.run("session", "show", session, "--name", "b")
    assert none.err == f"{session} holds none named b\n1 of 1 checkpoints kept\n"


def test_tables_fit_the_terminal(line: CommandLine, session: str) -> None:
    # A longer id makes a table wider, for it stays on one line.
    create(line, session, "a-rather-long-name-for-a-checkpoint-of-an-agent-that-likes-names")
    line.run("publish", session, "--type", "pin", "--body", '{"checkpoint_id": "x:9"}', "--wait")
    for command in (
        ["session", "list"],
        ["session", "show", session],
        ["session", "show", f"{session}:1"],
        ["rejected", "list"],
        ["doctor"],
        ["topics", "check"],
        ["config", "show"],
    ):
        shown = line.run(*command).out
        assert shown, command
        assert max(len(row) for row in shown.splitlines()) <= 80, command
