"""Proxies between a scene's workers and the servers; publishers, subscriber and oracle go directly."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from tests.faults.proxy import HOST, Open, Proxy, Wire
from tests.faults.scene import Scene


@dataclass
class Ways:
    """The two ways of a scene's workers."""

    kafka: Proxy
    postgres: Proxy

    def named(self, name: str) -> list[Proxy]:
        """One of them by its name, or "both"."""
        return [self.kafka, self.postgres] if name == "both" else [getattr(self, name)]


@asynccontextmanager
async def ways_of(
    stage: Scene, kafka_wire: Callable[[], Wire] = Open, postgres_wire: Callable[[], Wire] = Open
) -> AsyncIterator[Ways]:
    """Lead all workers that are started from now on through proxies."""
    broker = int(stage.endpoints.bootstrap_servers.rpartition(":")[2])
    parts = urlsplit(stage.endpoints.postgres_dsn)
    assert parts.port is not None
    async with Proxy(broker, kafka_wire) as kafka, Proxy(parts.port, postgres_wire) as postgres:
        login = parts.netloc.rpartition("@")[0]
        stage.worker_arguments = ("--redirect", f"{broker}={kafka.port}")
        stage.worker_dsn = urlunsplit(parts._replace(netloc=f"{login}@{HOST}:{postgres.port}"))
        yield Ways(kafka, postgres)
