"""Find a deployment for a client without addresses, as the command line does in the same directory.

``WAYPOST_*`` variables come first, then ``waypost.toml``, then a ``waypost dev`` that runs on a state directory here,
then the defaults. Reads files and variables only; connects to nothing. docs/settings.md lists all settings.
"""

import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from waypost.endpoints import Endpoints, state_directory
from waypost.errors import SettingsError, did_you_mean
from waypost.kafka.security import PREFIX, KafkaSecurity
from waypost.statements import DEFAULT_SCHEMA
from waypost.wire.topics import DEFAULT_PREFIX

VARIABLES: Final = "WAYPOST_"
CONFIG_FILE_VARIABLE: Final = "WAYPOST_CONFIG_FILE"
DEFAULT_CONFIG_FILE: Final = "waypost.toml"
DEFAULT_SERVERS: Final = "localhost:9092"
DEFAULT_DSN: Final = "postgresql://localhost/waypost"
log = logging.getLogger("waypost")
_SECRETS: Final = {"postgres_dsn", "kafka_ssl_key_password", "kafka_sasl_password", "keys_dsn"}
_KEY_SETTINGS: Final = {
    "keys_dsn",
    "keys_directory",
    "wrapping_key",
    "wrapping_key_file",
    "key_wrapper",
    "allow_plaintext",
}
_TRUE: Final = {"1", "true", "yes", "on"}
_FALSE: Final = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class KeySettings:
    """Location of a deployment's session keys, and what wraps them. ``repr`` shows no secrets."""

    dsn: str | None = field(default=None, repr=False)
    directory: str | None = None
    wrapping_key: str | None = field(default=None, repr=False)
    wrapping_key_file: str | None = None
    wrapper: str | None = None
    allow_plaintext: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """Addresses and names of one deployment. ``kafka_options`` are those of aiokafka for TLS and SASL."""

    bootstrap_servers: str
    postgres_dsn: str
    topic_prefix: str
    postgres_schema: str
    kafka_options: Mapping[str, Any]
    keys: KeySettings | None = None


def find_deployment() -> Deployment:
    """Return the deployment to which a client without arguments connects.

    Raises:
        SettingsError: A setting or a file can't be used.
    """
    settings = _SettingsSource()
    servers, dsn = settings.get("bootstrap_servers"), settings.get("postgres_dsn")
    if servers is None and dsn is None:
        # Both or none: a Kafka of one deployment with the Postgres of another is never meant.
        running = Endpoints.read(state_directory())
        if running is not None:
            servers, dsn = running.bootstrap_servers, running.postgres_dsn
    settings.warn_of_similar_names()
    named = {one.name: settings.get(PREFIX + one.name) for one in fields(KafkaSecurity)}
    security = KafkaSecurity(**{name: value for name, value in named.items() if value is not None})
    return Deployment(
        servers or DEFAULT_SERVERS,
        dsn or DEFAULT_DSN,
        settings.get("topic_prefix") or DEFAULT_PREFIX,
        settings.get("postgres_schema") or DEFAULT_SCHEMA,
        security.options(),
        settings.keys(),
    )


def find_key_settings() -> KeySettings:
    """Return the key settings of the deployment that a client without arguments connects to.

    Raises:
        SettingsError: No key settings are set, or a setting or a file can't be used.
    """
    found = _SettingsSource().keys()
    if found is None:
        raise SettingsError(
            "neither keys_dsn nor keys_directory is set, so it is not known where the session keys are"
        )
    return found


class _SettingsSource:
    """The sources of settings: variables before the file, and at each place a secret before the file that holds it."""

    def __init__(self) -> None:
        self._file = _config_file()

    def get(self, name: str) -> str | None:
        """Return a setting, or None if it is not set."""
        for found in (self._variable, self._key):
            if (value := found(name)) is not None:
                return value
            if name in _SECRETS and (path := found(f"{name}_file")) is not None:
                return _content(f"{name}_file", path)
        return None

    def keys(self) -> KeySettings | None:
        """Return the settings of session keys, or None if there are none."""
        dsn, directory = self.get("keys_dsn"), self.get("keys_directory")
        wrapping_key, wrapping_key_file = self.get("wrapping_key"), self.get("wrapping_key_file")
        # Never from the file: anyone who puts a waypost.toml into this directory could run any code.
        wrapper = self._variable("key_wrapper")
        if not any((dsn, directory, wrapping_key, wrapping_key_file, wrapper)):
            return None
        return KeySettings(
            dsn, directory, wrapping_key, wrapping_key_file, wrapper, self._flag("allow_plaintext")
        )

    def _flag(self, name: str) -> bool:
        value = self._variable(name)
        if value is None:
            value = self._file.get(name, False)
            if isinstance(value, bool):
                return value
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise SettingsError(f"{name} must be true or false, not {value!r}")

    def warn_of_similar_names(self) -> None:
        """Log what looks like a mistyped setting. Settings of workers are not known here, and may be set too."""
        known = {"bootstrap_servers", "postgres_dsn", "topic_prefix", "postgres_schema"}
        known |= {PREFIX + one.name for one in fields(KafkaSecurity)}
        known |= {f"{name}_file" for name in _SECRETS} | _KEY_SETTINGS
        for key in self._file:
            if key not in known and (suggestion := did_you_mean(key, known)):
                log.warning("%r in %s is ignored, as it is not a setting.%s", key, _file_name(), suggestion)
        names = {name.upper() for name in known}
        for variable in os.environ:
            name = variable.removeprefix(VARIABLES)
            if name not in {variable, *names} and (suggestion := did_you_mean(name, names, VARIABLES)):
                log.warning("%s is ignored, as it is not a setting.%s", variable, suggestion)

    def _variable(self, name: str) -> str | None:
        return os.environ.get(VARIABLES + name.upper()) or None

    def _key(self, name: str) -> str | None:
        value = self._file.get(name)
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{name} in {DEFAULT_CONFIG_FILE} must be a string")
        return value


def _file_name() -> Path:
    return Path(os.environ.get(CONFIG_FILE_VARIABLE) or DEFAULT_CONFIG_FILE)


def _config_file() -> Mapping[str, Any]:
    path = _file_name()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if os.environ.get(CONFIG_FILE_VARIABLE):
            raise SettingsError(f"{CONFIG_FILE_VARIABLE} names {path}, which does not exist") from None
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} can't be read as TOML: {error}") from None


def _content(setting: str, path: str) -> str:
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{setting} names {path}, which can't be read: {error}") from None
    if not content:
        raise SettingsError(f"{setting} names {path}, which is empty")
    return content
