"""Starting and stopping as a block: ``with`` and ``async with``. Knows no server."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Start and stop are synchronous; `async with` runs them in a thread."""

    @abstractmethod
    def start(self) -> object:
        """Start it and wait until it serves; without effect where it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; without effect where it doesn't run."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
