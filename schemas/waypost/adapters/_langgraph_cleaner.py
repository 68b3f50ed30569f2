"""Clean-ups of LangGraph threads: one at a time per thread across processes, and none ever fails a run.

:mod:`waypost.adapters._langgraph_cleanup` decides what may be removed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from waypost.adapters import _langgraph_cleanup as cleanup
from waypost.adapters._langgraph_layout import Key
from waypost.adapters.backend import Backend
from waypost.adapters.records import Record, Row
from waypost.backoff import Backoff
from waypost.errors import WaypostError

_AT_ONCE: Final = 50  # records whose values are carried before these records are deleted
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0

#: Which checkpoints leave, of all records of a thread.
Choice = Callable[[Sequence[Row]], set[Key]]


class Cleaner:
    """Removes checkpoints of threads, and what only they need."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._locks: dict[str, asyncio.Lock] = {}

    def begin(self, session_id: str, keep: int) -> None:
        """Keep the newest ``keep`` checkpoints of each namespace, in the background."""

        def choice(rows: Sequence[Row]) -> set[Key]:
            return cleanup.older_than_newest(rows, keep, at_once=cleanup.is_crowded(rows))

        if session_id not in self._locks:
            self._backend.tidy(session_id, lambda: self._locked(session_id, choice, True, None))

    async def run(self, session_id: str, choice: Choice, *, leased: bool = True) -> None:
        """Remove checkpoints now, after any other clean-up of the thread.

        If not ``leased``, what only runs under way may need leaves too.

        Raises:
            WaypostError: Another program's clean-up of the thread did not end in time. Nothing was removed.
        """
        await self._locked(session_id, choice, leased, self._backend.timeout)

    async def _locked(self, session_id: str, choice: Choice, leased: bool, patience: float | None) -> None:
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        try:
            async with lock:
                await self._claimed(session_id, choice, leased, patience)
        finally:
            if not lock.locked():
                self._locks.pop(session_id, None)

    async def _claimed(self, session_id: str, choice: Choice, leased: bool, patience: float | None) -> None:
        """Remove, unless another program's clean-up is under way: then after it, or, without patience, not at all."""
        rows = await self._backend.rows(session_id, "index")
        if patience is None and not choice(rows):
            return
        if not rows:
            return
        (mine,) = (
            await self._backend.append(session_id, [Record(cleanup.SWEEP, {}, {})], spare=True)
        ).numbers
        try:
            rows = await self._backend.rows(session_id, "index")
            if cleanup.is_swept(rows, mine):
                if patience is None:
                    return
                rows = await self._until_swept(session_id, mine, patience)
            try:
                async with asyncio.timeout(cleanup.SWEEP_SECONDS):
                    await self._remove(session_id, rows, choice(rows), leased)
            except TimeoutError:
                raise WaypostError(
                    f"Cleaning up {session_id!r} took longer than {cleanup.SWEEP_SECONDS:g} s, so only a part was "
                    "removed. Nothing else was. Do it again"
                ) from None
        finally:
            with suppress(WaypostError):  # it counts for some minutes only
                await self._backend.delete(session_id, [mine])

    async def _until_swept(self, session_id: str, mine: int, patience: float) -> list[Row]:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        try:
            async with asyncio.timeout(patience):
                while True:
                    await asyncio.sleep(backoff.next_wait())
                    rows = await self._backend.rows(session_id, "index")
                    if not cleanup.is_swept(rows, mine):
                        return rows
        except TimeoutError:
            raise WaypostError(
                f"Another program has been cleaning up {session_id!r} for {patience:g} s, so nothing was removed. "
                "Try again later"
            ) from None

    async def _remove(self, session_id: str, rows: Sequence[Row], dropped: set[Key], leased: bool) -> None:
        plan = cleanup.plan(rows, dropped, leased=leased)
        for record in plan.leases:
            await self._backend.append(session_id, [record], spare=True)
        # Step by step: a full thread has no room for all that is carried before anything leaves.
        left = plan.gone
        for start in range(0, len(plan.carriers), _AT_ONCE):
            carriers = plan.carriers[start : start + _AT_ONCE]
            for record in cleanup.carried(
                await self._backend.rows(session_id, "numbers", carriers), plan.carry
            ):
                await self._backend.append(session_id, [record], spare=True)
            await self._backend.delete(session_id, carriers)
            gone = set(carriers)
            left = [number for number in left if number not in gone]
        if left:
            await self._backend.delete(session_id, left)
