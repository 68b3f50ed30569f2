"""The key store: one wrapped key for each session, and a tombstone for each session whose key was deleted.

A store lies outside the log, the snapshots and the database of sessions, because deleting a key there is what makes all
copies of a session's data unreadable. It never sees a key unwrapped. Values and a protocol only; no I/O.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from waypost.errors import KeyStoreError

#: Keys in a page of a listing.
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A session's wrapped key, or its tombstone.

    ``key_id`` is random, and written next to everything that the key encrypted. ``wrapping_key`` names the key that
    wrapped it. A tombstone has ``erased_at`` and no ``wrapped`` bytes. Its ``key_id`` is empty if there never was a
    key.
    """

    session_id: str
    key_id: str
    wrapping_key: str
    wrapped: bytes
    created_at: datetime
    erased_at: datetime | None = None

    def __repr__(self) -> str:
        state = "erased" if self.erased else f"wrapped with {self.wrapping_key!r}"
        return f"<StoredKey {self.key_id!r} of {self.session_id!r}: {state}>"

    @property
    def erased(self) -> bool:
        """True if this is a tombstone."""
        return self.erased_at is not None


class KeyStore(Protocol):
    """A place for wrapped session keys. All methods raise KeyStoreError if the store can't be used.

    The methods may be called from any event loop, one at a time or concurrently.
    """

    @property
    def described(self) -> str:
        """Description of where the store is, without secrets."""
        ...

    async def initialize(self) -> bool:
        """Make the store ready for keys. Return False, and change nothing, if it was ready before.

        Nothing else makes a store. So a volume that is not mounted, or a database that was lost, is an error instead of
        an empty store that would give sessions new keys.
        """
        ...

    async def deployment(self) -> str:
        """Return the random id that the store got when it was made. Encrypted data is bound to it."""
        ...

    async def find(self, session_ids: Collection[str]) -> dict[str, StoredKey]:
        """Return the keys and tombstones of these sessions; a session without either is left out."""
        ...

    async def create(self, key: StoredKey) -> StoredKey:
        """Store a session's first key, and return what the store holds for that session now.

        If two call this at the same time, both get the same answer. It is a tombstone if the session's key was deleted.
        """
        ...

    async def replace(self, old: StoredKey, new: StoredKey) -> bool:
        """Put the same key, wrapped again, in the place of ``old``.

        Return False, and change nothing, if the store holds another one now, or a tombstone.
        """
        ...

    async def erase(self, session_id: str, at: datetime) -> StoredKey:
        """Delete a session's key, and return the tombstone that stays, the first one if it was deleted before.

        A session without a key gets a tombstone too, so that no key is made for it later.
        """
        ...

    async def page(self, after: str | None = None, limit: int = PAGE) -> list[StoredKey]:
        """Return up to ``limit`` keys and tombstones that follow that of session ``after``, in an order of the store's.

        A key that is stored during a listing may be missing from it; every other one is in it once.
        """
        ...

    async def close(self) -> None:
        """Close the connections that belong to this event loop. A later call opens them again."""
        ...


def not_ready(described: str) -> KeyStoreError:
    """Return the error for a store that nobody made, or that is not where it was."""
    return KeyStoreError(
        f"There is no key store in {described}, so no key was read or made. If there should be one, mount or restore "
        "it. Make a new one with: waypost keys init"
    )
