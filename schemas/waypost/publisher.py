"""The agent's side: checkpoint commands, fire and forget.

A call validates, encodes, puts the command into a bounded buffer and returns its id; it never waits for
Kafka and works while Kafka is away. :class:`Publisher` belongs to an event loop, which must not be held up for
long; :class:`waypost.SyncPublisher` brings a thread of its own.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from waypost import commands
from waypost.awaiting import ResultWaiter, WaitedResult
from waypost.buffer import Buffer, OnFull, Pending
from waypost.calls import CommandCalls
from waypost.calls import split_import as split_import
from waypost.errors import DeliveryError, PublisherClosedError, ResultTimeoutError
from waypost.outgoing import create_body, policy_body
from waypost.sender import Sender
from waypost.stamps import new_id
from waypost.topics import DEFAULT_PREFIX, Topics

log = logging.getLogger("waypost")
OnDelivery = Callable[[str, BaseException | None], None]
DEFAULT_SOURCE: Final = "/waypost/publisher"
DEFAULT_COUNT: Final = 100_000
DEFAULT_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts of commands since the publisher was made, and its state now.

    ``accepted = delivered + failed + dropped + buffered``. ``connected``: there is a connection, or was one
    until Kafka went away; ``waiting_seconds`` is how long Kafka has left the oldest batch unanswered, and
    ``last_error`` what went wrong since the last batch that it took.
    """

    accepted: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    buffered_bytes: int
    connected: bool
    waiting_seconds: float
    last_error: str | None


class Publisher(CommandCalls):
    """Publishes commands from an event loop: ``async with waypost.Publisher("localhost:9092") as publisher``.

    ``on_full`` says what a call does when the buffer is full: ``"raise"`` BufferFullError (the default), or
    ``"drop_oldest"`` of those that are not yet on their way. A plain call can't wait on an event loop, so
    there is no ``"block"`` here: ``await publisher.room()`` before the call instead.

    ``on_delivery`` is called with each command id and None once Kafka has the command, or a DeliveryError if
    it was refused, dropped, or left when the publisher closed. ``options`` go to the Kafka client
    (``security_protocol``, ``ssl_context``, ``sasl_…``, ``client_id``, ``compression_type``,
    ``request_timeout_ms``).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        source: str = DEFAULT_SOURCE,
        max_buffer_count: int = DEFAULT_COUNT,
        max_buffer_bytes: int = DEFAULT_BYTES,
        on_full: OnFull = "raise",
        on_delivery: OnDelivery | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if on_full == "block":
            raise ValueError("on_full='block' would stop the event loop: await publisher.room() instead")
        self._init(
            bootstrap_servers,
            prefix,
            source,
            max_buffer_count,
            max_buffer_bytes,
            on_full,
            on_delivery,
            options,
        )

    def _init(
        self,
        bootstrap_servers: str,
        prefix: str,
        source: str,
        max_buffer_count: int,
        max_buffer_bytes: int,
        on_full: OnFull,
        on_delivery: OnDelivery | None,
        options: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self._topics = Topics(prefix)
        self._source = source.encode()
        self._max_bytes = max_buffer_bytes
        self._max_count = max_buffer_count
        self._options = {"bootstrap_servers": bootstrap_servers, **(options or {})}
        self._on_delivery = on_delivery
        self._buffer = Buffer(max_buffer_count, max_buffer_bytes, on_full, self._wake, self._dropped)
        self._sender: Sender | None = None
        self._waiter: ResultWaiter | None = None
        self._landings: dict[str, asyncio.Future[tuple[int, int]]] = {}
        self._pid = os.getpid()
        self._thread = 0
        self._closed = False
        self._delivered = self._failed = 0

    async def start(self) -> Self:
        """Begin to send. Returns at once, even while Kafka is away."""
        if self._sender is None:
            self._thread = threading.get_ident()
            self._loop = asyncio.get_running_loop()
            self._sender = Sender(self._buffer, self._topics, self._source, self._options, self._done)
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def flush(self, timeout: float | None = None) -> int:
        """Wait until Kafka has all that was accepted before this call; how many it has not got in time.

        ``timeout`` in seconds; None waits as long as it takes.
        """
        target = self._buffer.accepted
        if self._sender is not None and self._sender.alive:
            try:
                async with asyncio.timeout(timeout):
                    await self._sender.until(lambda: not self._buffer.holds(target))
            except TimeoutError:
                pass
        return len(self._buffer.left(target))

    async def room(self) -> None:
        """Wait until the buffer is at most half full: the way to slow down with Kafka."""

        def half_empty() -> bool:
            return 2 * len(self._buffer) <= self._max_count and 2 * self._buffer.bytes <= self._max_bytes

        if not half_empty():
            await self._working().until(half_empty)

    async def close(self, timeout: float = 10) -> int:
        """Flush for at most so many seconds, then end; how many accepted commands were left undelivered.

        Of those, some may have reached Kafka without its answer reaching us. ``on_delivery`` is told of each.
        """
        if self._closed:
            return len(self._buffer)
        self._closed = True
        try:
            await self.flush(timeout)
        finally:
            if self._sender is not None and self._sender.alive:
                await self._sender.stop()
            if self._waiter is not None:
                await self._waiter.stop()
            self._buffer.close()
        left = self._buffer.left(self._buffer.accepted)
        for pending in left:
            self._tell(pending, "left when the publisher closed; Kafka may have it or not")
        if left:
            reason = self._sender.last_error if self._sender is not None else None
            log.error(
                "%d accepted commands were not acknowledged by Kafka before the publisher closed (last error: "
                "%s)",
                len(left),
                reason,
            )
        return len(left)

    def stats(self) -> PublisherStats:
        """Counts, for your metrics."""
        sender = self._sender
        return PublisherStats(
            accepted=self._buffer.accepted,
            delivered=self._delivered,
            failed=self._failed,
            dropped=self._buffer.dropped,
            buffered=len(self._buffer),
            buffered_bytes=self._buffer.bytes,
            connected=sender is not None and sender.connected,
            waiting_seconds=0.0 if sender is None else sender.waiting_seconds(),
            last_error=None if sender is None else sender.last_error,
        )

    async def create_and_wait(
        self,
        session_id: str,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        timestamp: datetime | None = None,
        timeout: float = 10,
    ) -> WaitedResult:
        """Create a checkpoint and wait for its result, for those who need the id at once.

        ResultTimeoutError after ``timeout`` seconds says how far the command is known to have come: it is
        accepted and may still be applied. InvalidCommandError if the worker rejected it, DeliveryError if it
        will never reach the worker.
        """
        body = create_body(name, data, metadata)
        result = await self.publish_and_wait(
            session_id, commands.CREATE, body, timestamp=timestamp, timeout=timeout
        )
        return result.accepted()

    async def publish_and_wait(
        self,
        session_id: str,
        command_type: str,
        body: bytes,
        *,
        timestamp: datetime | None = None,
        command_id: str | None = None,
        timeout: float = 10,
    ) -> WaitedResult:
        """Publish any command and wait for its result, whatever it says; otherwise as create_and_wait."""
        pending = self._pending(command_type, session_id, body, timestamp, command_id)
        landing: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self._landings[pending.command_id] = landing
        try:
            self._accept(pending)
            if self._waiter is None:
                self._waiter = ResultWaiter(self._topics, self._options)
            async with asyncio.timeout(timeout):
                return await self._waiter.wait(pending.command_id, session_id, landing)
        except TimeoutError:
            raise self._overdue(pending.command_id, landing, timeout) from None
        finally:
            del self._landings[pending.command_id]
            if landing.done() and not landing.cancelled():
                landing.exception()  # looked at, whether or not somebody waited for it

    def _overdue(
        self, command_id: str, landing: "asyncio.Future[tuple[int, int]]", timeout: float
    ) -> ResultTimeoutError:
        if landing.done():
            partition, offset = landing.result()
            known = f"Kafka has it, at offset {offset} of partition {partition}; is a worker running?"
        else:
            error = None if self._sender is None else self._sender.last_error
            known = f"it is still in this publisher's buffer and will be sent (last error: {error})"
        return ResultTimeoutError(
            command_id,
            f"no result of command {command_id} within {timeout} s. It was accepted, {known}. Publishing it "
            "again with this command id is safe",
        )

    async def configure_defaults(self, **changes: int | float | None) -> list[str]:
        """Set the default policy of the deployment: one command to every partition; their ids.

        Waits until Kafka tells how many partitions there are.
        """
        body = policy_body(changes)
        partitions = await self._working().partitions()
        pending = [
            Pending(new_id(), commands.CONFIGURE_DEFAULTS, None, body, self._clock.now(), None, partition)
            for partition in range(partitions)
        ]
        self._accept(*pending)
        return [each.command_id for each in pending]

    def _working(self) -> Sender:
        if self._sender is None or self._closed:
            raise PublisherClosedError(
                "the publisher is closed or was not started, so the command was not accepted: use 'async with'"
            )
        if os.getpid() != self._pid:
            raise PublisherClosedError(
                "this publisher was made before a fork and belongs to the parent process, so the command was "
                "not accepted: make one in this process"
            )
        if not self._sender.alive:
            raise PublisherClosedError(
                "the event loop of this publisher is closed, so the command was not accepted: make a publisher "
                "for each event loop"
            )
        return self._sender

    def _accept(self, *pending: Pending, timeout: float | None = None) -> None:
        self._working()
        self._buffer.put(*pending, timeout=timeout)

    def _wake(self) -> None:
        sender = self._working()
        if threading.get_ident() == self._thread:
            sender.wake()
        else:
            self._loop.call_soon_threadsafe(sender.wake)

    def _done(self, pending: Pending, partition: int, offset: int, error: BaseException | None) -> None:
        if error is None:
            self._delivered += 1
            if (landing := self._landings.get(pending.command_id)) is not None and not landing.done():
                landing.set_result((partition, offset))
            if self._on_delivery is not None:
                self._call_back(pending.command_id, None)
        else:
            self._failed += 1
            log.error("Kafka refused command %s for good: %r", pending.command_id, error)
            self._tell(pending, f"Kafka refused it for good: {error!r}")

    def _dropped(self, pending: Pending) -> None:
        reason = "dropped: the buffer was full, and on_full is 'drop_oldest'"
        if threading.get_ident() == self._thread:
            self._tell(pending, reason)
        else:
            self._loop.call_soon_threadsafe(self._tell, pending, reason)

    def _tell(self, pending: Pending, reason: str) -> None:
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
