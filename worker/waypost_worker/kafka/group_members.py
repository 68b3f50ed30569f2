"""Which workers are in the consumer group, as the brokers know them: by the client id that names their version."""

from collections import Counter
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, for_code

from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import RefusedError, UnavailableError

MEMBER: Final = "waypost-worker"
UNKNOWN_VERSION: Final = "unknown"


def member_client_id(version: str) -> str:
    """The name of a worker of this version in the group."""
    return f"{MEMBER}-{version}"


async def worker_versions(connection: Connection, group_id: str) -> Counter[str]:
    """Return how many members of the group are workers, by version.

    RefusedError if this principal may not describe the group, UnavailableError if Kafka does not answer.
    """
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        async with kafka_errors("describing the worker group"):
            await admin.start()
            (answer,) = await admin.describe_consumer_groups([group_id])
    finally:
        await quietly(admin.close(), 1.0)
    (group,) = answer.to_object()["groups"]
    _raise_for(group["error_code"], group_id)
    return Counter(_version(member) for member in group["members"])


def _version(member: dict[str, Any]) -> str:
    name, dash, version = str(member["client_id"]).rpartition(f"{MEMBER}-")
    return version if dash and not name else UNKNOWN_VERSION


def _raise_for(code: int, group_id: str) -> None:
    if for_code(code) is GroupAuthorizationFailedError:
        raise RefusedError(f"this principal may not describe the group {group_id!r}")
    if code:
        raise UnavailableError(
            f"Kafka would not describe the group {group_id!r}: {for_code(code).description}"
        )
