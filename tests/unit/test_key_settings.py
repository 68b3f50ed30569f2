"""From settings to a codec: the same for clients without arguments and for the command line."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.keys import wrapping_file

import waypost
from waypost.adapters import Backend
from waypost.discovery import KeySettings, find_deployment, find_key_settings
from waypost.encryption.codec import make_codec
from waypost.encryption.directory import DirectoryKeyStore
from waypost.encryption.postgres import PostgresKeyStore
from waypost.encryption.settings import make_store, make_wrapper
from waypost.encryption.wrapping import FileWrapper, LocalWrapper
from waypost.errors import SettingsError
from waypost_worker.config import keys as worker_keys
from waypost_worker.config.settings import load_settings, secret_values

DSN = "postgresql://keys:secret@db/keys"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith("WAYPOST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dsn").write_text(DSN + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({}, ""),
        ({"WAYPOST_KEYS_DIRECTORY": "keys", "WAYPOST_WRAPPING_KEY_FILE": "wrapping.key"}, ""),
        ({}, 'keys_directory = "keys"\nwrapping_key_file = "wrapping.key"\nallow_plaintext = true'),
        ({"WAYPOST_KEYS_DSN": DSN, "WAYPOST_WRAPPING_KEY": "text"}, ""),
        ({"WAYPOST_KEYS_DSN_FILE": "dsn", "WAYPOST_ALLOW_PLAINTEXT": "true"}, 'wrapping_key = "text"'),
        ({"WAYPOST_KEYS_DSN": DSN}, 'keys_dsn = "postgresql://not/this"'),
        ({"WAYPOST_KEYS_DIRECTORY": "keys", "WAYPOST_KEY_WRAPPER": "a:b"}, ""),
        ({"WAYPOST_WRAPPING_KEY_FILE": "wrapping.key"}, ""),
    ],
)
def test_clients_and_the_command_line_find_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], file: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (here / "waypost.toml").write_text(file)
    assert find_deployment().keys == worker_keys.key_settings(load_settings())


def test_clients_without_arguments_have_the_codec_and_others_do_not(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYPOST_KEYS_DIRECTORY", "keys")
    monkeypatch.setenv("WAYPOST_WRAPPING_KEY_FILE", str(wrapping_file(here / "wrapping.key")))
    assert waypost.Publisher()._settings.codec is not None
    assert waypost.Publisher(codec=None)._settings.codec is None
    assert waypost.Publisher("localhost:9092")._settings.codec is None
    assert waypost.Reader().codec is not None
    assert waypost.Reader("postgresql://localhost/x").codec is None
    assert waypost.Subscriber()._codec is not None
    assert waypost.Subscriber("localhost:9092")._codec is None
    assert Backend()._encrypts
    assert not Backend("localhost:9092", "postgresql://localhost/x")._encrypts
    assert repr(waypost.Codec.from_settings()) == "<Codec with keys in the directory keys>"


def test_without_settings_there_is_no_codec(here: Path) -> None:
    assert waypost.Publisher()._settings.codec is None
    assert worker_keys.make_codec(load_settings()) is None
    with pytest.raises(SettingsError, match="neither keys_dsn nor keys_directory"):
        find_key_settings()
    with pytest.raises(SettingsError, match="neither keys_dsn nor keys_directory"):
        waypost.Codec.from_settings()


def test_each_setting_makes_its_store_and_its_wrapper() -> None:
    assert isinstance(make_store(KeySettings(dsn=DSN)), PostgresKeyStore)
    assert isinstance(make_store(KeySettings(directory="keys")), DirectoryKeyStore)
    assert type(make_wrapper(KeySettings(wrapping_key_file="file"))) is FileWrapper
    assert type(make_wrapper(KeySettings(wrapping_key="text"))) is LocalWrapper


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (KeySettings(wrapping_key="x"), "neither keys_dsn nor keys_directory is set"),
        (KeySettings(dsn=DSN, directory="keys", wrapping_key="x"), "both set"),
        (KeySettings(directory="keys"), "none of them is set"),
        (KeySettings(directory="keys", wrapping_key="x", wrapping_key_file="y"), "are all set"),
        (KeySettings(directory="keys", wrapper="module"), "key_wrapper is module:function"),
        (KeySettings(directory="keys", wrapper="no_such_module:f"), "can't be used: ModuleNotFoundError"),
        (KeySettings(directory="keys", wrapper="os:getcwd"), "returned no key wrapper"),
    ],
)
def test_settings_that_can_t_be_meant_are_one_line(settings: KeySettings, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        make_codec(settings)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_wrapper_of_one_s_own_is_imported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "my_kms.py").write_text("from waypost import EnvironmentWrapper as made\n")
    monkeypatch.syspath_prepend(str(here))
    assert (
        repr(make_wrapper(KeySettings(wrapper="my_kms:made"))) == "EnvironmentWrapper('WAYPOST_WRAPPING_KEY')"
    )
    sys.modules.pop("my_kms")


def test_code_is_not_named_in_a_file_that_others_may_have_put_here(here: Path) -> None:
    (here / "waypost.toml").write_text('keys_directory = "keys"\nkey_wrapper = "evil:code"\n')
    found = find_deployment().keys
    assert found is not None
    assert found.wrapper is None
    with pytest.raises(SettingsError, match="key_wrapper can't be in a file"):
        worker_keys.make_codec(load_settings())


@pytest.mark.parametrize("value", ["maybe", "2"])
def test_an_invalid_flag_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WAYPOST_KEYS_DIRECTORY", "keys")
    monkeypatch.setenv("WAYPOST_ALLOW_PLAINTEXT", value)
    with pytest.raises(SettingsError, match="allow_plaintext must be true or false"):
        find_deployment()


def test_a_worker_starts_although_it_may_not_read_the_wrapping_key(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYPOST_KEYS_DIRECTORY", "keys")
    monkeypatch.setenv("WAYPOST_WRAPPING_KEY_FILE", "not/here")
    settings = load_settings()
    assert settings.wrapping_key is None


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYPOST_KEYS_DSN", DSN)
    monkeypatch.setenv("WAYPOST_WRAPPING_KEY", "the wrapping key")
    found = find_deployment().keys
    assert "secret" not in repr(found)
    assert "wrapping key" not in repr(found)
    assert {"secret", "the wrapping key"} <= set(secret_values(load_settings()))


@pytest.mark.parametrize("dsn", ["postgresql://a/b postgresql://c/d", "postgresql://u:p@ss@h/b"])
def test_a_dsn_that_can_t_be_meant_is_an_error(monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    monkeypatch.setenv("WAYPOST_KEYS_DSN", dsn)
    with pytest.raises(SettingsError, match="WAYPOST_KEYS_DSN") as raised:
        load_settings()
    assert "p@ss" not in str(raised.value)
