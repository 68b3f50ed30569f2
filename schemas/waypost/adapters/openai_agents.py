"""A session of the OpenAI Agents SDK: one record per item of the conversation.

Needs the extra ``openai-agents``.
"""

from typing import TYPE_CHECKING, Any, Final, cast

try:
    from agents.memory.session_settings import SessionSettings, resolve_session_limit
except ImportError as error:
    raise ImportError(
        "waypost.adapters.openai_agents needs openai-agents: install it with pip install 'waypost[openai-agents]'"
    ) from error

from typing_extensions import override

from waypost.adapters.backend import Backend, Durability, checked_durability
from waypost.adapters.loose_json import holds, member, value_of
from waypost.adapters.records import Record, Row, gone_with_parts, new_tag, session_of, with_own
from waypost.arguments import require_whole

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

__all__ = ["WaypostSession"]

PREFIX: Final = "openai-agents/"
ITEM: Final = "item"
_ALL: Final = 2**31


class WaypostSession:
    """History of a conversation: ``await Runner.run(agent, "Hi", session=WaypostSession("user-7", backend))``.

    The items of one ``add_items`` are stored together or not at all, as long as they have less than 880 KB. Of several
    callers that pop at the same time, each gets another item.

    Args:
        session_id: The conversation's id.
        backend: The connection to Kafka and Postgres.
        durability: When ``add_items`` returns: once the publisher has the items (``"accepted"``), once Kafka has them
            (``"logged"``), or once a worker applied them (``"applied"``). See :class:`waypost.adapters.Backend`.
        stale_ok: Whether reads may lack what other processes wrote last. They then need no Kafka.
        keep: The fewest items that stay; older ones are removed from time to time. None keeps all, and a full session
            raises SessionFullError until it is cleared.
        session_settings: Settings of the SDK, such as a limit for :meth:`get_items`.
    """

    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        backend: Backend,
        *,
        durability: Durability = "logged",
        stale_ok: bool = False,
        keep: int | None = None,
        session_settings: SessionSettings | None = None,
    ) -> None:
        if keep is not None:
            require_whole("keep", keep, 1)
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._session = session_of(PREFIX, session_id)
        self._backend = backend
        self._durability = checked_durability(durability)
        self._stale_ok = stale_ok
        self._keep = keep

    async def get_items(self, limit: int | None = None) -> "list[TResponseInputItem]":
        """Return the newest ``limit`` items, oldest first. The default limit is that of the settings, or none."""
        return await self._backend.join(self._get(resolve_session_limit(limit, self.session_settings)))

    @override
    def __repr__(self) -> str:
        return f"<WaypostSession {self.session_id!r} on {self._backend!r}, keep={self._keep}>"

    async def add_items(self, items: "list[TResponseInputItem]") -> None:
        """Add items to the end. Everything that Python's json can write is kept as it would read it back.

        Raises:
            InvalidCommandError: Python's json can't write an item. Nothing was added.
        """
        await self._backend.join(self._add(cast("list[Any]", items)))

    async def pop_item(self) -> "TResponseInputItem | None":
        """Remove the newest item and return it, or return None if there is none."""
        return await self._backend.join(self._pop())

    async def clear_session(self) -> None:
        """Remove all items."""
        await self._backend.join(self._backend.clear(self._session))

    async def _get(self, limit: int | None) -> "list[TResponseInputItem]":
        if limit is not None and limit <= 0:
            return []
        own = await self._backend.own_rows(self._session, stale_ok=self._stale_ok)
        stored = await self._newest(_ALL if limit is None else limit + len(own))
        items = with_own(reversed(stored), own)
        return [_item(row) for row in (items if limit is None else items[-limit:])]

    async def _newest(self, limit: int) -> list[Row]:
        """Return the newest stored records that contain an item. Other writers to the topic can put in anything
        else.
        """
        rows = await self._backend.stored(self._session, "newest", ITEM, "{}", limit)
        items = [row for row in rows if holds(ITEM, row.data)]
        if len(items) < len(rows) == limit:
            rows = await self._backend.stored(self._session, "newest", ITEM, "{}", _ALL)
            items = [row for row in rows if holds(ITEM, row.data)]
        return items[:limit]

    async def _add(self, items: list[Any]) -> None:
        if not items:
            return
        records = [Record(ITEM, member(ITEM, item), _described(item) | {"tag": new_tag()}) for item in items]
        appended = await self._backend.append(
            self._session, records, durability=self._durability, advice=self._advice()
        )
        if (keep := self._keep) is not None and appended.due:
            self._backend.tidy(self._session, lambda: self._drop_old(keep))

    def _advice(self) -> str:
        if self._keep is None:
            return "Clear the session, or give WaypostSession keep=N, so that old items leave"
        return (
            f"keep={self._keep} is set, and what it keeps fills the session: lower it, or clear the session"
        )

    async def _drop_old(self, keep: int) -> None:
        rows = await self._backend.rows(self._session, "index")
        numbers = [row.number for row in rows if row.name == ITEM]
        if outdated := gone_with_parts(rows, set(numbers[:-keep])):
            await self._backend.delete(self._session, outdated)

    async def _pop(self) -> "TResponseInputItem | None":
        while True:
            await self._backend.settled(self._session)
            rows = await self._newest(1)
            if not rows:
                return None
            # The item is whose delete finds it: somebody else may have been faster.
            if await self._backend.delete(self._session, [rows[0].number]):
                if rows[0].batch is not None:
                    parts = await self._backend.values(self._session, "part_numbers", [rows[0].batch])
                    await self._backend.delete(self._session, parts)
                return _item(rows[0])


def _item(row: Row) -> "TResponseInputItem":
    return cast("TResponseInputItem", value_of(ITEM, row.data))


def _described(item: Any) -> dict[str, Any]:
    """The searchable metadata."""
    told = {key: item.get(key) for key in ("type", "role")} if isinstance(item, dict) else {}
    return {
        key: value
        for key, value in told.items()
        if isinstance(value, str) and len(value) <= 64 and value.isprintable()
    }
