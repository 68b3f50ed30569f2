"""Publish from a command: wait for one result, or for Kafka to take everything."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from waypost.errors import ResultTimeoutError
from waypost_worker.cli.support.command_input import Prepared
from waypost_worker.cli.support.output import CommandError

if TYPE_CHECKING:
    from waypost.publisher.client import Publisher
    from waypost.publisher.waiter import CommandResult


TimeoutFlag = Annotated[float, Parameter(help="seconds to wait for Kafka", validator=validators.Number(gt=0))]


async def result_of(
    publisher: "Publisher", command: Prepared, timeout: float, command_id: str | None = None
) -> "CommandResult":
    """Publish and wait for the result; CommandError if none comes in time."""
    try:
        return await publisher.publish_and_wait(
            command.session, command.type, command.body, command_id=command_id, timeout=timeout
        )
    except ResultTimeoutError as error:
        stats = publisher.stats()
        if stats.buffered:
            raise CommandError(
                f"Kafka did not take command {error.command_id} within {timeout:g} s ({stats.last_error}); "
                "it is not sent any more"
            ) from None
        raise CommandError(
            f"no result of command {error.command_id} within {timeout:g} s. Kafka has it, and it will be applied: "
            "is a worker running?"
        ) from None


async def require_delivered(publisher: "Publisher", timeout: float) -> None:
    """Wait until Kafka has everything that was published; CommandError if it does not take it in time."""
    left = await publisher.flush(timeout)
    stats = publisher.stats()
    if left or stats.failed:
        why = f" ({stats.last_error})" if stats.last_error else ""
        raise CommandError(
            f"Kafka did not take {left + stats.failed} of {stats.accepted} command(s) within {timeout:g} s{why}; "
            "it is not sent any more"
        )
