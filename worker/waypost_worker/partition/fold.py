"""Folding batches of one partition over stored sessions: load missing sessions, decide and evolve, and read what
results return. The owner and replay both use this, and each decides what to do with the outcome.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from waypost.model.checkpoint import checkpoint_id
from waypost.model.decisions import NotSkipped
from waypost.model.index import Session
from waypost.model.partition_state import PartitionState
from waypost_worker.partition import outbox
from waypost_worker.partition.batch import Batch, Decoded, touched_sessions
from waypost_worker.partition.encode import Content, ResultEncoder
from waypost_worker.partition.kept import make_room
from waypost_worker.partition.ports import Changes, RefusedError, RejectedWindow, ResultRecord

_BASE_WEIGHT: Final = 8  # the weight of a session apart from its entries, in entries
# The sessions that one batch loads have at most this many checkpoints together, about 50 MB, or are a single one.
_LOAD_ITEMS: Final = 100_000
_LARGEST_SESSION: Final = 10_000
_TURN: Final = 500  # commands before the event loop gets a turn


class FoldResult(NamedTuple):
    """The outcome of one batch. ``results`` come with their command offsets; all in log order. ``others`` are the
    places of all commands except accepted creates; ``unmet`` are the valid orders to skip commands that were not
    skipped.
    """

    commands: Sequence[Decoded]
    others: Sequence[int]
    changes: Changes
    results: list[tuple[int, ResultRecord]]
    items: list[outbox.Item]
    unmet: Sequence[tuple[NotSkipped, int]] = ()


class Pieces(Protocol):
    """The source of the commands for batch after batch."""

    def batch(self) -> AsyncGenerator[Sequence[Decoded], None]:
        """Give the pieces of the next batch, in order, none of them empty."""
        ...

    def put_back(self, decoded: Sequence[Decoded]) -> None:
        """Take back the last commands that were given, for the next batch."""
        ...


class StoredSessions(Protocol):
    """The reads that folding needs from the store."""

    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        """See :class:`waypost_worker.partition.ports.Store`."""
        ...

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        """See :class:`waypost_worker.partition.ports.Store`."""
        ...

    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Content]:
        """See :class:`waypost_worker.partition.ports.Store`."""
        ...


class BatchFolder:
    """Sessions in memory between batches, ``cache_room()`` items of them (entries and command ids) at most.

    ``window`` shows which rejected commands are kept so far.
    """

    def __init__(
        self,
        encoder: ResultEncoder,
        store: StoredSessions,
        state: PartitionState,
        window: RejectedWindow,
        cache_room: Callable[[], int],
    ) -> None:
        self.encoder = encoder  # may be exchanged between batches
        self._store = store
        self._state = state
        self._cache = SessionCache(cache_room)
        self._touched: dict[str, None] = {}  # by the current batch
        self._window = window

    async def fold(self, pieces: Pieces, next_offset: int) -> FoldResult:
        """Fold one batch, the first command of which is the next to be applied, at or behind ``next_offset``.

        A batch ends where ``pieces`` says, or before, so that what it needs and makes fits into memory: the rest is
        put back.

        FencedError if the store is elsewhere: somebody else advances the partition. RefusedError if a
        checkpoint that must be stored is not.
        """
        cached = self._cache.sessions
        batch = Batch(self.encoder, cached, self._state)
        commands: list[Decoded] = []
        touched: dict[str, None] = {}
        ahead = pieces.batch()
        async for piece in ahead:
            taken: Sequence[Decoded] = piece
            rest: Sequence[Decoded] = ()
            sessions = touched_sessions(taken)
            if not cached.keys() >= sessions.keys():
                # One question for all that the rest will need, too.
                taken = [*piece, *[one async for piece in ahead for one in piece]]
                sessions = touched_sessions(taken)
                missing = [session_id for session_id in sessions if session_id not in cached]
                if later := await self._load(missing):
                    end = next(at for at, one in enumerate(taken) if one.session_id in later)
                    taken, rest = taken[:end], taken[end:]
                    sessions = touched_sessions(taken)
            added = await _add(batch, taken)
            if added < len(taken):
                taken, rest = taken[:added], [*taken[added:], *rest]
                sessions = touched_sessions(taken)
            commands += taken
            touched |= sessions
            if rest or batch.is_full:
                await ahead.aclose()
                pieces.put_back(rest)
                break
        self._touched = touched
        if batch.changes.rejected:
            self._make_room(batch.changes)
        results, items = batch.finish(await self._contents(batch.wanted(), next_offset))
        return FoldResult(commands, batch.others, batch.changes, results, items, batch.unmet)

    async def _load(self, session_ids: list[str]) -> set[str]:
        """Load sessions, as many as fit into memory; return those that are left for the next batch."""
        later: set[str] = set()
        if len(session_ids) * _LARGEST_SESSION > _LOAD_ITEMS:
            sizes = await self._store.sizes(session_ids)
            totals = accumulate(sizes.get(session_id, 0) + _BASE_WEIGHT for session_id in session_ids)
            fitting = max(1, sum(total <= _LOAD_ITEMS for total in totals))
            session_ids, later = session_ids[:fitting], set(session_ids[fitting:])
        stored = await self._store.load(session_ids)
        for session_id in session_ids:
            # Not "or": a session without live checkpoints is falsy, and still has counter and policy.
            found = stored.get(session_id)
            self._cache.sessions[session_id] = Session(session_id) if found is None else found
        return later

    def _make_room(self, changes: Changes) -> None:
        """Drop old rejected commands if there are too many with the new ones."""
        before = self._window
        self._window, changes.rejected_dropped = make_room(before, changes.rejected)
        changes.rejected_window = self._window
        if self._window.below > before.below:
            changes.rejected_below = self._window.below

    def settle(self) -> None:
        """The batch is committed: sessions used long ago may be dropped from memory."""
        self._cache.touch(self._touched)

    async def _contents(
        self, wanted: list[tuple[str, int]], next_offset: int
    ) -> dict[tuple[str, int], Content]:
        contents = await self._store.contents(wanted) if wanted else {}
        for session_id, number in wanted:
            if (session_id, number) not in contents:
                raise RefusedError(
                    f"Postgres holds no row for checkpoint {checkpoint_id(session_id, number)!r}, which the commands "
                    f"up to {next_offset - 1} left there: somebody removed it. Nothing was changed; run 'waypost "
                    "verify', and rebuild with 'waypost replay' into an empty database"
                )
        return contents


async def _add(batch: Batch, commands: Sequence[Decoded]) -> int:
    """Add commands until the batch is full; return how many. The event loop gets a turn now and then."""
    for start in range(0, len(commands), _TURN):
        if start:
            await asyncio.sleep(0)
        for index, one in enumerate(commands[start : start + _TURN], start + 1):
            batch.add(one)
            if batch.pauses:
                if batch.is_full:
                    return index
                await asyncio.sleep(0)
                batch.resume()
    return len(commands)


class SessionCache:
    """Sessions by id, together at most ``room()`` items (entries and remembered command ids).

    Dropping one is always safe: it is read again from the store. So is dropping all after a failure. The room
    may change: it is what an owner's share of its worker's memory is now.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self.sessions: dict[str, Session] = {}
        self._room = room
        self._weights: dict[str, int] = {}
        self._total = 0

    def touch(self, session_ids: Iterable[str]) -> None:
        """Mark as just used, weigh again, and drop the least recently used ones beyond the limit."""
        for session_id in session_ids:
            session = self.sessions.pop(session_id, None)
            if session is None:
                continue
            self.sessions[session_id] = session
            weight = _BASE_WEIGHT + session.weight()
            self._total += weight - self._weights.get(session_id, 0)
            self._weights[session_id] = weight
        room = self._room()
        while self._total > room and len(self.sessions) > 1:
            oldest = next(iter(self.sessions))
            del self.sessions[oldest]
            self._total -= self._weights.pop(oldest, 0)

    def __len__(self) -> int:
        return len(self.sessions)
