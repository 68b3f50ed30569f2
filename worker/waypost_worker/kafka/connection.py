"""Connecting to the cluster: the arguments of every Kafka client of a worker, and the meaning of its errors."""

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

# Temporary errors. aiokafka raises AssertionError and KeyError if a connection closes underneath it.
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
    """Return what an error of the Kafka client means to an owner: RefusedError if waiting does not help."""
    said = (
        str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}".removesuffix(": ")
    )
    if isinstance(error, _NEEDS_A_PERSON):
        return RefusedError(
            f"Kafka does not allow this worker to continue, {doing}: {said}. Nothing was changed; give the "
            "worker's principal the missing ACL"
        )
    return UnavailableError(f"Kafka, {doing}: {said}")


@asynccontextmanager
async def kafka_errors(doing: str) -> AsyncIterator[None]:
    """Raise UnavailableError or RefusedError for errors of Kafka or the network while ``doing`` something."""
    try:
        yield
    except PASSING as error:
        raise meaning(doing, error) from error


async def quietly(closing: Awaitable[_T], seconds: float) -> None:
    """Close something, but neither wait longer than this nor fail, because the other side may be gone."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    # A client may ignore a cancellation, and it is not worth waiting twice.
    done, _ = await asyncio.wait({task}, timeout=_GRACE_SECONDS)
    await asyncio.gather(*done, return_exceptions=True)
