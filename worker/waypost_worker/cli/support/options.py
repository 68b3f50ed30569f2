"""Flags for connections and output that all commands share, and the resulting settings."""

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Final

from cyclopts import Group, Parameter

from waypost.endpoints import FILE_NAME, Endpoints, state_directory
from waypost.model.tenants import check_tenant
from waypost_worker.cli.support.output import Format
from waypost_worker.config.settings import Settings, config_origin, load_settings

_CONNECTION: Final = Group("Connection and output", sort_key=10)
OutputFlag = Annotated[Format, Parameter(name=["--output", "-o"], help="output format", group=_CONNECTION)]


@Parameter(name="*")
@dataclass(frozen=True)
class Target:
    """Which deployment a command works on.

    Settings without a flag come from WAYPOST_ variables, then from waypost.toml. If these name neither a Kafka nor a
    Postgres, the dev server in this directory (or in WAYPOST_STATE_DIR) is used.
    """

    bootstrap_servers: Annotated[
        str | None, Parameter(help="Kafka brokers, host:port[,host:port]", group=_CONNECTION)
    ] = None
    postgres_dsn: Annotated[str | None, Parameter(help="postgresql://…", group=_CONNECTION)] = None
    topic_prefix: Annotated[str | None, Parameter(help="prefix of both topics", group=_CONNECTION)] = None
    postgres_schema: Annotated[
        str | None,
        Parameter(
            name=["--schema", "--postgres-schema"],
            help="schema of Waypost's tables, such as one that replay built",
            group=_CONNECTION,
        ),
    ] = None

    def settings(self, **flags: Any) -> Settings:
        """Return the settings in effect. Raise SettingsError if they can't be used."""
        given = {field.name: getattr(self, field.name) for field in fields(Target)}
        settings = load_settings(**given, **flags)
        found = self._dev_server()
        return settings if found is None else load_settings(**{**given, **asdict(found)}, **flags)

    def origin(self, name: str) -> str:
        """Return where the value of a setting comes from."""
        if getattr(self, name, None) is not None:
            return "flag"
        if name in ("bootstrap_servers", "postgres_dsn") and self._dev_server() is not None:
            return str(state_directory() / FILE_NAME)
        return config_origin(name)

    def _dev_server(self) -> Endpoints | None:
        # Both or none: a Kafka of one deployment with the Postgres of another is never meant.
        for name in ("bootstrap_servers", "postgres_dsn"):
            if getattr(self, name) is not None or config_origin(name) != "default":
                return None
        return Endpoints.read(state_directory())


@Parameter(name="*")
@dataclass(frozen=True)
class Common(Target):
    """The flags of most commands."""

    output: OutputFlag = "table"


TenantFlag = Annotated[
    str | None,
    Parameter(
        help="only sessions of this tenant, whose ids begin with its name and a slash",
        validator=lambda _, tenant: None if tenant is None else check_tenant(tenant),
    ),
]
NOTHING_GIVEN: Final = Common()
NO_TARGET: Final = Target()
