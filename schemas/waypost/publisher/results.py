"""Commands whose results, or places in the log, somebody waits for.

Knows how a command is followed from its acceptance to its result, and what to say if that takes too long. Does not know
how commands are buffered and sent.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from waypost.arguments import require_timeout
from waypost.publisher.calls import CommandMethods
from waypost.publisher.delivery import DeliveryFuture, DeliveryTracker
from waypost.publisher.pending import Pending
from waypost.wire.encode import check_raw
from waypost.wire.topics import Topics

if TYPE_CHECKING:
    from waypost.publisher.encrypter import Encrypter
    from waypost.publisher.sender import Sender
    from waypost.publisher.waiter import CommandResult, ResultWaiter

_T = TypeVar("_T")


class ResultMethods(CommandMethods):
    """The calls of a publisher that wait for results."""

    _topics: Topics
    _options: dict[str, Any]
    _outcomes: DeliveryTracker
    _encrypter: "Encrypter | None"
    _sender: "Sender | None"
    _waiter: "ResultWaiter | None"

    async def create_and_wait(
        self,
        session_id: str,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        timestamp: datetime | None = None,
        timeout: float = 10,
    ) -> "CommandResult":
        """Create a checkpoint and wait for its result, if you need its id immediately.

        Args:
            session_id: The session; its first checkpoint creates it.
            name: What happened, such as ``"task_done"``.
            data: What the agent knows, as a JSON object.
            metadata: A small JSON object to search by.
            timestamp: When it happened, with a time zone; now by default.
            timeout: Seconds to wait for the result.

        Raises:
            InvalidCommandError: An argument breaks the contract, or the worker rejected the command.
            ResultTimeoutError: No result came in time. The command was accepted and may still be applied; the error
                says how far it is known to have gotten.
            DeliveryError: The command will never reach the worker.
            BufferFullError: The buffer is full, and the command was not accepted.
            PublisherClosedError: The publisher is closed or was not started.
        """
        pending = self._creating(session_id, name, data, metadata, timestamp)
        result = await self._here(self._publish_and_wait(pending, session_id, timeout))
        return result.raise_if_rejected()

    async def publish_and_wait(
        self,
        session_id: str,
        command_type: str,
        body: bytes,
        *,
        timestamp: datetime | None = None,
        command_id: str | None = None,
        timeout: float = 10,
    ) -> "CommandResult":
        """Publish a command whose body you encoded yourself, and wait for its result.

        A rejection is returned like any other result; see :meth:`waypost.CommandResult.raise_if_rejected`.

        Raises:
            InvalidCommandError: An argument breaks the contract.
            ResultTimeoutError: No result came in time. The command was accepted and may still be applied; the error
                says how far it is known to have gotten.
            DeliveryError: The command will never reach the worker.
            BufferFullError: The buffer is full, and the command was not accepted.
            PublisherClosedError: The publisher is closed or was not started.
        """
        check_raw(command_type, body)
        pending = self._pending(command_type, session_id, body, timestamp, command_id)
        return await self._here(self._publish_and_wait(pending, session_id, timeout))

    async def _publish_and_wait(self, pending: Pending, session_id: str, timeout: float) -> "CommandResult":
        from waypost.publisher.waiter import ResultWaiter, result_timeout_error  # brings the Kafka client

        require_timeout(timeout)
        limit = asyncio.timeout(timeout)
        landing = self._outcomes.expect(pending.command_id)
        try:
            if self._encrypter is not None:
                self._working()
                await self._encrypter.load([pending], timeout)
            self._accept(pending)
            if self._waiter is None:
                self._waiter = ResultWaiter(self._topics, self._options)
            async with limit:
                return await self._waiter.wait(pending.command_id, session_id, landing)
        except TimeoutError:
            ended = f"within {timeout:g} s" if limit.expired() else "before the publisher was closed"
            unreadable = None if self._waiter is None else self._waiter.last_error
            raise result_timeout_error(pending, landing, self._sender, ended, unreadable) from None
        finally:
            self._outcomes.forget(pending.command_id)

    def _publish_tracked(
        self, command_type: str, session_id: str, body: bytes, timestamp: datetime | None = None
    ) -> tuple[Pending, DeliveryFuture]:
        """Publish a command, on this publisher's event loop, and return with it where it will land."""
        pending = self._pending(command_type, session_id, body, timestamp)
        landing = self._outcomes.expect(pending.command_id)
        try:
            self._accept(pending)
        except BaseException:
            self._outcomes.forget(pending.command_id)
            raise
        landing.add_done_callback(lambda _: self._outcomes.forget(pending.command_id))
        return pending, landing

    def _undelivered_error(self, pending: Pending, landing: DeliveryFuture, ended: str) -> Exception:
        """Return the error for a command that Kafka has not acknowledged until ``ended``."""
        from waypost.publisher.waiter import result_timeout_error  # brings the Kafka client

        return result_timeout_error(pending, landing, self._sender, ended, None)

    @abstractmethod
    def _working(self) -> "Sender": ...

    @abstractmethod
    async def _here(self, call: Coroutine[Any, Any, _T]) -> _T: ...
