"""What every command promises: help with examples, exit codes, one line for a failure, never a traceback."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App
from tests.support.cli import WAYPOST, CommandLine, environment

from waypost_worker.cli.app import COMMANDS, build, main

NAMES = [(name, path, said) for listed in COMMANDS.values() for name, path, said in listed]
SUBCOMMANDS = {
    "topics": ("create", "drained", "check", "update", "adopt", "acls"),
    "session": (
        "list",
        "show",
        "timeline",
        "diff",
        "export",
        "import",
        "copy",
        "fork",
        "policy",
        "rollback",
    ),
    "import": ("langgraph",),
    "commands": ("skip",),
    "keys": ("create-wrapping-key", "init", "list", "show", "rotate"),
    "authority": ("create-key", "show", "set", "remove"),
    "rejected": ("list", "show", "retry", "purge"),
    "results": ("accept", "foreign"),
    "spool": ("drain",),
    "snapshot": ("create", "list", "check", "restore", "prune"),
    "config": ("show",),
    "schema": ("export", "check"),
}
ALL = [
    [name, *rest]
    for name, _, _ in NAMES
    for rest in ([[sub] for sub in SUBCOMMANDS[name]] if name in SUBCOMMANDS else [[]])
]


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code, out, err = run(capsys, *arguments)
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("waypost: ")
    return code, line


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name, _, said in NAMES:
        assert name in out
        assert said in out


def test_help_needs_no_command_and_no_client_library() -> None:
    script = (
        "import sys; from waypost_worker.cli.app import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'aiokafka', 'asyncpg', 'pydantic', 'structlog', 'waypost_worker.devserver'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[]"


@pytest.mark.parametrize(("name", "path", "said"), NAMES, ids=[name for name, _, _ in NAMES])
def test_the_list_says_what_the_command_itself_says(name: str, path: str, said: str) -> None:
    module, _, attribute = path.partition(":")
    found = getattr(importlib.import_module(f"waypost_worker.cli.{module}"), attribute)
    text = found.help if isinstance(found, App) else found.__doc__
    assert text.splitlines()[0] == said


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_of_a_command_has_examples_and_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert f"\n  waypost {' '.join(command)}" in out.partition("For example:")[2]
    assert max(len(line) for line in out.splitlines()) <= 80


@pytest.mark.parametrize("command", sorted(SUBCOMMANDS))
def test_the_subcommands_are_those_of_the_contract(command: str) -> None:
    found = build(command)[command]
    assert {name for name in found if not name.startswith("-")} == set(SUBCOMMANDS[command])


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert "Usage: waypost COMMAND" in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from waypost import __version__

    assert run(capsys, "--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--version"], ["schema", "--help"]], ids=" ".join)
def test_python_m_waypost_is_the_command_line(tmp_path: Path, arguments: list[str]) -> None:
    def output(*command: str) -> str:
        started = [*command, *arguments]
        return subprocess.run(
            started, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment()
        ).stdout

    assert output(sys.executable, "-m", "waypost") == output(*WAYPOST)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], 'Unknown command "nonsense"'),
        (["session", "nonsense"], 'Unknown command "nonsense"'),
        (["session", "list", "--limt", "3"], "Unknown option: --limt. Did you mean --limit?"),
        (["session", "list", "--limit", "x"], "--limit"),
        (["session", "list", "--limit", "0"], "Must be >= 1"),
        (["session", "show"], "requires an argument"),
        (["session", "rollback", "nope"], "looks like session:number"),
        (["session", "import", "s", "/does/not/exist"], "can't be read"),
        (["rejected", "show", "nope"], "looks like partition/offset"),
        (["rejected", "show", "99999999999/1"], "looks like partition/offset"),
        (["rejected", "retry"], "say which"),
        (["rejected", "retry", "--all", "--code", "x"], "say which"),
        (["rejected", "retry", "1/2", "1/3", "--value", "x"], "replaces one command"),
        (["rejected", "purge"], "say which"),
        (["rejected", "purge", "--older-than", "soon"], "is not an age"),
        (["rejected", "purge", "--since", "yesterday"], "not an RFC 3339 time"),
        (["snapshot", "create"], "say where snapshots are"),
        (["snapshot", "prune", "--keep", "0"], "Must be >= 1"),
        (["session", "export"], "name a SESSION"),
        (["session", "export", "--all", "-o", "json"], "use -o jsonl"),
        (["session", "copy", "s"], "onto itself"),
        (["session", "fork", "s:1", "s"], "its own session id"),
        (["tail", "--since", "yesterday"], "not an RFC 3339 time"),
        (["tail", "--type", "nonsense"], "there are created, "),
        (["tail", "--since", "2026-11-24T08:00:00Z", "--from-beginning"], "contradict"),
        (["tail", "-n", "0"], "Must be >= 1"),
        (["dev", "--ephemeral", "--state-dir", "x"], "can't be combined"),
        (["dev", "--workers", "-1"], "Must be >= 0"),
        (["dev", "--partitions", "0"], "Must be >= 1"),
        (["defaults"], "name at least one field"),
        (["defaults", "--max-checkpoints", "1"], "max_checkpoints"),
        (["defaults", "--max-age", "5", "--no-max-age"], "contradict"),
        (["topics", "create", "--partitions", "0"], "Must be >= 1"),
        (["session", "list", "-o", "yaml"], "yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, line = fails(capsys, *arguments)
    assert code == 2
    assert said in line


def test_a_usage_error_names_the_help_of_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "session", "list", "--nope")[1].endswith("See 'waypost session list --help'.")


def break_tail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    async def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("waypost_worker.cli.tail._tail", broken)


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_tail(monkeypatch, RuntimeError("on\ntwo lines"))
    assert fails(capsys, "tail") == (
        1,
        "waypost: RuntimeError: on two lines (run again with --debug for the traceback)",
    )


def test_with_debug_the_traceback_comes_first_and_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_tail(monkeypatch, RuntimeError("boom \x1b[2J\x9b\u202e"))
    code, out, err = run(capsys, "--debug", "tail")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("waypost: RuntimeError: boom")
    assert err.replace("\n", "").isprintable()


def test_an_endless_argument_is_not_said_again_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["tail", "--since"],
        ["tail", "--type"],
        ["rejected", "list", "--older-than"],
        ["session", "show"],
    ):
        code, line = fails(capsys, *arguments, "x\x9b\u202e" * 30_000)
        assert code in (1, 2)
        assert len(line) < 5000
        assert line.isprintable()


BASH = """
source <("$@" completion bash)
COMP_WORDS=({words}) COMP_CWORD={place}
_waypost
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("waypost ses", ["session"]),
        ("waypost session time", ["timeline"]),
        ("waypost session list --lim", ["--limit"]),
    ],
)
def test_a_shell_completes_commands_and_flags(tmp_path: Path, words: str, completed: list[str]) -> None:
    script = BASH.format(words=words, place=len(words.split()) - 1)
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *WAYPOST],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert (ended.stdout.split(), ended.stderr) == (completed, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, err = run(capsys, "completion", shell)
    assert (code, err) == (0, "")
    assert all(name in out for name, _, _ in NAMES)


def test_wide_is_a_flag_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("config", "show", "--postgres-dsn", "postgresql://db/" + 100 * "x")
    folded, wide, folded_again = (run(capsys, *more, *arguments)[1] for more in ((), ("--wide",), ()))
    assert "postgresql://db/" + 100 * "x" in wide
    assert max(len(line) for line in folded.splitlines()) <= 80
    assert folded_again == folded


def test_ctrl_c_ends_a_command_without_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("waypost_worker.cli.config.show_rows", interrupted)
    assert run(capsys, "config", "show") == (130, "", "")


def test_a_closed_pipe_is_not_a_failure(tmp_path: Path) -> None:
    import subprocess

    process = subprocess.Popen(
        [*WAYPOST, "config", "show"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 0


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    assert CommandLine(tmp_path, {}).start("--version").wait().code == 0
