"""The key of an erased session: deleted first, so that what can't be removed can't be read either."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from waypost_worker.config.keys import key_settings
from waypost_worker.config.settings import Settings


@dataclass(frozen=True, slots=True)
class DeletedKey:
    """A session's entry in the key store, after the deletion of its key.

    ``deleted_at`` is the time of the first deletion. ``key_id`` is empty if there never was a key. ``returned`` says
    that there was a key although the session had been erased: an older key store was restored.
    """

    store: str
    key_id: str
    deleted_at: datetime
    returned: bool = False

    def for_programs(self) -> dict[str, Any]:
        """Return what a receipt says of it."""
        return {"store": self.store, "key_id": self.key_id or None, "deleted_at": self.deleted_at}


async def has_key(settings: Settings, session: str) -> bool | None:
    """Return whether there is a key to delete; None if the settings name no key store."""
    if (found := key_settings(settings)) is None:
        return None
    from waypost.encryption.settings import make_store

    store = make_store(found)
    try:
        key = (await store.find([session])).get(session)
    finally:
        await store.close()
    return key is not None and not key.erased


async def delete_key(settings: Settings, session: str, erased_at: datetime | None) -> DeletedKey | None:
    """Delete a session's key for good; None if the settings name no key store.

    ``erased_at`` is when the session was erased before, if it was. KeyStoreError if the store can't be used.
    """
    if (found := key_settings(settings)) is None:
        return None
    from waypost.encryption.settings import make_store

    store = make_store(found)
    try:
        before = (await store.find([session])).get(session)
        returned = erased_at is not None and before is not None and not before.erased
        tombstone = await store.erase(session, datetime.now(UTC))
    finally:
        await store.close()
    deleted_at = tombstone.erased_at or datetime.now(UTC)
    return DeletedKey(store.described, tombstone.key_id, deleted_at, returned)
