"""What is known of a command whose result did not come in time. Looks, and changes nothing."""

import asyncio
from typing import TYPE_CHECKING

from waypost.errors import Reached, ResultTimeoutError
from waypost.pending import Pending

if TYPE_CHECKING:
    from waypost.sender import Sender


def overdue(
    pending: Pending, landing: "asyncio.Future[tuple[int, int]]", sender: "Sender | None", ended: str
) -> ResultTimeoutError:
    """The error for who waited in vain, until ``ended`` (``within 10 s``).

    ``landing`` has partition and offset once Kafka has the command.
    """
    kept = " and in the spool" if pending.home is not None else ""
    reached: Reached
    partition = offset = None
    if landing.done():
        reached = "acknowledged"
        partition, offset = landing.result()
        known = f"Kafka has it, at offset {offset} of partition {partition}; is a worker running?"
    elif sender is not None and (partition := sender.where(pending)) is not None:
        reached = "sent"
        known = (
            f"it was sent to partition {partition}, and Kafka has not answered for "
            f"{sender.waiting_seconds():.1f} s; it is still in this publisher's buffer{kept}"
        )
    else:
        reached = "waiting"
        tries = pending.tries - (sender is not None and sender.being_gathered(pending))
        before = "was sent before and will be sent again" if tries else "will be sent"
        error = None if sender is None else sender.last_error
        known = f"it is still in this publisher's buffer{kept} and {before} (last error: {error})"
    return ResultTimeoutError(
        pending.command_id,
        f"no result of command {pending.command_id} {ended}. It was accepted, {known}. Publishing it "
        "again with this command id is safe",
        reached,
        partition,
        offset,
    )
