"""Lists checkpoints of one LangGraph thread or of all, page after page, newest first."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_id
from langgraph.checkpoint.serde.base import SerializerProtocol

from waypost.adapters import _langgraph_layout as layout
from waypost.adapters._langgraph_threads import PREFIX, session_of_thread, thread_of
from waypost.adapters.backend import Backend
from waypost.adapters.records import Row, containing

NEWEST: Final = 2**63 - 1  # above the number of any record
_PAGE: Final = 25  # checkpoints per read


class Listing:
    """The state of one listing: pages of checkpoints, thread after thread."""

    def __init__(
        self,
        backend: Backend,
        serde: SerializerProtocol,
        stale_ok: bool,
        config: RunnableConfig | None,
        wanted: dict[str, Any],
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._backend = backend
        self._serde = serde
        self._stale_ok = stale_ok
        self._filter = wanted
        self._before = None if before is None else get_checkpoint_id(before)
        self._left = NEWEST if limit is None else limit
        configurable = {} if config is None else config["configurable"]
        self._contained: dict[str, Any] = {}
        if (ns := configurable.get("checkpoint_ns")) is not None:
            self._contained["ns"] = ns
        if checkpoint_id := configurable.get("checkpoint_id"):
            self._contained["id"] = checkpoint_id
        texts, integers = layout.searchable(wanted)
        self._texts = containing({"facts": texts}) if texts else None
        self._integers = containing(integers) if integers else None
        self._sessions: AsyncIterator[str] = (
            backend.sessions(PREFIX)
            if config is None
            else _only(session_of_thread(str(configurable["thread_id"])))
        )
        self._session_id: str | None = None
        self._end = 0
        self._below: str | None = None  # ids below it, where the thread holds no checkpoint of that id
        self._seen: set[layout.Key] = set()

    async def page(self) -> Sequence[CheckpointTuple]:
        """The next checkpoints; none at the end."""
        while self._left > 0:
            if self._session_id is None and not await self._next_session():
                return []
            session_id = str(self._session_id)
            rows = await self._backend.stored(
                session_id,
                "thread",
                containing(self._contained),
                self._texts,
                self._integers,
                self._end,
                min(self._left, _PAGE),
            )
            chosen = [row for row in layout.sound(rows) if row.chosen]
            if not chosen:
                self._session_id = None
                continue
            self._end = chosen[0].number
            if found := self._passing(thread_of(session_id, chosen[0].metadata), rows):
                return found
        return []

    def _passing(self, thread_id: str, rows: Sequence[Row]) -> Sequence[CheckpointTuple]:
        found: list[CheckpointTuple] = []
        for each in layout.tuples(thread_id, rows, self._serde):
            configurable = each.config["configurable"]
            key = (configurable["checkpoint_ns"], configurable["checkpoint_id"])
            # A checkpoint that was put again counts where it was put last.
            if (
                key not in self._seen
                and (self._below is None or key[1] < self._below)
                and layout.matching(self._filter, each.metadata)
            ):
                self._seen.add(key)
                found.append(each)
        found = found[: self._left]
        self._left -= len(found)
        return found

    async def _next_session(self) -> bool:
        async for session_id in self._sessions:
            self._session_id, self._end, self._seen = session_id, NEWEST, set()
            await self._backend.settled(session_id, stale_ok=self._stale_ok)
            if self._before is not None:
                wanted = containing({**self._contained, "id": self._before})
                places = await self._backend.values(session_id, "place", wanted)
                self._end = places[0] if places else NEWEST
                self._below = None if places else self._before
            return True
        return False


async def _only(session_id: str) -> AsyncIterator[str]:
    yield session_id
