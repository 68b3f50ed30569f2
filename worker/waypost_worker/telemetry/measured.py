"""The Store port with a stopwatch around each call."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from waypost.session_index import Session
from waypost_worker.partition.ports import Claim, Commit, Fence, Store
from waypost_worker.telemetry.metrics import Metrics


class MeasuredStore:
    """Calls ``store``, which is in a ``shard``, and tells ``metrics`` how long each call took that was answered."""

    def __init__(self, store: Store, metrics: Metrics, shard: int = 0) -> None:
        self._store = store
        self._metrics = metrics
        self._shard = shard

    async def acquire(self, partitions: int) -> Claim:
        """See the port."""
        with self._measured("acquire"):
            return await self._store.acquire(partitions)

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        """See the port."""
        with self._measured("record_claim"):
            await self._store.record_claim(epoch, fence)

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        """See the port."""
        with self._measured("save_position"):
            await self._store.save_position(epoch, emitted, results_offset)

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """See the port."""
        with self._measured("load"):
            return await self._store.load(session_ids)

    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        """See the port."""
        with self._measured("contents"):
            return await self._store.contents(keys)

    async def commit(self, commit: Commit) -> None:
        """See the port."""
        with self._measured("commit"):
            await self._store.commit(commit)

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._metrics.postgres(self._shard, operation, time.perf_counter() - began)
