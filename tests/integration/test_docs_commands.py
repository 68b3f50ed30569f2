"""Every command on the pages about sessions and snapshots runs as it is written there."""

import json
import re
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.support.cli import WAYPOST, CommandLine, Started, environment
from tests.support.worker_deployment import create, own, own_worker

from waypost_worker.devserver import Servers

__all__ = ["own", "own_worker"]
DOCS = Path(__file__).parents[2] / "docs"
_SHELL = re.compile(r"[|><&]")


def commands(page: str) -> list[str]:
    """The lines of its code blocks that begin with ``waypost``, without comments. Blocks of output have none."""
    # Fences of every kind, so that none that ends a block is taken for one that begins the next.
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    typed = [block for kind, block in blocks if kind in ("", "sh")]
    lines = [line for block in typed for line in block.splitlines() if line.startswith("waypost ")]
    return [line.partition("  #")[0].strip() for line in lines]


def run_all(line: CommandLine, page: str, here: Mapping[str, str]) -> list[str]:
    """Run them in order, with the page's names replaced by what is ``here``; what was run."""
    shim = line.directory / "bin" / "waypost"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(WAYPOST)} "$@"\n')
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    done = []
    for written in commands(page):
        text = written
        for name, value in here.items():
            text = text.replace(name, value)
        if text.startswith("waypost worker "):
            worker = line.start(*shlex.split(text)[1:])
            try:
                worker.until("worker_ready")
                assert worker.stop().code == 0
            finally:
                worker.end()
        elif _SHELL.search(text):
            settings = environment(line.settings)
            settings["PATH"] = f"{shim.parent}:{settings['PATH']}"
            shell = ["bash", "-ec", f"set -o pipefail; {text}"]
            ended = subprocess.run(
                shell, check=False, cwd=line.directory, env=settings, capture_output=True, text=True
            )
            assert ended.returncode == 0, (written, ended.stderr)
        else:
            outcome = line.run(*shlex.split(text)[1:])
            assert outcome.code == 0, (written, outcome.out, outcome.err)
        done.append(written)
    return done


def test_the_page_on_sessions(own: CommandLine, own_worker: Started, servers: Servers) -> None:
    create(own, "session-1", *(f"step-{number}" for number in range(13)))
    create(own, "team-a/1", "n")
    own.run("publish", "session-1", "--type", "pin", "--body", '{"checkpoint_id": "session-1:99"}', "--wait")
    (refused,) = own.run("rejected", "list", "-o", "jsonl").rows
    (own.directory / "fixed.json").write_text('{"checkpoint_id": "session-1:12"}')
    prefix = f"{own.settings['WAYPOST_TOPIC_PREFIX']}-other"
    (own.directory / "other.toml").write_text(f'topic_prefix = "{prefix}"\n')
    # Where the other deployment keeps its state is of no concern to a copy: a schema beside this one will do.
    other = replace(
        own,
        settings={
            **own.settings,
            "WAYPOST_TOPIC_PREFIX": prefix,
            "WAYPOST_GROUP_ID": prefix,
            "WAYPOST_POSTGRES_SCHEMA": "other",
            "WAYPOST_MIGRATE": "true",
        },
    )
    assert other.run("topics", "create", "--partitions", "2", "--skip-zombie-test").code == 0
    second = other.start("worker", "--schema", "other")
    try:
        second.until("worker_ready")
        done = run_all(
            own,
            "sessions.md",
            {
                "other:9092 --to-topic-prefix waypost": f"{own.settings['WAYPOST_BOOTSTRAP_SERVERS']} "
                f"--to-topic-prefix {prefix}",
                "2/1841": refused["place"],
            },
        )
        assert other.run("session", "show", "session-1:1", "-o", "json").json["name"] == "step-0"
    finally:
        second.end()
    assert len(done) >= 20
    assert own.run("session", "show", "session-1:12", "-o", "json").json["pinned"] is True
    gone = own.run("session", "show", "session-1:13")
    assert (gone.code, "neither a session nor a checkpoint" in gone.error) == (1, True)
    archive = subprocess.run(
        ["gzip", "-dc", own.directory / "team-a.jsonl.gz"], capture_output=True, check=True
    )
    assert json.loads(archive.stdout)["id"] == "team-a/1:1"


def test_a_pipe_from_export_to_import_carries_a_session(own: CommandLine, own_worker: Started) -> None:
    create(own, "session-1", "a", "b")
    waypost = shlex.join(WAYPOST)
    started = [
        subprocess.Popen(
            [
                "bash",
                "-ec",
                f"{waypost} session export session-1 {flags} | {waypost} session import {copy} - -o json",
            ],
            cwd=own.directory,
            env=environment(own.settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        for flags, copy in (("", "from-a-list"), ("-o jsonl", "from-lines"))
    ]
    for process in started:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, json.loads(out)["imported"]) == (0, 2)


def test_the_page_on_snapshots(own: CommandLine, own_worker: Started, servers: Servers) -> None:
    create(own, "session-1", "a", "b")
    assert own_worker.stop().code == 0
    settings = {**own.settings, "WAYPOST_SNAPSHOTS": str(own.directory / "snapshots")}
    line = replace(own, settings=settings)
    name = f"new_{own.settings['WAYPOST_TOPIC_PREFIX'][-12:]}"
    dsn = servers.postgres.create_database(name)
    try:
        here = {
            "postgresql://new/waypost": dsn,
            "20261124T120000000Z-1a2b3c": line.run("snapshot", "create", "-o", "json").json["name"],
            "2026-11-24T15:30:00Z": datetime.now(UTC).isoformat(),
        }
        done = run_all(line, "snapshots.md", here)
        assert len(done) >= 8
        shown = line.run("session", "show", "session-1:2", "--postgres-dsn", dsn, "-o", "json").json
        assert shown["name"] == "b"
    finally:
        servers.postgres.drop_database(name)
