"""``waypost dev``: what it starts, what it says, and that nothing of it stays behind."""

import json
import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.support.cli import CommandLine, Started, environment
from tests.support.processes import arguments_of, descendants, program_of, wait_until, wait_until_gone
from tests.support.servers import unavailable
from tests.support.timeouts import PATIENCE

READY = "Ctrl-C stops everything."

pytestmark = pytest.mark.servers


class Dev:
    """A running ``waypost dev``."""

    def __init__(self, line: CommandLine, *arguments: str) -> None:
        self.line = line
        self.command: Started = line.start("dev", *arguments)

    def until_ready(self) -> None:
        try:
            self.command.until(READY, 120)
        except AssertionError as error:
            if "could not" in str(error):
                unavailable(str(error))
            raise

    @property
    def pid(self) -> int:
        return self.command.process.pid

    def workers(self) -> list[int]:
        return [
            pid
            for pid in descendants(self.pid)
            if arguments_of(pid)[-1:] == ["waypost_worker.cli.worker.child"]
        ]

    def endpoints(self, directory: str = ".waypost") -> Any:
        return json.loads((self.line.directory / directory / "endpoints.json").read_text())


@pytest.fixture
def tmp_path(server_path: Path) -> Path:
    """A directory for server data: most tests here start their own servers."""
    return server_path


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, {})


@pytest.fixture
def started(line: CommandLine) -> Iterator[Any]:
    running: list[Dev] = []

    def start(*arguments: str) -> Dev:
        running.append(Dev(line, *arguments))
        return running[-1]

    yield start
    for dev in running:
        dev.command.end()


def test_commands_in_the_same_directory_use_it_and_ctrl_c_stops_everything(
    line: CommandLine, started: Any
) -> None:
    dev = started("--workers", "2", "--partitions", "2")
    dev.until_ready()
    # One worker makes everything ready; the second one may still be on its way into its program.
    wait_until(lambda: len(dev.workers()) == 2, PATIENCE)
    everything = descendants(dev.pid)
    assert {"java", "postgres"} <= {program_of(pid) for pid in everything}
    banner = "".join(dev.command.err)
    for said in (*dev.endpoints().values(), "2 workers", "waypost publish session-1"):
        assert said in banner
    program = textwrap.dedent(banner.partition("Or from Python:\n\n")[2].partition("\n\n")[0])
    ran = Started(
        [sys.executable, "-c", program.replace("session-1", "python")], line.directory, environment()
    )
    assert ran.wait(PATIENCE).code == 0
    assert set(dev.endpoints()) == {"bootstrap_servers", "postgres_dsn"}

    assert line.run("topics", "create", "--partitions", "2").code == 0
    created = line.run(
        "publish",
        "session-1",
        "task_started",
        "--data",
        '{"step": 1}',
        "--wait",
        "--timeout",
        "60",
        "-o",
        "json",
    )
    assert created.code == 0
    assert created.json["checkpoint"]["id"] == "session-1:1"
    shown = line.run("session", "show", "session-1:1", "-o", "json")
    assert shown.json["data"] == {"step": 1}
    found = line.run("doctor", "-o", "json")
    assert found.code == 0
    assert [one for one in found.json if one["level"] != "ok"] == [], "its own servers are as they should be"

    ended = dev.command.stop(signal.SIGINT)
    assert ended.code == 0
    assert ended.out == ""
    assert wait_until_gone(everything, PATIENCE) == []
    assert not (line.directory / ".waypost" / "endpoints.json").exists()


def test_state_is_kept_between_runs_and_is_one_run_s_alone(line: CommandLine, started: Any) -> None:
    dev = started("--state-dir", "kept", "--workers", "1")
    dev.until_ready()
    # WAYPOST_STATE_DIR names the directory to every command, to dev itself as well.
    kept = CommandLine(line.directory, {"WAYPOST_STATE_DIR": "kept"})
    assert kept.run("publish", "s", "n", "--wait", "--timeout", "60").code == 0
    second = kept.run("dev")
    assert second.code == 1
    assert "in use by process" in second.err
    assert dev.command.stop().code == 0

    other_count = kept.run("dev", "--partitions", "5")
    assert other_count.code == 1
    assert "'waypost.commands' exists with 3 partitions, not 5" in other_count.err.splitlines()[-1]

    again = started("--state-dir", "kept", "--workers", "0")
    again.until_ready()
    assert again.workers() == []
    found = kept.run("session", "list", "-o", "json").json
    assert [(row["session_id"], row["checkpoints"]) for row in found] == [("s", 1)]

    # A server that ends by itself ends the rest, and says where to look.
    everything = descendants(again.pid)
    (java,) = [pid for pid in everything if program_of(pid) == "java"]
    os.kill(java, signal.SIGKILL)
    ended = again.command.wait()
    assert ended.code == 1
    assert "Kafka ended by itself" in ended.err.splitlines()[-1]
    assert wait_until_gone(everything, PATIENCE) == []


def test_with_json_the_endpoints_are_on_stdout_and_an_ephemeral_run_leaves_nothing(
    line: CommandLine, started: Any
) -> None:
    dev = started("--ephemeral", "--workers", "0", "--topic-prefix", "mine", "-o", "jsonl")
    said = json.loads(dev.command.until("bootstrap_servers", 120))
    state = Path(said["state_dir"])
    assert json.loads((state / "endpoints.json").read_text()) == {
        key: said[key] for key in ("bootstrap_servers", "postgres_dsn")
    }
    assert said["worker_pids"] == []
    # Who reads the endpoints finds topics and schema.
    elsewhere = CommandLine(
        line.directory,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": said["bootstrap_servers"],
            "WAYPOST_POSTGRES_DSN": said["postgres_dsn"],
        },
    )
    assert elsewhere.run("topics", "check", "--topic-prefix", "mine").code == 0
    assert elsewhere.run("migrate", "--dry-run", "-o", "json").json == []
    # The console's link lets one browser in, and the next link is printed.
    with urlopen(said["console"], timeout=PATIENCE) as page:
        assert "You are in" in page.read().decode()
    with pytest.raises(HTTPError, match="401"):
        urlopen(said["console"], timeout=PATIENCE)
    assert said["console"] not in dev.command.until(
        "The link was used. For another browser: http://", PATIENCE
    )
    ended = dev.command.stop()
    assert ended.code == 0
    assert len(ended.rows) == 1
    assert not state.exists()
    assert list(line.directory.iterdir()) == []


def test_a_killed_worker_is_replaced_and_nothing_runs_on_when_dev_is_killed(
    line: CommandLine, started: Any
) -> None:
    dev = started("--workers", "2")
    dev.until_ready()
    wait_until(lambda: len(dev.workers()) == 2, PATIENCE)
    killed, kept = dev.workers()
    os.kill(killed, signal.SIGKILL)
    said = dev.command.until("takes its place")
    assert f"worker {killed} was killed by SIGKILL" in said
    # What takes its place may still be on its way into its program.
    wait_until(lambda: len(dev.workers()) == 2, PATIENCE)
    assert kept in dev.workers()
    assert line.run("publish", "s", "n", "--wait", "--timeout", "60").code == 0

    everything = descendants(dev.pid)
    dev.command.stop(signal.SIGKILL)
    assert wait_until_gone(everything, PATIENCE) == []


def test_a_signal_while_it_starts_ends_it(started: Any) -> None:
    dev = started()
    dev.command.until("starting Kafka")
    everything = descendants(dev.pid)
    ended = dev.command.stop()
    assert ended.code == 0
    assert READY not in ended.err
    assert wait_until_gone(everything, PATIENCE) == []
