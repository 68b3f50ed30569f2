"""The Store port with a stopwatch around each call."""

import time
from collections.abc import Iterable, Sequence

from typing_extensions import override

from waypost.model.index import Session
from waypost_worker.partition.ports import AcquiredState, Commit, Fence, Store
from waypost_worker.telemetry.metrics import Metrics


class TimedStore(Store):
    """Calls ``store``, which is in a ``shard``, and reports to ``metrics`` how long each answered call took."""

    # No context manager around the calls: it costs as much as all the rest.

    def __init__(self, store: Store, metrics: Metrics, shard: int = 0) -> None:
        self._store = store
        self._acquired = metrics.postgres(shard, "acquire")
        self._recorded = metrics.postgres(shard, "record_claim")
        self._saved = metrics.postgres(shard, "save_position")
        self._sized = metrics.postgres(shard, "sizes")
        self._loaded = metrics.postgres(shard, "load")
        self._fetched = metrics.postgres(shard, "contents")
        self._committed = metrics.postgres(shard, "commit")

    @override
    async def acquire(self, partitions: int) -> AcquiredState:
        began = time.perf_counter()
        acquired = await self._store.acquire(partitions)
        self._acquired(time.perf_counter() - began)
        return acquired

    @override
    async def record_claim(self, epoch: int, fence: Fence) -> None:
        began = time.perf_counter()
        await self._store.record_claim(epoch, fence)
        self._recorded(time.perf_counter() - began)

    @override
    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        began = time.perf_counter()
        await self._store.save_position(epoch, emitted, results_offset)
        self._saved(time.perf_counter() - began)

    @override
    async def note_blocked(self, offset: int) -> None:
        await self._store.note_blocked(offset)

    @override
    async def is_skip_requested(self) -> bool:
        return await self._store.is_skip_requested()

    @override
    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        began = time.perf_counter()
        sizes = await self._store.sizes(session_ids)
        self._sized(time.perf_counter() - began)
        return sizes

    @override
    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        began = time.perf_counter()
        sessions = await self._store.load(session_ids)
        self._loaded(time.perf_counter() - began)
        return sessions

    @override
    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        began = time.perf_counter()
        contents = await self._store.contents(keys)
        self._fetched(time.perf_counter() - began)
        return contents

    @override
    async def commit(self, commit: Commit) -> None:
        began = time.perf_counter()
        await self._store.commit(commit)
        self._committed(time.perf_counter() - began)
