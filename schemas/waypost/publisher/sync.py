"""The publisher for code without an event loop: its own thread, and calls that are safe from several threads."""

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from waypost.arguments import require_timeout
from waypost.deprecation import deprecated, renamed_keywords
from waypost.errors import PublisherClosedError
from waypost.publisher.calls import CommandMethods
from waypost.publisher.client import Publisher
from waypost.publisher.exits import at_exit, not_at_exit
from waypost.publisher.options import RENAMED_OPTIONS, RETIRED_OPTIONS, PublisherOptions
from waypost.publisher.pending import Pending
from waypost.publisher.stats import PublisherStats

if TYPE_CHECKING:
    from waypost.publisher.waiter import CommandResult

_EXIT_SECONDS: Final = 5.0
_T = TypeVar("_T")


class _Threaded(Publisher):
    """The publisher in the thread. Its calls come from other threads, so they may wait for room."""

    _may_block = True
    _kind = "SyncPublisher"


class SyncPublisher(CommandMethods):
    """Publisher of commands for code without an event loop, with its own thread.

    It is ready once it is created, and its calls are safe from several threads. The options are those of
    :class:`waypost.PublisherOptions`. With
    ``on_full="block"``, a call waits for room, at most ``block_timeout`` seconds. With ``spool_fsync``, a call returns
    once the disk has the command, and threads that call at the same time share one sync of the disk. If that fails, the
    call raises a SpoolError, although the command was accepted. ``on_delivery`` is called in the publisher's own
    thread. A publisher that is still open when the process ends normally is closed then, within 5 seconds; this holds
    for children of multiprocessing too.
    """

    @renamed_keywords(RETIRED_OPTIONS, **RENAMED_OPTIONS)
    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        block_timeout: float | None = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        require_timeout(block_timeout, "block_timeout")
        self._publisher = _Threaded(bootstrap_servers, **options)
        super().__init__(self._publisher._default, encrypts=self._publisher._encrypts)
        self._block_timeout = block_timeout
        self._synced = options.get("spool") is not None and options.get("spool_fsync", False)
        self._closing = threading.Lock()
        self._left: int | None = None
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="waypost-publisher", daemon=True)
        self._thread.start()
        try:
            self._run(self._publisher.start())
        except BaseException:
            self._end_loop()
            raise
        at_exit(self._close_at_exit)

    def __repr__(self) -> str:
        return repr(self._publisher)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self, timeout: float | None = None) -> int:
        """Wait until Kafka has acknowledged everything accepted before this call.

        See :meth:`waypost.Publisher.flush`.
        """
        return self._run(self._publisher.flush(timeout))

    def persisted(self) -> None:
        """Wait until everything accepted before this call is on the local disk or in Kafka.

        See :meth:`waypost.Publisher.persisted`.
        """
        self._run(self._publisher.persisted())

    @deprecated("persisted()")
    def saved(self) -> None:
        """Call :meth:`persisted`, the new name."""
        self.persisted()

    def prepare(self, *session_ids: str) -> None:
        """Have the keys of sessions in memory. Calls load the keys that they need, so this only saves the first wait.

        See :meth:`waypost.Publisher.prepare`.
        """
        self._run(self._publisher.prepare(*session_ids))

    def stats(self) -> PublisherStats:
        """Return counts for your metrics."""
        return self._publisher.stats()

    def create_and_wait(
        self,
        session_id: str,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        timestamp: datetime | None = None,
        timeout: float = 10,
    ) -> "CommandResult":
        """Create a checkpoint and wait for its result.

        See :meth:`waypost.Publisher.create_and_wait`.
        """
        return self._run(
            self._publisher.create_and_wait(
                session_id, name, data, metadata, timestamp=timestamp, timeout=timeout
            )
        )

    def publish_and_wait(
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

        See :meth:`waypost.Publisher.publish_and_wait`.
        """
        return self._run(
            self._publisher.publish_and_wait(
                session_id, command_type, body, timestamp=timestamp, command_id=command_id, timeout=timeout
            )
        )

    def close(self, timeout: float = 10) -> int:
        """Flush for at most ``timeout`` seconds, then stop.

        See :meth:`waypost.Publisher.close`.
        """
        require_timeout(timeout)
        with self._closing:
            if self._left is None:
                try:
                    self._left = self._run(self._publisher.close(timeout))
                except PublisherClosedError:
                    raise
                except BaseException:
                    # An interrupt: no more waiting for Kafka, but what can be kept is kept.
                    self._left = self._run(self._publisher.close(_EXIT_SECONDS))
                    raise
                finally:
                    if self._left is not None:
                        self._end_loop()
                        not_at_exit(self._close_at_exit)
            return self._left

    def _end_loop(self) -> None:
        self._run(self._others_ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _others_ended(self) -> None:
        # Threads may be waiting here for a result or a flush. They have been notified, and need a moment to react.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_EXIT_SECONDS)

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        if os.getpid() != self._pid or self._loop.is_closed() or threading.current_thread() is self._thread:
            call.close()
            raise PublisherClosedError(
                "this publisher is closed, belongs to the parent of this process, or is asked to wait in its own "
                "thread (a delivery callback)"
            )
        running = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()  # nobody waits for it
            raise

    def _accept(self, *pending: Pending) -> None:
        # A delivery callback runs in the thread that makes room, so it must not wait for room.
        own = threading.get_ident() == self._thread.ident
        encrypter = self._publisher._encrypter
        if encrypter is not None and not own and encrypter.needs_keys(pending):
            self._run(encrypter.load(pending))
        self._publisher._accept(*pending, timeout=0 if own else self._block_timeout)
        if self._synced and not own:
            self._wait_for_the_disk(pending)

    def _wait_for_the_disk(self, accepted: Sequence[Pending]) -> None:
        spooler = self._publisher._spooler
        assert spooler is not None
        number = accepted[-1].number
        done = threading.Event()
        spooler.when_persisted(number, done.set)
        done.wait()
        spooler.persisted(number)

    def _close_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self.close(_EXIT_SECONDS)
