"""What all commands share: the connection flags, and the settings that result."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from waypost_worker.cli.output import Format
from waypost_worker.settings import Settings, load_settings

_T = TypeVar("_T")


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Flags of every command; what is not given comes from WAYPOST_ variables, waypost.toml or defaults."""

    bootstrap_servers: Annotated[str | None, Parameter(help="Kafka, host:port[,host:port]")] = None
    postgres_dsn: Annotated[str | None, Parameter(help="Postgres, postgresql://…")] = None
    topic_prefix: Annotated[str | None, Parameter(help="prefix of the two topics")] = None
    output: Annotated[Format, Parameter(name=["--output", "-o"], help="table, json or jsonl")] = "table"

    def settings(self, **flags: Any) -> Settings:
        """The settings in force; SettingsError if they can't be used."""
        return load_settings(
            bootstrap_servers=self.bootstrap_servers,
            postgres_dsn=self.postgres_dsn,
            topic_prefix=self.topic_prefix,
            **flags,
        )


def run(call: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's coroutine."""
    return asyncio.run(call)
