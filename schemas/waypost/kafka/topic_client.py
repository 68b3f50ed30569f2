"""Shared base of the reader and the producer of a topic: connections, tasks, and new metadata after an error."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from waypost.kafka.cluster_connections import ClusterConnections

_BACKOFF_MS: Final = 100


class TopicClient:
    """Connections to a cluster, and the tasks that use them for one topic.

    ``options`` are those of an aiokafka client. ``unreachable`` gets a text when a broker can't be reached. A subclass
    looks at metadata again whenever ``_changed`` is set.
    """

    def __init__(
        self, topic: str, options: Mapping[str, Any], unreachable: Callable[[str], None] | None = None
    ) -> None:
        self.topic = topic
        self.connections = ClusterConnections(**options, on_unreachable=unreachable)
        self._backoff = options.get("retry_backoff_ms", _BACKOFF_MS) / 1000
        self._asked: set[int] = set()  # brokers
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None

    def _refresh(self) -> None:
        """Ask for metadata, unless that is under way or was done less than the back-off ago."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._begin(self._refresh_soon())

    async def _refresh_soon(self) -> None:
        await self.connections.add_topic(self.topic)
        await self.connections.refresh()
        await asyncio.sleep(self._backoff)
        self._changed.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
