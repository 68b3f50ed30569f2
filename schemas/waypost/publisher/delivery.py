"""Outcomes of accepted commands, reported to the callback, to waiting callers, and to the counts."""

import asyncio
import logging

from waypost.errors import DeliveryError
from waypost.publisher.options import OnDelivery
from waypost.publisher.pending import Pending

log = logging.getLogger("waypost")
#: Gets partition and offset of a command once Kafka has it.
DeliveryFuture = asyncio.Future[tuple[int, int]]


class DeliveryTracker:
    """Belongs to the publisher's event loop. ``delivered`` and ``failed`` count commands."""

    def __init__(self, on_delivery: OnDelivery | None) -> None:
        self.delivered = 0
        self.failed = 0
        self._on_delivery = on_delivery
        self._landings: dict[str, DeliveryFuture] = {}

    def expect(self, command_id: str) -> DeliveryFuture:
        """Return a future of where this command lands, or of the DeliveryError that keeps it out; until
        :meth:`forget`.
        """
        landing = self._landings[command_id] = asyncio.get_running_loop().create_future()
        return landing

    def forget(self, command_id: str) -> None:
        """Stop waiting for this command."""
        landing = self._landings.pop(command_id)
        if landing.done() and not landing.cancelled():
            landing.exception()  # looked at, whether or not somebody waited for it

    def done(self, pending: Pending, partition: int, offset: int, error: BaseException | None) -> None:
        """Kafka has it (``offset`` -1 if unknown), or refused it for good."""
        if error is None:
            self.delivered += 1
            if (landing := self._landings.get(pending.command_id)) is not None and not landing.done():
                landing.set_result((partition, offset))
            if self._on_delivery is not None:
                self._call_back(pending.command_id, None)
        else:
            self.failed += 1
            log.error("Kafka permanently rejected command %s: %r", pending.command_id, error)
            self.lost(pending, f"Kafka refused it for good: {error!r}")

    def lost(self, pending: Pending, reason: str) -> None:
        """It will not reach Kafka by us, or nobody knows whether it did."""
        error = DeliveryError(pending.command_id, f"command {pending.command_id}: {reason}")
        if (landing := self._landings.get(pending.command_id)) is not None and not landing.done():
            landing.set_exception(error)
        if self._on_delivery is not None:
            self._call_back(pending.command_id, error)

    def _call_back(self, command_id: str, error: BaseException | None) -> None:
        try:
            if self._on_delivery is not None:
                self._on_delivery(command_id, error)
        except Exception:
            log.exception("the delivery callback failed for %s", command_id)
