"""Every example of every command's --help, as the site shows them, and what pages without a test of their own tell
to type: each runs, on real servers, and ends well.
"""

import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from tests.support.cli import WAYPOST, CommandLine, Started, environment
from tests.support.worker_deployment import create, own, own_worker
from tests.unit.deploy_scripts import script

from waypost_worker.devserver import Servers
from waypost_worker.devserver.postgres_programs import binary

__all__ = ["own", "own_worker"]

pytestmark = pytest.mark.long

DOCS = Path(__file__).parents[2] / "docs"
# Each starts servers of its own: tests/integration/test_cli_dev.py, and the tutorial's; or is the end of its topics:
# tests/integration/test_more_partitions.py.
ELSEWHERE = {
    "waypost dev --open",
    "waypost dev --ephemeral --workers 2 --log-level info",
    "waypost topics adopt --topic-prefix wide --from-topic-prefix waypost",
    "waypost topics drained",
    "waypost topics drained -o json",
    "waypost console --tenant acme",  # tests/integration/test_console_tenant.py
    "waypost console --open",  # tests/integration/test_console.py, without somebody's browser
    # tests/unit/test_cli_app.py, not into somebody's home
    "waypost completion bash > ~/.local/share/bash-completion/completions/waypost",
    "waypost completion zsh > ~/.zfunc/_waypost",
    "waypost completion fish > ~/.config/fish/completions/waypost.fish",
    # tests/integration/test_foreign_results.py
    "waypost results accept 2/1841",
    "waypost results accept 2/1841-1900 --yes",
    # tests/integration/test_langgraph_import.py
    "waypost import langgraph --from postgresql://localhost/agents --dry-run",
    "waypost import langgraph --from checkpoints.sqlite --thread thread-1",
    # tests/integration/test_authority.py, and for commands the runbook's drill
    "waypost topics create --topic-prefix third --authority-key authority.pem",
    "waypost authority set authority.pem",
    "waypost authority set next.pem --authority-key authority.pem",
    "waypost authority remove --authority-key next.pem",
    # tests/integration/test_cli_keys.py
    "waypost keys create-wrapping-key wrapping.key",
    "waypost keys create-wrapping-key wrapping.key --add",
    "waypost keys init",
    "waypost keys list --prefix customer-7/",
    "waypost keys list --erased --limit 0 -o jsonl",
    "waypost keys show session-1",
    "waypost keys rotate --dry-run",
    "waypost keys rotate",
    'waypost commands skip 3 1841 --reason "bug 77" --authority-key next.pem',
}
# The same, of what only pages have.
ELSEWHERE_ON_PAGES = {
    # tests/integration/test_authority.py
    "waypost topics create --authority-key authority.pem",
    "waypost defaults --max-checkpoints 500 --authority-key authority.pem",
    # tests/integration/test_langgraph_import.py
    "waypost import langgraph --from postgresql://agents@db/agents --dry-run",
    "waypost import langgraph --from postgresql://agents@db/agents",
}
# They stay until something comes or until Ctrl-C, which comes when they have said this.
STAYING = {
    "waypost tail --session session-1 --from-beginning": "step-0",
    "waypost tail --type rejected --type duplicate -o jsonl": "unknown-checkpoint",
    "waypost tail -n 1 --name task_done -o json": "task_done",
    "waypost console --port 8700": "The console is at",
}
_SHELL = re.compile(r"[|<]")


@cache
def examples() -> list[str]:
    """In the order of the commands."""
    text = re.sub(r"\\\n\s+", " ", script("reference_cli").sections())
    return [line.strip() for line in text.splitlines() if re.match(r"^  waypost [a-z]", line)]


def elsewhere_on_pages() -> list[str]:
    """What pages tell to type and is no example, but for those whose commands are typed in turn by their own tests:
    tutorial, sessions, snapshots, partitions, encryption, the runbook, and the drills of recovery.
    """
    found = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if page.stem in ("tutorial", "sessions", "snapshots", "partitions", "encryption", "runbook"):
            continue
        for section in re.split(r"^## ", text, flags=re.MULTILINE):
            for block in re.findall(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
                lines = (re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines())
                if not section.startswith("Drill: "):
                    found += [line for line in lines if re.match(r"waypost [a-z]", line)]
    return [one for one in dict.fromkeys(found) if one not in examples()]


def test_there_are_examples() -> None:
    assert len(examples()) > 60
    assert ELSEWHERE | set(STAYING) <= set(examples())
    assert {"waypost verify --sample 0.05 -o json", *ELSEWHERE_ON_PAGES} <= set(elsewhere_on_pages())


class Typing:
    """Types examples in turn, with the names of the page put where something is."""

    def __init__(self, line: CommandLine, here: dict[str, str]) -> None:
        self.line = line
        self.here = here
        self._bin = line.directory / "bin"
        self._bin.mkdir()
        for name, command in (("waypost", WAYPOST), ("psql", (str(binary("psql")),))):
            shim = self._bin / name
            shim.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            shim.chmod(0o755)

    def type(self, example: str) -> None:
        """It must end with exit code 0, but for a doctor that finds the tests' Postgres without fsync."""
        text = example
        for name, value in self.here.items():
            text = text.replace(name, value)
        arguments = shlex.split(text)[1:]
        if arguments[0] == "worker":
            self._worker(arguments)
        elif example in STAYING:
            self._until_told(arguments, STAYING[example])
        elif _SHELL.search(text):
            self._shell(example, text)
        else:
            ended = self.line.run(*arguments)
            allowed = (0, 1) if arguments[0] == "doctor" else (0,)
            assert ended.code in allowed, (example, ended.out, ended.err)

    def _worker(self, arguments: list[str]) -> None:
        worker = self.line.start(*arguments)
        try:
            worker.until("worker_ready")
            assert worker.stop().code == 0
        finally:
            worker.end()

    def _until_told(self, arguments: list[str], word: str) -> None:
        started = self.line.start(*arguments)
        try:
            while not _said(started, word):
                # Whoever watches from now on sees only what comes now.
                create(self.line, "team-a/3", "task_done")
                refuse(self.line)
            if "-n" not in arguments:
                started.process.send_signal(signal.SIGINT)
            assert started.wait().code == 0
        finally:
            started.end()

    def _shell(self, example: str, text: str) -> None:
        settings = environment(self.line.settings)
        settings["PATH"] = f"{self._bin}:{settings['PATH']}"
        ended = subprocess.run(
            ["bash", "-ec", text if text.startswith("waypost doctor") else f"set -o pipefail; {text}"],
            check=False,
            cwd=self.line.directory,
            env=settings,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, (example, ended.stdout, ended.stderr)


def test_every_example_runs(own: CommandLine, own_worker: Started, servers: Servers) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not here")
    prefix = own.settings["WAYPOST_TOPIC_PREFIX"]
    dsn = own.settings["WAYPOST_POSTGRES_DSN"]
    made = [f"{name}_{prefix[-12:]}" for name in ("rebuilt", "new")]
    rebuilt, new = (servers.postgres.create_database(name) for name in made)
    settings = {**own.settings, "WAYPOST_SNAPSHOTS": str(own.directory / "snapshots")}
    line = replace(own, settings=settings)
    other = _other(line, prefix)
    second = other.start("worker", "--schema", "other")
    try:
        second.until("worker_ready")
        place = _prepare(line)
        typing = Typing(
            line,
            {
                "kafka:9092": line.settings["WAYPOST_BOOTSTRAP_SERVERS"],
                "other:9092": f"{line.settings['WAYPOST_BOOTSTRAP_SERVERS']} --to-topic-prefix {prefix}-other",
                "--http-port 9464": "--http-port 0",
                "postgresql://waypost@db/waypost": dsn,
                "--dbname waypost": f"--dbname {dsn}",
                "postgresql://db/rebuilt": rebuilt,
                "postgresql://new/waypost": new,
                "--topic-prefix second --dry-run": f"--topic-prefix {prefix}-second --dry-run",
                "--topic-prefix second": f"--topic-prefix {prefix}-second --partitions 2",
                "--partitions 24": "--partitions 2",
                "2/1841": place,
                "--emit-to copy.results": f"--emit-to {prefix}-copy.results",
                "restore --at": f"restore --postgres-dsn {new} --at",
                "/var/backups/waypost": str(own.directory / "snapshots"),
                "s3://bucket/waypost": str(own.directory / "more"),
                "/var/lib/my-agent/spool": str(own.directory / "spool"),
                "results foreign --partition 2": "results foreign --partition 1",
            },
        )
        wrong = []
        for example in [*examples(), *elsewhere_on_pages()]:
            if example not in ELSEWHERE | ELSEWHERE_ON_PAGES:
                _before(typing, example)
                try:
                    typing.type(example)
                except AssertionError as error:
                    wrong.append(error)
        assert not wrong, "\n".join(map(str, wrong))
    finally:
        second.end()
        for name in made:
            servers.postgres.drop_database(name)


def _other(line: CommandLine, prefix: str) -> CommandLine:
    """Another deployment, to copy to: its state is in a schema beside."""
    (line.directory / "other.toml").write_text(f'topic_prefix = "{prefix}-other"\n')
    more = {
        "WAYPOST_TOPIC_PREFIX": f"{prefix}-other",
        "WAYPOST_GROUP_ID": f"{prefix}-other",
        "WAYPOST_POSTGRES_SCHEMA": "other",
        "WAYPOST_MIGRATE": "true",
    }
    other = replace(line, settings={**line.settings, **more})
    assert other.run("topics", "create", "--partitions", "2", "--skip-zombie-test").code == 0
    return other


def _prepare(line: CommandLine) -> str:
    """What the examples take for granted; the place of a refused command."""
    create(line, "session-1", *(f"step-{number}" for number in range(20)))
    create(line, "team-a/1", "task_done")
    create(line, "trip-to-rome", "plan_made")
    (line.directory / "spool").mkdir(mode=0o700)
    (line.directory / "report.json").write_text('{"pages": 3}')
    (line.directory / "fixed.json").write_text('{"checkpoint_id": "session-1:12"}')
    (line.directory / "commands.jsonl").write_text('{"session": "team-a/2", "name": "n", "data": {}}\n')
    return refuse(line)


def refuse(line: CommandLine) -> str:
    """The place of a command that was refused just now."""
    body = '{"checkpoint_id": "session-1:99"}'
    line.run("publish", "session-1", "--type", "pin", "--body", body, "--wait")
    return str(line.run("rejected", "list", "-o", "jsonl").rows[0]["place"])


def _said(started: Started, word: str) -> bool:
    return any(word in said for said in [*started.out, *started.err])


def _before(typing: Typing, example: str) -> None:
    """What must have happened just before some of them."""
    if example == "waypost verify --schema rebuilt":
        assert typing.line.run("replay", "--schema", "rebuilt").code == 0
    if "rejected retry --since" in example:
        # What would be refused again is no good end.
        assert typing.line.run("rejected", "purge", "--code", "unknown-checkpoint", "--yes").code == 0
    if "2/1841" in example:
        typing.here["2/1841"] = refuse(typing.line)
    if "snapshot" in example:
        place = Path(typing.here["s3://bucket/waypost" if "s3://" in example else "/var/backups/waypost"])
        if not place.exists():
            assert typing.line.run("snapshot", "create", "--at", str(place)).code == 0
        typing.here["20261124T120000000Z-1a2b3c"] = min(one.name for one in place.iterdir())
    if example == "waypost schema check":
        assert typing.line.run("schema", "export", "--directory", "schemas/json").code == 0
