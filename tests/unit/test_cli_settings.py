"""Where a command's settings come from, and what wrong ones get."""

import errno
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from waypost_worker.cli.app import main
from waypost_worker.cli.support.connections import postgres_errors
from waypost_worker.cli.support.options import Common
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import SettingsError, load_settings
from waypost_worker.devserver import Endpoints

DEV = Endpoints("127.0.0.1:1111", "postgresql://dev:secret@127.0.0.1:2222/waypost")


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("BOOTSTRAP_SERVERS", "POSTGRES_DSN", "TOPIC_PREFIX", "STATE_DIR", "CONFIG_FILE"):
        monkeypatch.delenv(f"WAYPOST_{name}", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict[str, Any]]:
    code, out, err = run(capsys, "config", "show", "-o", "json", *flags)
    assert (code, err) == (0, "")
    return {row["setting"]: row for row in json.loads(out)}


def test_the_first_source_that_names_it_wins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "waypost.toml").write_text(
        'bootstrap_servers = "file:1"\ntopic_prefix = "file"\ngroup_id = "file"\n'
    )
    monkeypatch.setenv("WAYPOST_BOOTSTRAP_SERVERS", "variable:1")
    monkeypatch.setenv("WAYPOST_TOPIC_PREFIX", "variable")
    found = shown(capsys, "--bootstrap-servers", "flag:1")
    assert (found["bootstrap_servers"]["value"], found["bootstrap_servers"]["from"]) == ("flag:1", "flag")
    assert (found["topic_prefix"]["value"], found["topic_prefix"]["from"]) == (
        "variable",
        "WAYPOST_TOPIC_PREFIX",
    )
    assert (found["group_id"]["value"], found["group_id"]["from"]) == ("file", "waypost.toml")
    assert found["log_level"]["from"] == "default"


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_secrets_are_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setenv("WAYPOST_POSTGRES_DSN", "postgresql://me:hush@db/x?password=hush2")
    code, out, _ = run(capsys, "config", "show", "-o", output)
    assert code == 0
    assert "hush" not in out
    assert "***" in out


def test_the_table_fits_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "config", "show", "--postgres-dsn", "postgresql://db/" + 60 * "x")
    assert max(len(line) for line in out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({}, ["--bootstrap-servers", "nope"], "--bootstrap-servers: 'nope' is not host:port"),
        ({"WAYPOST_BOOTSTRAP_SERVERS": "nope"}, [], "WAYPOST_BOOTSTRAP_SERVERS: 'nope' is not host:port"),
        ({"WAYPOST_TOPIC_PREFIX": "no/pe"}, [], "WAYPOST_TOPIC_PREFIX"),
        ({"WAYPOST_BATCH_RECORDS": "many"}, [], "WAYPOST_BATCH_RECORDS"),
        ({"WAYPOST_BOOTSTRAP_SERVER": "a:1"}, [], "not a setting. Did you mean WAYPOST_BOOTSTRAP_SERVERS?"),
        ({"WAYPOST_NONSENSE": "1"}, [], "WAYPOST_NONSENSE is not a setting. List all settings with: waypost"),
        ({"WAYPOST_CONFIG_FILE": "missing.toml"}, [], "missing.toml, which does not exist"),
    ],
)
@pytest.mark.parametrize("command", [["config", "show"], ["session", "list"], ["worker"], ["doctor"]])
def test_wrong_settings_are_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    said: str,
    command: list[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out, err = run(capsys, *command, *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert said in line


def test_a_mistyped_key_of_the_file_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "waypost.toml").write_text('bootstrap_server = "a:1"\n')
    code, _, err = run(capsys, "config", "show")
    assert code == 2
    assert "'bootstrap_server' is not a setting. Did you mean bootstrap_servers?" in err


def test_an_invalid_dsn_is_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "session", "list", "--postgres-dsn", "http://me:hush@db/x")
    assert (code, out) == (2, "")
    assert "can't be used" in err
    assert "hush" not in err
    assert len(err.splitlines()) == 1


# A dev server nearby.


def announce(directory: Path) -> None:
    directory.mkdir()
    DEV.write(directory)


def test_a_dev_server_in_this_directory_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    announce(tmp_path / ".waypost")
    found = shown(capsys)
    assert found["bootstrap_servers"]["value"] == DEV.bootstrap_servers
    assert found["bootstrap_servers"]["from"] == found["postgres_dsn"]["from"] == ".waypost/endpoints.json"
    assert found["postgres_dsn"]["value"] == "postgresql://dev:***@127.0.0.1:2222/waypost"


def test_a_dev_server_elsewhere_is_found_by_a_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    announce(tmp_path / "elsewhere")
    monkeypatch.setenv("WAYPOST_STATE_DIR", "elsewhere")
    assert Common().settings().bootstrap_servers == DEV.bootstrap_servers


@pytest.mark.parametrize("configured", ["flag", "variable", "file"])
def test_naming_one_server_leaves_out_both_of_a_dev_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configured: str
) -> None:
    announce(tmp_path / ".waypost")
    common = Common(bootstrap_servers="other:1") if configured == "flag" else Common()
    if configured == "variable":
        monkeypatch.setenv("WAYPOST_BOOTSTRAP_SERVERS", "other:1")
    if configured == "file":
        (tmp_path / "waypost.toml").write_text('bootstrap_servers = "other:1"\n')
    settings = common.settings()
    assert settings.bootstrap_servers == "other:1"
    assert settings.postgres_dsn.get_secret_value() == "postgresql://localhost/waypost"


def test_a_prefix_goes_together_with_a_dev_server(tmp_path: Path) -> None:
    announce(tmp_path / ".waypost")
    settings = Common(topic_prefix="mine").settings()
    assert (settings.topic_prefix, settings.bootstrap_servers) == ("mine", DEV.bootstrap_servers)


def test_unreadable_endpoints_are_reported(tmp_path: Path) -> None:
    announce(tmp_path / ".waypost")
    (tmp_path / ".waypost" / "endpoints.json").write_text("{")
    with pytest.raises(SettingsError, match=r"endpoints\.json can't be read"):
        Common().settings()


async def test_without_servers_the_error_says_how_to_name_them() -> None:
    with pytest.raises(CommandError, match="no server is named"):
        async with postgres_errors(load_settings()):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    with pytest.raises(CommandError, match="'waypost config show' says where"):
        async with postgres_errors(load_settings(postgres_dsn="postgresql://db.example/waypost")):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


async def test_a_connection_that_the_server_ended_under_a_statement_is_reported_as_that() -> None:
    with pytest.raises(CommandError, match="can't be reached: cannot switch to state 15"):
        async with postgres_errors(load_settings()):
            raise asyncpg.InternalClientError(
                "cannot switch to state 15; another operation (2) is in progress"
            )


async def test_the_error_for_a_missing_right_says_what_gives_it() -> None:
    with pytest.raises(CommandError, match="waypost migrate --roles"):
        async with postgres_errors(load_settings()):
            raise asyncpg.InsufficientPrivilegeError("permission denied for schema waypost")
