"""Publish from a command: wait for Kafka to take everything."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from waypost_worker.cli.support.output import CommandError

if TYPE_CHECKING:
    from waypost.publisher.client import Publisher


TimeoutFlag = Annotated[float, Parameter(help="seconds to wait for Kafka", validator=validators.Number(gt=0))]


async def require_delivered(publisher: "Publisher", timeout: float) -> None:
    """Wait until Kafka has everything that was published. Raise CommandError if that takes too long."""
    left = await publisher.flush(timeout)
    stats = publisher.stats()
    if left or stats.failed:
        why = f" ({stats.last_error})" if stats.last_error else ""
        raise CommandError(
            f"Kafka did not accept {left + stats.failed} of {stats.accepted} command(s) within {timeout:g} s{why}; "
            "it will not be sent"
        )
