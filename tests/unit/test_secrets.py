"""Secrets: read from files, shown nowhere, and on no command line."""

import json
import logging
import os
from pathlib import Path
from unittest import mock

import pytest
import structlog
from tests.support.cli import CommandLine, environment
from tests.support.logging_state import logs_as_before

from waypost_worker.cli.worker.app import environments
from waypost_worker.config.settings import Settings, load_settings, masked_dsn, secret_values
from waypost_worker.telemetry.logs import configure_logs

SECRET = "hush/it's@\"all"
DSN = "postgresql://me:hush%2Fit%27s%40%22all@db:5432/x"
LOGIN = {
    "WAYPOST_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "WAYPOST_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "WAYPOST_KAFKA_SASL_USERNAME": "me",
}


def loaded(**variables: str) -> Settings:
    with mock.patch.dict(os.environ, environment(variables), clear=True):
        return load_settings()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Variables that name files with secrets."""
    (tmp_path / "dsn").write_text(DSN + "\n")
    (tmp_path / "password").write_text(SECRET + "\n")
    return {
        **LOGIN,
        "WAYPOST_POSTGRES_DSN_FILE": str(tmp_path / "dsn"),
        "WAYPOST_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
    }


def test_a_secret_can_come_from_a_file(files: dict[str, str]) -> None:
    found = loaded(**files)
    assert found.postgres_dsn.get_secret_value() == DSN
    assert found.kafka_sasl_password is not None
    assert found.kafka_sasl_password.get_secret_value() == SECRET


def test_the_configuration_file_can_name_one_too_and_variables_win(
    tmp_path: Path, files: dict[str, str]
) -> None:
    here = CommandLine(tmp_path, LOGIN | {"WAYPOST_KAFKA_SASL_PASSWORD": "from-a-variable"})
    (tmp_path / "waypost.toml").write_text(
        'postgres_dsn_file = "dsn"\nkafka_sasl_password_file = "missing"\n'
    )
    rows = {row["setting"]: row for row in here.run("config", "show", "-o", "json").json}
    assert (rows["postgres_dsn"]["value"], rows["postgres_dsn"]["from"]) == (masked_dsn(DSN), "waypost.toml")
    assert rows["kafka_sasl_password"]["from"] == "WAYPOST_KAFKA_SASL_PASSWORD"


@pytest.mark.parametrize(("content", "said"), [(None, "can't be read: No such file"), ("\n", "is empty")])
def test_a_file_without_a_secret_is_a_wrong_setting(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    found = CommandLine(tmp_path, LOGIN | {"WAYPOST_KAFKA_SASL_PASSWORD_FILE": str(path)}).run(
        "topics", "check"
    )
    assert found.code == 2
    assert f"kafka_sasl_password_file names {path}, which {said}" in found.error


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_config_show_masks_every_secret(tmp_path: Path, files: dict[str, str], output: str) -> None:
    variables = files | {"WAYPOST_KAFKA_SSL_KEY_PASSWORD": "hush-key"}
    shown = CommandLine(tmp_path, variables).run("config", "show", "-o", output)
    assert shown.code == 0
    assert "hush" not in shown.out + shown.err
    assert "***" in shown.out


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hush@db/x",
        "postgresql://me:hu@sh@db/x",
        "postgresql://me:hu/sh@db/x",
        "postgresql://me:hu?sh@db/x",
        "postgresql://me:hu#sh@db/x",
        "postgresql://me:hu:sh@db/x",
        "postgresql://db/x?user=me&password=hush",
        "postgresql://db/x?sslpassword=hush&sslmode=require",
        "host=db password='hu sh' user=me",
    ],
)
def test_no_part_of_a_password_is_left_in_a_masked_dsn(dsn: str) -> None:
    masked = masked_dsn(dsn)
    assert "***" in masked
    assert "hu" not in masked
    assert "sh@" not in masked


@pytest.mark.parametrize("password", ["hu/sh", "hu@sh", "hu#sh", "hu?sh", "hu[sh"])
def test_a_password_that_breaks_the_dsn_is_an_error_that_does_not_quote_it(
    tmp_path: Path, password: str
) -> None:
    found = CommandLine(tmp_path, {"WAYPOST_POSTGRES_DSN": f"postgresql://me:{password}@127.0.0.1:1/x"}).run(
        "session", "list"
    )
    assert (found.code, found.out) == (2, "")
    assert "write characters such as / ? # @ : in a user's name or password as %2F" in found.error
    assert "hu" not in found.error.replace("such", "")
    assert "'sh" not in found.error


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://db/x",
        "postgresql://me:a%40b@db:5432,other:5433/x?target_session_attrs=read-write",
        "postgresql://[::1]:5432/x",
        "postgresql:///x?host=/var/run/postgresql",
        "postgresql://db/x?sslmode=verify-full&sslrootcert=/etc/ssl/db.pem",
    ],
)
def test_what_a_dsn_may_be(dsn: str) -> None:
    assert loaded(WAYPOST_POSTGRES_DSN=dsn).postgres_dsn.get_secret_value() == dsn


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_log_line_shows_a_secret_whatever_put_it_there(
    files: dict[str, str], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with logs_as_before():
        configure_logs("debug", form, secret_values(loaded(**files)))
        structlog.get_logger("test").warning("careless", said=f"connecting with {SECRET} to {DSN}")
        logging.getLogger("library").error("cannot connect to %s", DSN)
        try:
            raise ValueError(SECRET)
        except ValueError:
            structlog.get_logger("test").exception("failed")
    said = capsys.readouterr().err
    assert "careless" in said
    assert "cannot connect" in said
    for part in (SECRET, json.dumps(SECRET)[1:-1], "hush%2F"):
        assert part not in said


def test_children_find_secrets_where_the_parent_did(files: dict[str, str]) -> None:
    with mock.patch.dict(os.environ, environment(files), clear=True):
        (own,) = environments(load_settings(http_port=0), 1)
        assert not any("hush" in value for value in own.values())
        assert own["WAYPOST_KAFKA_SASL_PASSWORD_FILE"] == files["WAYPOST_KAFKA_SASL_PASSWORD_FILE"]
        with mock.patch.dict(os.environ, own):
            assert load_settings().postgres_dsn.get_secret_value() == DSN
        # A flag's is known to the parent alone. It travels in the environment, which only its user can read.
        (own,) = environments(load_settings(postgres_dsn="postgresql://me:other@db/x"), 1)
        assert own["WAYPOST_POSTGRES_DSN"] == "postgresql://me:other@db/x"
