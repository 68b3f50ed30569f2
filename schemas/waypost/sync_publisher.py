"""The publisher for code without an event loop: a thread of its own, calls safe from several threads."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Self, TypeVar

from waypost.buffer import OnFull, Pending
from waypost.publisher import CommandCalls, OnDelivery, Publisher, PublisherStats
from waypost.topics import DEFAULT_PREFIX

_T = TypeVar("_T")


class _Threaded(Publisher):
    """A publisher whose commands come from other threads than its loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *arguments: Any) -> None:
        self._loop = loop
        self._init(*arguments)

    def _wake(self) -> None:
        if self._sender is not None:
            self._loop.call_soon_threadsafe(self._sender.wake)


class SyncPublisher(CommandCalls):
    """As :class:`waypost.Publisher`, with plain ``close()`` and ``flush()``. ``on_full="block"`` waits."""

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
        self._source = source.encode()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="waypost-publisher", daemon=True)
        self._publisher = _Threaded(
            self._loop,
            bootstrap_servers,
            prefix,
            source,
            max_buffer_count,
            max_buffer_bytes,
            on_full,
            on_delivery,
            options,
        )
        self._closed = False
        self._thread.start()
        self._run(self._publisher.start())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self, timeout: float | None = None) -> int:
        """Wait until Kafka has all that was accepted before; how many it has not got in time."""
        return self._run(self._publisher.flush(timeout))

    def stats(self) -> PublisherStats:
        """Counts, for your metrics."""
        return self._publisher.stats()

    def close(self, timeout: float = 10) -> int:
        """Flush for at most so many seconds, then end; how many accepted commands were left undelivered."""
        if self._closed:
            return 0
        self._closed = True
        left = self._run(self._publisher.close(timeout))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return left

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _next_id(self) -> str:
        return self._publisher._next_id()

    def _accept(self, pending: Pending) -> None:
        self._publisher._accept(pending)
