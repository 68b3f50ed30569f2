"""Publish one command and wait for its result."""

from typing import TYPE_CHECKING, NamedTuple

from waypost.errors import ResultTimeoutError
from waypost_worker.operations.errors import OperationError

if TYPE_CHECKING:
    from waypost.publisher.client import Publisher
    from waypost.publisher.waiter import CommandResult


class Prepared(NamedTuple):
    """A command that the worker will be able to read."""

    session: str
    type: str
    body: bytes


async def result_of(
    publisher: "Publisher", command: Prepared, timeout: float, command_id: str | None = None
) -> "CommandResult":
    """Publish and wait for the result; OperationError if none comes in time."""
    try:
        return await publisher.publish_and_wait(
            command.session, command.type, command.body, command_id=command_id, timeout=timeout
        )
    except ResultTimeoutError as error:
        stats = publisher.stats()
        if stats.buffered:
            raise OperationError(
                f"Kafka did not accept command {error.command_id} within {timeout:g} s ({stats.last_error}); "
                "it will not be sent"
            ) from None
        raise OperationError(
            f"no result of command {error.command_id} within {timeout:g} s. Kafka has it, and it will be "
            "applied; check that a worker is running"
        ) from None
