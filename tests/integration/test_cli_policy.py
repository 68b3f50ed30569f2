"""What a policy would remove, and how many checkpoints are left, wherever a session is shown."""

import json

from tests.support.cli import CommandLine, Started
from tests.support.worker_deployment import create, line, own, own_worker, session, shared

__all__ = ["line", "own", "own_worker", "session", "shared"]


def numbers(line: CommandLine, session: str) -> list[int]:
    rows = line.run("session", "show", session, "--limit", "1000", "-o", "jsonl").rows
    return sorted(int(row["id"].rpartition(":")[2]) for row in rows)


def test_a_preview_names_what_the_policy_then_removes(line: CommandLine, session: str) -> None:
    create(line, session, *"abcabcabc")
    flags = ("--max-checkpoints", "4", "--compress-after", "6", "--keep-recent", "2")
    plan = line.run("session", "policy", session, *flags, "--dry-run", "-o", "json").json
    assert (plan["checkpoints"], plan["would_remove"], plan["would_keep"]) == (9, 5, 4)
    assert (plan["too_old"], plan["compressed"], plan["above_maximum"]) == (0, 3, 2)
    assert plan["policy"] == {"max_checkpoints": 4, "compress_after": 6, "keep_recent": 2, "max_age": None}
    assert plan["sent"] is False
    assert numbers(line, session) == list(range(1, 10))

    done = line.run("session", "policy", session, *flags, "--yes", "-o", "json").json
    assert done["result"] == "configured"
    assert sorted(done["removed"]) == sorted(plan["removed"])
    assert len(numbers(line, session)) == 4


def test_a_policy_is_shown_with_how_much_is_left(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b", "c")
    body = f'{{"checkpoint_id": "{session}:2"}}'
    assert line.run("publish", session, "--type", "delete", "--body", body, "--wait").code == 0
    shown = line.run("session", "policy", session, "-o", "json").json
    assert shown == {
        "session_id": session,
        "kept": "2 of 3",
        "pinned": 0,
        "policy_of": "the default",
        "max_checkpoints": 100,
        "compress_after": 50,
        "keep_recent": 20,
        "max_age": None,
    }
    assert "2 of 3" in line.run("session", "list", "--prefix", session).out
    for command in ("show", "timeline"):
        assert line.run("session", command, session).err == "2 of 3 checkpoints kept\n"


def test_a_policy_may_be_set_before_the_first_checkpoint(line: CommandLine, session: str) -> None:
    assert line.run("session", "policy", session).error == f"no session {session!r} is known"
    assert line.run("session", "policy", session, "--max-age", "60").code == 0
    assert line.run("session", "policy", session, "-o", "json").json["max_age"] == 60


def test_a_policy_that_the_worker_would_reject_is_rejected_by_the_preview(
    line: CommandLine, session: str
) -> None:
    create(line, session, "a", "b", "c")
    for number in (1, 2):
        body = f'{{"checkpoint_id": "{session}:{number}"}}'
        assert line.run("publish", session, "--type", "pin", "--body", body, "--wait").code == 0
    refused = line.run("session", "policy", session, "--max-checkpoints", "3", "--dry-run")
    assert refused.code == 2
    assert "max_checkpoints must be at least 4" in refused.error


def test_a_preview_of_the_defaults_says_what_each_session_would_lose(
    own: CommandLine, own_worker: Started
) -> None:
    create(own, "many", *"abcdefgh")
    create(own, "some", *"abcde")
    create(own, "few", "a", "b")
    create(own, "with its own", *"abcdefgh")
    assert own.run("session", "policy", "with its own", "--max-checkpoints", "50").code == 0
    flags = ("--max-checkpoints", "4")
    plan = own.run("defaults", *flags, "--dry-run", "-o", "json").json
    assert [(row["session_id"], row["would_remove"]) for row in plan["by_session"]] == [
        ("many", 4),
        ("some", 1),
    ]
    assert (plan["sessions"], plan["would_remove"], plan["sent"]) == (2, 5, False)
    table = own.run("defaults", *flags, "--dry-run").out
    assert "many" in table
    assert "few" not in table

    assert own.run("defaults", *flags, "--yes").code == 0
    create(own, "many", "i")
    assert len(numbers(own, "many")) == 4


def test_publish_says_when_retention_removes_the_first_checkpoints(line: CommandLine, session: str) -> None:
    assert line.run("session", "policy", session, "--max-checkpoints", "2").code == 0
    create(line, session, "a", "b")
    ended = line.run("publish", session, "c", "--wait")
    assert ended.code == 0
    assert (
        ended.err
        == f"retention removed 1 checkpoint of {session!r}: see 'waypost session policy {session}'\n"
    )
    lines = "\n".join(json.dumps({"session": session, "name": "n", "data": {}}) for _ in range(3))
    assert line.run("publish", "--stdin", "--wait", stdin=lines).err.count("retention removed") == 1
