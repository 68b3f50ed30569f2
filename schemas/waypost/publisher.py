"""The agent's side: checkpoint commands, fire and forget.

A call validates, encodes, puts the command into a bounded buffer and returns its id; it never waits for
Kafka and works while Kafka is away. :class:`Publisher` belongs to an event loop, :class:`SyncPublisher` brings
a thread of its own.
"""

import asyncio
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from waypost import commands
from waypost.awaiting import ResultWaiter, WaitedResult
from waypost.bodies import elements
from waypost.buffer import Buffer, OnFull, Pending
from waypost.commands import OnConflict
from waypost.envelope import command_headers
from waypost.errors import DeliveryError, InvalidCommandError, PublisherClosedError
from waypost.outgoing import (
    check_session_id,
    checkpoint_body,
    create_body,
    import_body,
    policy_body,
    rollback_body,
)
from waypost.sender import Sender
from waypost.text import check_json
from waypost.times import format_micros, to_micros
from waypost.topics import DEFAULT_PREFIX, Topics

log = logging.getLogger("waypost")
OnDelivery = Callable[[str, BaseException | None], None]
_IMPORT_PART_BYTES: Final = 900_000
_IMPORT_PART_COUNT: Final = 10_000


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts of commands since the publisher was made; ``buffered`` and its bytes are as of now."""

    accepted: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    buffered_bytes: int
    connected: bool
    last_error: str | None


class _Ids:
    """Random UUIDs (version 4, RFC 9562) as text; the system is asked for 256 of them at a time."""

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        with self._lock:
            if self._at + 32 > len(self._hex):
                self._hex, self._at = os.urandom(4096).hex(), 0
            h = self._hex[self._at : self._at + 32]
            self._at += 32
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


class CommandCalls(ABC):
    """The commands as plain calls. Each returns the command id; each raises InvalidCommandError, naming the
    argument, or BufferFullError, or PublisherClosedError, and then the command was not accepted.
    """

    _source: bytes

    def create(
        self,
        session_id: str,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        timestamp: datetime | None = None,
    ) -> str:
        """Append a checkpoint. ``timestamp`` (aware) is now where none is given."""
        return self._send(commands.CREATE, session_id, create_body(name, data, metadata), timestamp)

    def pin(self, session_id: str, checkpoint_id: str) -> str:
        """Exempt a checkpoint from retention."""
        return self._send(commands.PIN, session_id, checkpoint_body(checkpoint_id))

    def unpin(self, session_id: str, checkpoint_id: str) -> str:
        """Give a checkpoint back to retention."""
        return self._send(commands.UNPIN, session_id, checkpoint_body(checkpoint_id))

    def delete(self, session_id: str, checkpoint_id: str) -> str:
        """Drop one checkpoint."""
        return self._send(commands.DELETE, session_id, checkpoint_body(checkpoint_id))

    def clear(self, session_id: str) -> str:
        """Drop all checkpoints of a session, pinned ones too."""
        return self._send(commands.CLEAR, session_id, b"{}")

    def rollback(self, session_id: str, checkpoint_id: str, *, discard_later: bool = False) -> str:
        """Record a rollback; with ``discard_later`` drop every higher number."""
        return self._send(commands.ROLLBACK, session_id, rollback_body(checkpoint_id, discard_later))

    def configure(self, session_id: str, **changes: int | float | None) -> str:
        """Change fields of the session's policy: max_checkpoints, compress_after, keep_recent, max_age (s)."""
        return self._send(commands.CONFIGURE, session_id, policy_body(changes))

    def import_checkpoints(
        self, session_id: str, json_text: str | bytes, on_conflict: OnConflict = "skip"
    ) -> list[str]:
        """Take over an exported list. A long one is split; each part is one command; their ids."""
        parts = split_import(json_text)
        return [self._send(commands.IMPORT, session_id, import_body(part, on_conflict)) for part in parts]

    def publish(
        self,
        session_id: str,
        command_type: str,
        body: bytes,
        *,
        timestamp: datetime | None = None,
        command_id: str | None = None,
    ) -> str:
        """Publish a body as it is. With the ``command_id`` of an earlier try, a repetition has no effect."""
        return self._send(command_type, session_id, body, timestamp, command_id)

    def _send(
        self,
        command_type: str,
        session_id: str,
        body: bytes,
        timestamp: datetime | None = None,
        command_id: str | None = None,
    ) -> str:
        check_session_id(session_id)
        if timestamp is None:
            at = datetime.now(UTC).isoformat(timespec="microseconds")[:26] + "Z"
        else:
            at = format_micros(to_micros(timestamp))
        identifier = command_id or self._next_id()
        headers = command_headers(
            identifier, self._source, command_type.encode(), at.encode(), current_traceparent()
        )
        self._accept(Pending(identifier, session_id, body, headers))
        return identifier

    @abstractmethod
    def _next_id(self) -> str: ...

    @abstractmethod
    def _accept(self, pending: Pending) -> None: ...


class Publisher(CommandCalls):
    """Publishes commands from an event loop.

    ``options`` go to the Kafka client (security, client_id, compression_type). ``on_delivery`` is called with
    each command id and None once Kafka has it, or the error if it never will. ``on_full`` says what a call does
    when the buffer is full: ``"raise"`` BufferFullError, or ``"drop_oldest"``. To wait instead:
    ``await publisher.room()`` before the call.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        source: str = "/waypost/publisher",
        max_buffer_count: int = 100_000,
        max_buffer_bytes: int = 64 * 1024 * 1024,
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
        self._topics = Topics(prefix)
        self._source = source.encode()
        self._max_bytes = max_buffer_bytes
        self._max_count = max_buffer_count
        self._options = {"bootstrap_servers": bootstrap_servers, **(options or {})}
        self._on_delivery = on_delivery
        self._ids = _Ids()
        self._buffer = Buffer(max_buffer_count, max_buffer_bytes, on_full, self._wake, self._dropped)
        self._sender: Sender | None = None
        self._waiter: ResultWaiter | None = None
        self._pid = os.getpid()
        self._closed = False
        self._delivered = self._failed = self._drops = 0

    async def start(self) -> Self:
        """Begin to send. Returns at once, even while Kafka is away."""
        if self._sender is None:
            self._sender = Sender(self._buffer, self._topics, self._options, self._finished)
            self._sender.start()
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def flush(self, timeout: float | None = None) -> int:
        """Wait until Kafka has all that was accepted before this call; how many it has not got in time."""
        target = self._buffer.accepted
        if self._sender is not None:
            try:
                await asyncio.wait_for(self._sender.until(target), timeout)
            except TimeoutError:
                return target - self._buffer.taken
        return target - self._buffer.taken

    async def room(self) -> None:
        """Wait until the buffer is at most half full: the way to slow down with Kafka."""
        while self._sender is not None and (
            len(self._buffer) > self._max_count // 2 or self._buffer.bytes > self._max_bytes // 2
        ):
            await self._sender.until(self._buffer.taken + 1)

    async def close(self, timeout: float = 10) -> int:
        """Flush for at most so many seconds, then end; how many accepted commands were left undelivered."""
        if self._closed:
            return 0
        self._closed = True
        left = await self.flush(timeout)
        if self._sender is not None:
            await self._sender.stop()
        if self._waiter is not None:
            await self._waiter.stop()
        self._buffer.close()
        if left:
            log.error("%d accepted commands were not delivered to Kafka before the publisher closed", left)
        return left

    def stats(self) -> PublisherStats:
        """Counts, for your metrics."""
        sender = self._sender
        return PublisherStats(
            accepted=self._buffer.accepted,
            delivered=self._delivered,
            failed=self._failed,
            dropped=self._drops,
            buffered=len(self._buffer),
            buffered_bytes=self._buffer.bytes,
            connected=sender is not None and sender.connected,
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

        ResultTimeoutError after ``timeout`` seconds: the command is accepted and may still be applied.
        """
        body = create_body(name, data, metadata)
        return await self.publish_and_wait(
            session_id, commands.CREATE, body, timestamp=timestamp, timeout=timeout
        )

    async def publish_and_wait(
        self,
        session_id: str,
        command_type: str,
        body: bytes,
        *,
        timestamp: datetime | None = None,
        timeout: float = 10,
    ) -> WaitedResult:
        """Publish any command and wait for its result, as :meth:`create_and_wait` does."""
        if self._waiter is None:
            self._waiter = ResultWaiter(self._topics, self._options)
        identifier = self._ids.next()
        async with self._waiter.expecting(identifier, timeout) as result:
            self._send(command_type, session_id, body, timestamp, identifier)
            return await result

    async def configure_defaults(self, **changes: int | float | None) -> list[str]:
        """Set the default policy of the deployment: one command to every partition; their ids."""
        body = policy_body(changes)
        if self._sender is None:
            raise PublisherClosedError("the publisher is not started: use 'async with', or await start()")
        sent = []
        for partition in range(await self._sender.partitions()):
            identifier = self._ids.next()
            at = datetime.now(UTC).isoformat(timespec="microseconds")[:26] + "Z"
            kind = commands.CONFIGURE_DEFAULTS.encode()
            headers = command_headers(identifier, self._source, kind, at.encode())
            self._accept(Pending(identifier, None, body, headers, partition))
            sent.append(identifier)
        return sent

    def _next_id(self) -> str:
        return self._ids.next()

    def _accept(self, pending: Pending) -> None:
        if self._sender is None or self._closed:
            raise PublisherClosedError(
                "the publisher is closed or was not started, so the command was not accepted: use 'async with'"
            )
        if os.getpid() != self._pid:
            raise PublisherClosedError(
                "this publisher was made before a fork and belongs to the parent: make one in this process"
            )
        self._buffer.put(pending)

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    def _finished(self, pending: Pending, error: BaseException | None) -> None:
        if error is None:
            self._delivered += 1
        else:
            self._failed += 1
            log.error("Kafka refused command %s for good: %r", pending.command_id, error)
        self._tell(pending, None if error is None else DeliveryError(pending.command_id, repr(error)))

    def _dropped(self, pending: Pending) -> None:
        self._drops += 1
        self._tell(pending, DeliveryError(pending.command_id, "dropped: the buffer was full"))

    def _tell(self, pending: Pending, error: BaseException | None) -> None:
        if self._on_delivery is not None:
            try:
                self._on_delivery(pending.command_id, error)
            except Exception:
                log.exception("the delivery callback failed for %s", pending.command_id)


def split_import(json_text: str | bytes) -> Sequence[list[bytes]]:
    """An exported list as parts that each fit into one command. InvalidCommandError if it is no JSON list."""
    raw = json_text.encode() if isinstance(json_text, str) else json_text
    if not isinstance(check_json(raw, around=2), list):
        raise InvalidCommandError("invalid-body", "an import is a JSON list of checkpoints")
    parts: list[list[bytes]] = [[]]
    size = 0
    for element in elements(raw.decode().strip()):
        item = element.encode()
        if parts[-1] and (size + len(item) > _IMPORT_PART_BYTES or len(parts[-1]) >= _IMPORT_PART_COUNT):
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += len(item) + 1
    return parts


def current_traceparent() -> bytes | None:
    """The W3C trace context of the active OpenTelemetry span, where the application uses OpenTelemetry."""
    import sys

    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}".encode()
