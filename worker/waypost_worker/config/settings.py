"""Settings: flags, then ``WAYPOST_*`` variables, then a TOML file, then defaults. The first source that has one wins.

No setting here changes what a command does: that is in the log alone.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from waypost.errors import InvalidCommandError, did_you_mean
from waypost.errors import SettingsError as SettingsError
from waypost.shards import dsn_list
from waypost.statements import DEFAULT_SCHEMA, check_schema_name
from waypost.wire.topics import Topics
from waypost_worker.config.secret_files import READ_LATER, SecretFiles, file_setting, is_secret

CONFIG_FILE_VARIABLE: Final = "WAYPOST_CONFIG_FILE"
DEFAULT_CONFIG_FILE: Final = "waypost.toml"
_PREFIX: Final = "WAYPOST_"


def _servers(value: str) -> str:
    for server in value.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"{server.strip()!r} is not host:port; separate several by commas")
    return value


def _topic_prefix(value: str) -> str:
    try:
        Topics(value)
    except InvalidCommandError as error:
        raise ValueError(error.message) from None
    return value


def _dsns(value: SecretStr) -> SecretStr:
    listed = dsn_list(value.get_secret_value())
    for place, dsn in enumerate(listed, 1):
        where = f"number {place} of {len(listed)} " if len(listed) > 1 else "it "
        # The driver's message about such a text would quote it, including the password.
        if not _is_usable(dsn):
            raise ValueError(
                f"{where}is not a URL of the form postgresql://user:password@host:port/database?name=value; "
                "write "
                "characters such as / ? # @ : in a user's name or password as %2F %3F %23 %40 %3A"
            )
        if dsn.count("://") > 1 or (len(listed) > 1 and dsn.endswith(",")):
            raise ValueError(f"{where}is more than one URL: separate them by white space, not by commas")
    return value


def _one_dsn(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        _dsns(value)
        if len(dsn_list(value.get_secret_value())) > 1:
            raise ValueError("it is more than one URL: all session keys are in one database")
    return value


def _is_usable(dsn: str) -> bool:
    try:
        parts = urlsplit(dsn)
        plain = parts.scheme not in ("postgres", "postgresql") or _is_plain(parts.netloc, parts.query)
    except ValueError:
        return False
    return plain and not parts.fragment


def _is_plain(netloc: str, query: str) -> bool:
    user, _, hosts = netloc.rpartition("@")
    ports = re.findall(r":([^:,\]]*)(?:,|$)", re.sub(r"\[[^\]]*\]", "", hosts))
    pairs = query.split("&") if query else []
    return (
        "@" not in user
        and all(port.isdigit() for port in ports if port)
        and all("=" in pair for pair in pairs)
    )


class Settings(BaseSettings):
    """Everything that can be set. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", env_ignore_empty=True)

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        default="localhost:9092", description="Kafka brokers to start from, host:port, comma-separated"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="SSL: with TLS; SASL: with a login"
    )
    kafka_ssl_ca_file: str | None = Field(
        default=None,
        description="PEM file with the authorities that sign the brokers' certificates; unset: the system's",
    )
    kafka_ssl_certificate_file: str | None = Field(
        default=None, description="PEM file with the client's certificate (mutual TLS)"
    )
    kafka_ssl_key_file: str | None = Field(
        default=None,
        description="PEM file with the certificate's key, unless the certificate file contains it",
    )
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="password of an encrypted key")
    kafka_ssl_key_password_file: str | None = Field(
        default=None, description="a file that holds kafka_ssl_key_password"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None, description="SASL mechanism to log in with"
    )
    kafka_sasl_username: str | None = Field(default=None, description="user name for PLAIN and SCRAM")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="password for PLAIN and SCRAM")
    kafka_sasl_password_file: str | None = Field(
        default=None, description="a file that holds kafka_sasl_password"
    )
    kafka_sasl_token_file: str | None = Field(
        default=None, description="file with a token for OAUTHBEARER, read for every connection"
    )
    postgres_dsn: Annotated[SecretStr, AfterValidator(_dsns)] = Field(
        default=SecretStr("postgresql://localhost/waypost"),
        description="Postgres database; several, separated by white space, are shards (docs/sharding.md)",
    )
    postgres_dsn_file: str | None = Field(default=None, description="a file that holds postgres_dsn")
    postgres_schema: Annotated[str, AfterValidator(check_schema_name)] = Field(
        default=DEFAULT_SCHEMA, description="schema of Waypost's tables in the database"
    )
    topic_prefix: Annotated[str, AfterValidator(_topic_prefix)] = Field(
        default="waypost", description="prefix of the topics {prefix}.commands and {prefix}.results"
    )
    group_id: str = Field(default="waypost", min_length=1, description="Kafka consumer group of the workers")
    group_instance_id: str | None = Field(
        default=None, description="name of a static member, which survives a restart of this worker"
    )
    session_timeout: float = Field(
        default=10,
        ge=1,
        le=300,
        description="silence after which a worker loses its partitions; brokers refuse less than 6 by default",
    )
    request_timeout: float = Field(
        default=10, ge=1, le=120, description="longest wait for one answer from Kafka or Postgres"
    )
    drain_timeout: float = Field(
        default=20, ge=0, le=600, description="time to finish the work in progress after SIGTERM"
    )
    stuck_after: float = Field(
        default=30,
        ge=1,
        le=3600,
        description="time without progress despite lag after which a consumer is restarted",
    )
    batch_records: int = Field(
        default=2000, ge=1, le=10_000, description="maximum number of commands in one transaction"
    )
    batch_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=65_536,
        le=64 * 1024 * 1024,
        description="maximum number of bytes in one transaction",
    )
    cache_items: int = Field(
        default=1_000_000,
        ge=1_000,
        description="checkpoints and command ids kept in memory, for all partitions together",
    )
    postgres_pool_size: int = Field(
        default=8, ge=2, le=200, description="maximum number of connections to each Postgres"
    )
    postgres_statement_cache: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="prepared statements per connection; 0 behind pgbouncer in transaction mode",
    )
    migrate: bool = Field(default=False, description="apply pending migrations when the worker starts")
    accept_trimmed_results: bool = Field(
        default=False, description="continue even if retention removed results before they were checked"
    )
    snapshots: str | None = Field(
        default=None, description="place for snapshots: a directory, or s3://bucket/path"
    )
    snapshots_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="key that signs snapshots; if it is set, snapshots that are not signed with it are rejected",
    )
    snapshots_key_file: str | None = Field(default=None, description="a file that holds snapshots_key")
    keys_dsn: Annotated[SecretStr | None, AfterValidator(_one_dsn)] = Field(
        default=None, description="the Postgres of the session keys, another one than that of the sessions"
    )
    keys_dsn_file: str | None = Field(default=None, description="a file that holds keys_dsn")
    keys_directory: str | None = Field(
        default=None, description="a directory with the session keys, instead of keys_dsn"
    )
    wrapping_key: SecretStr | None = Field(
        default=None,
        description="wraps session keys: 32 bytes in base64; older ones follow, separated by white space",
        json_schema_extra=READ_LATER,
    )
    wrapping_key_file: str | None = Field(
        default=None, description="a file with such keys, which is read when a key is wrapped or unwrapped"
    )
    key_wrapper: str | None = Field(
        default=None,
        description="module:function that returns what wraps session keys instead; not from the TOML file",
    )
    allow_plaintext: bool = Field(
        default=False, description="with session keys: also read data that is not encrypted"
    )
    http_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="address for probes and metrics; 0.0.0.0: every address",
    )
    http_port: int | None = Field(
        default=None, ge=0, le=65535, description="port for probes and metrics, 0: any free one; unset: none"
    )
    console_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="address of the console; anything but loopback needs console_auth=token, oidc or proxy",
    )
    console_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="port of the console, 0: any free one; unset: the first free one from 8650",
    )
    console_hosts: str = Field(
        default="",
        description="host[:port] names by which browsers reach the console, comma-separated, besides loopback",
    )
    console_auth: Literal["link", "token", "oidc", "proxy"] = Field(
        default="link",
        description="how users log in to the console: a one-time link, a shared token, an OpenID Connect provider, "
        "or a proxy",
    )
    console_role: Literal["observer", "viewer", "operator"] = Field(
        default="operator", description="highest role of console users; observers see no data"
    )
    console_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="token that users enter and programs send, for console_auth=token",
    )
    console_token_file: str | None = Field(default=None, description="a file that holds console_token")
    console_oidc_issuer: str | None = Field(
        default=None,
        description="for console_auth=oidc: the provider's issuer, as in https://login.example.org/realms/staff",
    )
    console_oidc_client_id: str | None = Field(
        default=None, description="for console_auth=oidc: the client id that the provider gave the console"
    )
    console_oidc_client_secret: SecretStr | None = Field(
        default=None, min_length=4, description="for console_auth=oidc: its secret; unset: a public client"
    )
    console_oidc_client_secret_file: str | None = Field(
        default=None, description="a file that holds console_oidc_client_secret"
    )
    console_oidc_scopes: str = Field(
        default="openid profile email",
        description="scopes to ask for, separated by spaces; some providers need groups for groups",
    )
    console_oidc_user_claim: str = Field(
        default="email",
        min_length=1,
        description="the claim that names users in the log; email counts only if verified; otherwise sub is used",
    )
    console_oidc_groups_claim: str = Field(
        default="groups",
        min_length=1,
        description="the claim that lists a user's groups, or the way to it, as in realm_access.roles",
    )
    console_oidc_operators: str = Field(
        default="", description="groups whose members are operators, comma-separated; *: everybody"
    )
    console_oidc_viewers: str = Field(
        default="", description="groups whose members are viewers, comma-separated; *: everybody"
    )
    console_oidc_observers: str = Field(
        default="", description="groups whose members are observers, comma-separated; *: everybody"
    )
    console_proxy_peers: str = Field(
        default="", description="addresses or networks of the proxy, comma-separated, for console_auth=proxy"
    )
    console_proxy_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="secret that the proxy sends as X-Waypost-Secret, for console_auth=proxy",
    )
    console_proxy_secret_file: str | None = Field(
        default=None, description="a file that holds console_proxy_secret"
    )
    console_tenant: str | None = Field(
        default=None,
        description="the console shows and changes sessions of this tenant only; unset: all sessions",
    )
    console_trace_url: str | None = Field(
        default=None, description="URL of a trace in your tracing tool, with {trace_id} in it"
    )
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP collector for traces, such as http://localhost:4318; unset: none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="log level; SIGUSR1 and SIGUSR2 change it while a worker runs"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, JSON elsewhere"
    )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file; each followed by the secrets in files that it names."""
        sources = [init_settings, env_settings]
        file = config_file()
        if file is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, file))
        return tuple(one for source in sources for one in (source, SecretFiles(settings_cls, source)))

    @property
    def dsns(self) -> list[str]:
        """The databases: one, or one for each shard."""
        return dsn_list(self.postgres_dsn.get_secret_value())

    @property
    def topics(self) -> Topics:
        """The names of the two topics."""
        return Topics(self.topic_prefix)


def config_file() -> Path | None:
    """The TOML file in use: the one that WAYPOST_CONFIG_FILE names, or waypost.toml here if it exists."""
    named = os.environ.get(CONFIG_FILE_VARIABLE)
    if named:
        return Path(named)
    default = Path(DEFAULT_CONFIG_FILE)
    return default if default.exists() else None


def load_settings(**flags: Any) -> Settings:
    """Return the settings in effect. Flags that are None count as not given.

    Raise SettingsError with one line that names the setting, where it came from if that is known, and the problem. A
    mistyped WAYPOST_ variable or key in the file is an error and is not ignored.
    """
    _check_names()
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "settings"
        raise SettingsError(f"{_origin(field, given)}: {_plainly(first['msg'])}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{config_file() or 'settings'} can't be read: {error}") from None


def _check_names() -> None:
    known = {name.upper() for name in Settings.model_fields}
    known |= {"CONFIG_FILE", "CACHE_DIR", "MAVEN_REPOSITORY", "STATE_DIR"}
    for variable in sorted(os.environ):
        name = variable.removeprefix(_PREFIX)
        if name != variable and name not in known:
            raise SettingsError(_unknown(variable, did_you_mean(name, known, _PREFIX)))
    file = config_file()
    if file is None:
        return
    if not file.exists():
        raise SettingsError(f"{CONFIG_FILE_VARIABLE} names {file}, which does not exist")
    try:
        keys = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} can't be read as TOML: {error}") from None
    unknown = sorted(set(keys) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(
            _unknown(f"{file}: {unknown[0]!r}", did_you_mean(unknown[0], Settings.model_fields))
        )


def unknown_key(file: Path, key: str) -> str:
    """Return the message about a key of a TOML file that is not a setting."""
    return _unknown(f"{file}: {key!r}", did_you_mean(key, Settings.model_fields))


def _unknown(what: str, suggestion: str) -> str:
    return f"{what} is not a setting.{suggestion} List all settings with: waypost config show"


def config_origin(field: str) -> str:
    """Return where the value of a setting comes from, apart from flags: a variable, the file, or the default."""
    names = [field, file_setting(field)]
    for name in names:
        variable = f"{_PREFIX}{name}".upper()
        if os.environ.get(variable):
            return variable
    file = config_file()
    if file is not None and set(names) & set(tomllib.loads(file.read_text())):
        return str(file)
    return "default"


def _origin(field: str, flags: dict[str, Any]) -> str:
    if field in flags:
        return "--" + field.replace("_", "-")
    variable = f"{_PREFIX}{field}".upper()
    if variable in os.environ:
        return variable
    file = config_file()
    return f"{file}: {field}" if file else field


def _plainly(message: str) -> str:
    return message.removeprefix("Value error, ").replace("\n", " ")


def masked_dsn(dsn: str) -> str:
    """A connection string, or several, with the passwords, wherever they stand, replaced by ``***``."""
    return " ".join(map(_masked, dsn_list(dsn)))


def _masked(dsn: str) -> str:
    # To the last @: too much is hidden rather than the rest of a password that has one.
    masked = re.sub(r"(://[^:/@?]*):.*@", r"\1:***@", dsn, flags=re.DOTALL)
    return re.sub(r"(password\s*=\s*)('[^']*'|[^\s&]+)", r"\1***", masked)


def secret_values(settings: Settings) -> list[str]:
    """Every secret in the settings, as it may turn up in a text: of DSNs their passwords, encoded and not."""
    fields = Settings.model_fields
    dsns = ("postgres_dsn", "keys_dsn")
    secrets = [getattr(settings, name) for name in fields if is_secret(fields[name]) and name not in dsns]
    found = [secret.get_secret_value() for secret in secrets if secret is not None]
    keys = [] if settings.keys_dsn is None else [settings.keys_dsn.get_secret_value()]
    for parts in map(urlsplit, [*settings.dsns, *keys]):
        pairs = [pair.partition("=") for pair in parts.query.split("&")]
        passwords = [parts.password, *(value for name, _, value in pairs if name.endswith("password"))]
        for password in filter(None, passwords):
            found += [password, unquote(password)]
    return list(dict.fromkeys(filter(None, found)))
