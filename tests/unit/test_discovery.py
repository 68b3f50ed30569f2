"""A client without arguments connects to what the command line finds in the same place."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

import waypost
from waypost.adapters.backend import Backend
from waypost.discovery import Deployment, find_deployment
from waypost.endpoints import Endpoints
from waypost.errors import SettingsError
from waypost_worker.cli.support.options import Common
from waypost_worker.config.kafka import kafka_security
from waypost_worker.config.settings import Settings
from waypost_worker.devserver import DevServerError
from waypost_worker.devserver.ports import Port

DEV = Endpoints("127.0.0.1:1111", "postgresql://dev:secret@127.0.0.1:2222/waypost")
LOGIN = {
    "WAYPOST_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "WAYPOST_KAFKA_SASL_MECHANISM": "PLAIN",
    "WAYPOST_KAFKA_SASL_USERNAME": "agent",
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith("WAYPOST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("dev", [False, True], ids=["no dev server", "dev server"])
@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({}, ""),
        ({"WAYPOST_BOOTSTRAP_SERVERS": "variable:1"}, ""),
        ({"WAYPOST_POSTGRES_DSN": "postgresql://variable/x"}, 'bootstrap_servers = "file:1"'),
        ({"WAYPOST_BOOTSTRAP_SERVERS": ""}, ""),
        ({"WAYPOST_TOPIC_PREFIX": "variable"}, 'topic_prefix = "file"\npostgres_schema = "file"'),
        ({}, 'bootstrap_servers = "file:1"\npostgres_dsn = "postgresql://file/x postgresql://file/y"'),
        ({"WAYPOST_POSTGRES_DSN_FILE": "dsn"}, 'postgres_dsn = "postgresql://file/x"'),
        ({}, 'postgres_dsn_file = "dsn"'),
        ({**LOGIN, "WAYPOST_KAFKA_SASL_PASSWORD_FILE": "password"}, ""),
        ({**LOGIN, "WAYPOST_KAFKA_SASL_PASSWORD": "shown"}, 'kafka_sasl_password = "not"'),
        (LOGIN, 'kafka_sasl_password_file = "password"'),
        ({"WAYPOST_CONFIG_FILE": "other.toml"}, 'bootstrap_servers = "not:1"'),
        ({"WAYPOST_STATE_DIR": "elsewhere"}, ""),
    ],
)
def test_it_is_what_the_command_line_finds(
    here: Path, monkeypatch: pytest.MonkeyPatch, dev: bool, variables: Mapping[str, str], file: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file:
        (here / "waypost.toml").write_text(file)
    (here / "other.toml").write_text('bootstrap_servers = "other:1"')
    (here / "dsn").write_text("postgresql://secret/x\n")
    (here / "password").write_text("from a file\n")
    if dev:
        (here / ".waypost").mkdir()
        DEV.write(here / ".waypost")
    settings = Common().settings()
    assert find_deployment() == Deployment(
        settings.bootstrap_servers,
        settings.postgres_dsn.get_secret_value(),
        settings.topic_prefix,
        settings.postgres_schema,
        kafka_security(settings),
    )


@pytest.mark.parametrize(
    ("variables", "file", "said"),
    [
        ({"WAYPOST_CONFIG_FILE": "no.toml"}, None, "WAYPOST_CONFIG_FILE names no.toml, which does not exist"),
        ({}, "topic_prefix = [", r"waypost.toml can't be read as TOML"),
        ({}, "topic_prefix = 3", "topic_prefix in waypost.toml must be a string"),
        ({"WAYPOST_POSTGRES_DSN_FILE": "gone"}, None, "postgres_dsn_file names gone, which can't be read"),
        (LOGIN, None, "needs kafka_sasl_username and kafka_sasl_password"),
    ],
)
def test_unusable_files_are_reported_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], file: str | None, said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file is not None:
        (here / "waypost.toml").write_text(file)
    with pytest.raises(SettingsError, match=said) as refused:
        waypost.Publisher()
    assert "\n" not in str(refused.value)


def test_what_looks_like_a_mistyped_setting_is_logged(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WAYPOST_BOOTSTRAP_SERVER", "a:1")
    (here / "waypost.toml").write_text('postgres_dns = "postgresql://a/b"')
    find_deployment()
    assert [record.getMessage() for record in caplog.records] == [
        "'postgres_dns' in waypost.toml is ignored, as it is not a setting. Did you mean postgres_dsn?",
        "WAYPOST_BOOTSTRAP_SERVER is ignored, as it is not a setting. Did you mean WAYPOST_BOOTSTRAP_SERVERS?",
    ]


def test_a_setting_of_workers_is_not_taken_for_a_mistyped_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (*Settings.model_fields, "state_dir", "cache_dir", "config_file", "maven_repository"):
        monkeypatch.setenv(f"WAYPOST_{name}".upper(), "")  # which is set, and changes nothing
    find_deployment()
    assert caplog.records == []


async def test_every_client_connects_to_what_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / ".waypost").mkdir()
    DEV.write(here / ".waypost")
    monkeypatch.setenv("WAYPOST_TOPIC_PREFIX", "ours")
    assert "ours.commands' at 127.0.0.1:1111" in repr(waypost.Publisher())
    assert "ours.results' at 127.0.0.1:1111" in repr(waypost.Subscriber())
    assert "127.0.0.1:2222" in repr(waypost.Reader())
    assert "ours.commands' at 127.0.0.1:1111" in repr(Backend())


async def test_what_is_given_is_not_looked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYPOST_TOPIC_PREFIX", "ours")
    monkeypatch.setenv("WAYPOST_CONFIG_FILE", "no.toml")
    assert "waypost.commands' at here:1" in repr(waypost.Publisher("here:1"))
    assert "mine.results' at here:1" in repr(waypost.Subscriber("here:1", topic_prefix="mine"))
    with pytest.raises(TypeError, match="both bootstrap_servers and dsn"):
        Backend("here:1")


def test_a_port_that_is_taken_is_replaced_only_if_any_will_do() -> None:
    taken = Port()
    taken._socket.listen()
    try:
        other = Port(taken.number, or_other=True)
        assert other.number != taken.number
        other.release()
        with pytest.raises(DevServerError, match=f"port {taken.number} .* can't be used"):
            Port(taken.number)
    finally:
        taken.release()
    again = Port(taken.number, or_other=True)
    assert again.number == taken.number
    again.release()
