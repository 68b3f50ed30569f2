"""Sessions on their way out and in: killed in the middle, files that are cut, disks that are full."""

import json
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.cli import WAYPOST, CommandLine, environment
from tests.support.kill_points import run_until_killed
from tests.support.worker_deployment import commands_in, create, line, own, session, shared

from waypost.wire.event_types import EventType

__all__ = ["line", "own", "session", "shared"]


def test_nothing_is_sent_of_a_file_with_a_bad_line(line: CommandLine, session: str) -> None:
    create(line, session, "a")
    good = line.run("session", "export", session, "-o", "jsonl").out
    file = line.directory / "bad.jsonl"
    file.write_text(good.replace(session, f"{session}-other") + '{"id": "nope"}\n')
    ended = line.run("session", "import", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert "line 2 has no id of the form session:number" in ended.error
    assert line.run("session", "show", f"{session}-other").code == 1
    file.write_text(good.replace(session, f"{session}-other")[:-10])
    ended = line.run("session", "import", str(file))
    assert (ended.code, "line 1 is not JSON" in ended.error) == (2, True)
    assert line.run("session", "show", f"{session}-other").code == 1
    file.write_text("[]")
    assert "name the SESSION" in line.run("session", "import", str(file)).error


def lines_of_parts(session: str, parts: int) -> str:
    """Checkpoints of which two fill a message, under ids of another session."""
    data = {"text": "x" * 440_000}
    fields = {"name": "n", "timestamp": "2026-11-24T12:00:00Z", "data": data}
    return "".join(
        json.dumps({"id": f"{session}-from:{n}", **fields}) + "\n" for n in range(1, 2 * parts + 1)
    )


def test_an_import_that_was_killed_resumes_and_imports_nothing_twice(line: CommandLine, session: str) -> None:
    file = line.directory / "large.jsonl"
    file.write_text(lines_of_parts(session, 8))
    begun = line.start("session", "import", session, str(file))
    try:
        said = begun.until("pass --resume")
        identifier = said.split()[-1]
        while line.run("session", "show", session).code:
            assert begun.process.poll() is None
        begun.process.send_signal(signal.SIGKILL)
        begun.wait()
    finally:
        begun.end()
    ended = line.run("session", "import", session, str(file), "--resume", identifier, "-o", "json")
    assert ended.code == 0
    assert ended.json["imported"] + 2 * ended.json["repeated"] == 16
    assert ended.json["repeated"] >= 1
    rows = line.run("session", "show", session, "-o", "json").json
    assert [row["imported_id"] for row in rows[::-1]] == [f"{session}-from:{n}" for n in range(1, 17)]


@pytest.mark.parametrize("to_file", [["SESSION"], ["--all"]], ids=["one session", "many"])
def test_an_export_that_was_killed_leaves_no_file_that_looks_whole(
    line: CommandLine, session: str, to_file: list[str]
) -> None:
    create(line, session, "a", "b")
    chosen = [session] if to_file == ["SESSION"] else to_file
    file = line.directory / "out.jsonl"
    run_until_killed(line, "os.rename", "out.jsonl.part", 1, "session", "export", *chosen, "--to", str(file))
    assert not file.exists()
    assert line.run("session", "export", *chosen, "--to", str(file)).code == 0
    assert [path.name for path in line.directory.iterdir()] == ["out.jsonl"]
    assert f"{session}:2" in file.read_text()


def test_a_rollback_that_was_killed_before_its_result_ends_well_when_started_again(
    own: CommandLine, session: str
) -> None:
    worker = own.start("worker")
    try:
        worker.until("worker_ready")
        create(own, session, "a", "b", "c")
        worker.stop()
    finally:
        worker.end()
    rollback = ("session", "rollback", f"{session}:1", "--discard-later", "--yes", "-o", "json")
    killed = own.start(*rollback, "--timeout", "60")
    try:
        while commands_in(own) < 4:
            assert killed.process.poll() is None
        killed.stop(signal.SIGKILL)
    finally:
        killed.end()
    worker = own.start("worker")
    try:
        worker.until("worker_ready")
        ended = own.run(*rollback, "--timeout", "60")
        assert ended.code == 0, ended.err
        assert ended.json["type"] == EventType.ROLLED_BACK
        (left,) = own.run("session", "show", session, "-o", "json").json
        assert left["id"] == f"{session}:1"
    finally:
        worker.end()


def test_a_refused_part_ends_the_import_and_is_named(line: CommandLine, session: str) -> None:
    create(line, session, "a")
    file = line.directory / "s.jsonl"
    file.write_text(
        line.run("session", "export", session, "-o", "jsonl").out + lines_of_parts(session, 1) * 2
    )
    ended = line.run("session", "import", session, str(file), "--on-conflict", "reject")
    assert ended.code == 1
    refusal = ended.err.splitlines()[-1]
    assert "part 1 of" in refusal
    assert "was refused, conflict: " in refusal
    assert len(line.run("session", "export", session).json) == 1


def test_a_copy_and_a_fork_that_were_killed_end_well_when_started_again(
    line: CommandLine, session: str
) -> None:
    file = line.directory / "large.jsonl"
    file.write_text(lines_of_parts(session, 5).replace(f"{session}-from:", f"{session}:"))
    assert line.run("session", "import", session, str(file)).code == 0
    wanted = [f"{session}:{n}" for n in range(1, 11)]
    for command in (
        ("copy", session, "--as", f"{session}-copy"),
        ("fork", f"{session}:10", f"{session}-fork"),
    ):
        name = command[-1]
        begun = line.start("session", *command)
        try:
            while line.run("session", "show", name).code:
                assert begun.process.poll() is None
            begun.stop(signal.SIGKILL)
        finally:
            begun.end()
        ended = line.run("session", *command, "-o", "json")
        assert ended.code == 0, ended.err
        assert ended.json["imported"] + 2 * ended.json["repeated"] == 10
        assert ended.json["repeated"] >= 1
        rows = line.run("session", "show", name, "-o", "json").json
        assert [row["imported_id"] for row in rows[::-1]] == wanted


@pytest.mark.parametrize("to_file", [True, False], ids=["file", "standard output"])
def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing(
    line: CommandLine, session: str, to_file: bool
) -> None:
    fields = {"name": "n", "data": {"text": "x" * 300_000}}
    text = "".join(json.dumps({"session": session, **fields}) + "\n" for _ in range(3))
    assert line.run("publish", "--stdin", "--wait", stdin=text).code == 0
    arguments = ["--to", "out.json"] if to_file else []
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*WAYPOST, "session", "export", session, *arguments],
            check=False,
            cwd=line.directory,
            env=environment(line.settings),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            # For a file, the disk of this process is full after 100 KB.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        )
    assert ended.returncode == 1
    (said,) = ended.stderr.splitlines()
    file, stdout = "File too large; no partial file is left", "No space left on device"
    what = f"out.json can't be written: {file}" if to_file else f"standard output can't be written: {stdout}"
    assert said == f"waypost: {what}"
    assert list(line.directory.iterdir()) == []
