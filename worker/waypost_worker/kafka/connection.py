"""How to reach the cluster: what every Kafka client of a worker is made with, and what its errors mean."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from waypost_worker.partition.ports import OwnerError, RefusedError, UnavailableError

_T = TypeVar("_T")
_GRACE_SECONDS: Final = 0.2

# What passes by itself. aiokafka asserts, and misses a key, where a connection closes underneath it.
PASSING: Final = (KafkaError, ConsumerStoppedError, OSError, TimeoutError, AssertionError, KeyError)

_NEEDS_A_PERSON: Final = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


@dataclass(frozen=True, slots=True)
class Connection:
    """Bootstrap servers, a time limit in seconds, and security options as aiokafka names them.

    ``request_timeout`` is the longest wait for one answer. ``security`` goes to every aiokafka client as it
    is (``security_protocol``, ``ssl_context``, ``sasl_mechanism``, …).
    """

    bootstrap_servers: str
    request_timeout: float = 10.0
    client_id: str = "waypost-worker"
    security: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start_timeout(self) -> float:
        """Seconds for a client to start: it opens connections and asks several questions."""
        return 2 * self.request_timeout

    def options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": int(self.request_timeout * 1000),
            "retry_backoff_ms": 50,
            **self.security,
        }


def meaning(doing: str, error: Exception) -> OwnerError:
    """What an error of the Kafka client means to an owner: RefusedError where waiting does not mend it."""
    said = (
        str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}".removesuffix(": ")
    )
    if isinstance(error, _NEEDS_A_PERSON):
        return RefusedError(
            f"Kafka does not allow this worker to go on, {doing}: {said}. Nothing was changed; give the "
            "worker's principal the missing ACL"
        )
    return UnavailableError(f"Kafka, {doing}: {said}")


@asynccontextmanager
async def kafka_errors(doing: str) -> AsyncIterator[None]:
    """UnavailableError or RefusedError for what Kafka or the way to it does wrong while ``doing`` something."""
    try:
        yield
    except PASSING as error:
        raise meaning(doing, error) from error


async def quietly(closing: Awaitable[_T], seconds: float) -> None:
    """Close something, but neither wait longer than this nor fail: what is behind it may be gone."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    # A client may ignore that it is cancelled, and it is not worth waiting for twice.
    done, _ = await asyncio.wait({task}, timeout=_GRACE_SECONDS)
    await asyncio.gather(*done, return_exceptions=True)
