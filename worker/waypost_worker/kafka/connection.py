"""How to reach the cluster: what every Kafka client of a worker is made with, and what its errors mean."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from waypost_worker.partition.ports import UnavailableError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Connection:
    """Bootstrap servers, a time limit in seconds, and security options as aiokafka names them."""

    bootstrap_servers: str
    request_timeout: float = 10.0
    client_id: str = "waypost-worker"
    security: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": int(self.request_timeout * 1000),
            "retry_backoff_ms": 50,
            **self.security,
        }


@asynccontextmanager
async def kafka_errors(doing: str) -> AsyncIterator[None]:
    """UnavailableError for what Kafka or the way to it does wrong while ``doing`` something."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError, AssertionError) as error:
        # aiokafka asserts where a connection closes underneath it.
        raise UnavailableError(f"Kafka, {doing}: {type(error).__name__}: {error}") from error


async def quietly(closing: Awaitable[_T], seconds: float) -> None:
    """Close something, but neither wait longer than this nor fail: what is behind it may be gone."""
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
