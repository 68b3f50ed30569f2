"""Session keys in memory: loaded from the key store, made for new sessions, looked at again from time to time.

Owns which keys are known and for how long. Keys in memory are found without waiting; everything else is
awaited. Unwrapping happens in threads, because a key management service may take its time.
"""

import asyncio
import logging
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from waypost.encryption.key_store import KeyStore, StoredKey
from waypost.encryption.wrapping import KeyWrapper, WrappedKey
from waypost.errors import KeyErasedError, KeyStoreError, MissingKeyError

if TYPE_CHECKING:
    from waypost.encryption.session_key import SessionKey

log = logging.getLogger("waypost")
_RETRY_SECONDS: Final = 30.0
_AT_ONCE: Final = 500  # sessions in one question to the store


@dataclass(slots=True)
class _Known:
    """The store's last answer for a session: a key, or a tombstone (None)."""

    key: "SessionKey | None"
    erased_at: datetime | None
    fresh_until: float


class SessionKeys:
    """Keys of sessions, at most ``most`` of them in memory. Each is looked up again after ``refresh`` seconds.

    ``find`` may be called from any thread, the rest on any event loop.
    """

    def __init__(self, store: KeyStore, wrapper: KeyWrapper, *, refresh: float, most: int) -> None:
        self._store = store
        self._wrapper = wrapper
        self._refresh = refresh
        self._most = most
        self._known: dict[str, _Known] = {}

    def find(self, session_id: str) -> "SessionKey | None":
        """Return the key of a session, or None if it is not in memory.

        Raises:
            KeyErasedError: The session's key was deleted.
        """
        found = self._known.get(session_id)
        if found is None:
            return None
        if found.key is None:
            raise erased(session_id, found.erased_at)
        return found.key

    def is_stale(self, session_id: str) -> bool:
        """Tell whether a session's key should be looked up again, because it may have been deleted."""
        found = self._known.get(session_id)
        return found is None or found.fresh_until < time.monotonic()

    async def load(self, session_ids: Collection[str], *, create: bool = False, again: bool = False) -> None:
        """Look up the keys that are not in memory, or that were last looked up too long ago.

        A session without a key stays unknown. With ``create``, it gets one; with ``again``, all are looked up. While
        the store can't be used, keys in memory stay in use.

        Raises:
            KeyStoreError: The key store can't be used.
            KeyWrappingError: A key can't be unwrapped, or a new one can't be wrapped.
        """
        wanted = [each for each in dict.fromkeys(session_ids) if again or self.is_stale(each)]
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            try:
                await self._look_up(some, create)
            except KeyStoreError as error:
                known = [found for each in some if (found := self._known.get(each)) is not None]
                if again or len(known) < len(some):
                    raise
                log.warning("Keys in memory can't be looked up again now, and stay in use: %s", error)
                for found in known:
                    found.fresh_until = time.monotonic() + _RETRY_SECONDS

    async def _look_up(self, session_ids: list[str], create: bool) -> None:
        deployment = await self._store.deployment()
        stored = await self._store.find(session_ids)
        if create:
            for session_id in session_ids:
                if session_id not in stored:
                    self._require_unknown(session_id)
                    stored[session_id] = await self._create(session_id, deployment)
        unwrapped = {}
        for session_id in session_ids:
            key = stored.get(session_id)
            if key is None:
                self._known.pop(session_id, None)
            elif key.erased:
                self._note(session_id, None, key.erased_at)
            else:
                unwrapped[session_id] = key
        if fresh := [key for key in unwrapped.values() if not self._is_known(key)]:
            for key, opened in zip(
                fresh, await asyncio.to_thread(self._unwrap, fresh, deployment), strict=True
            ):
                self._note(key.session_id, opened, None)

    def _require_unknown(self, session_id: str) -> None:
        known = self._known.get(session_id)
        if known is not None:
            raise MissingKeyError(
                f"The key store, {self._store.described}, no longer holds the key of session {session_id!r}: an older "
                "one was probably restored. No new key was made, and nothing was sent. Restore its newest copy"
            )

    def _is_known(self, key: StoredKey) -> bool:
        """Tell whether this key is in memory, which is then good for a while again."""
        found = self._known.get(key.session_id)
        if found is None or found.key is None or found.key.key_id != key.key_id:
            return False
        found.fresh_until = time.monotonic() + self._refresh
        return True

    async def _create(self, session_id: str, deployment: str) -> StoredKey:
        from waypost.encryption.session_key import KEY_BYTES

        raw, key_id = os.urandom(KEY_BYTES), uuid4().hex
        context = wrapping_context(deployment, session_id, key_id)
        wrapped = await asyncio.to_thread(self._wrapper.wrap, raw, context)
        return await self._store.create(
            StoredKey(session_id, key_id, wrapped.wrapping_key, wrapped.wrapped, datetime.now(UTC))
        )

    def _unwrap(self, keys: list[StoredKey], deployment: str) -> "list[SessionKey]":
        from waypost.encryption.session_key import SessionKey

        opened = []
        for key in keys:
            context = wrapping_context(deployment, key.session_id, key.key_id)
            raw = self._wrapper.unwrap(WrappedKey(key.wrapping_key, key.wrapped), context)
            opened.append(SessionKey(raw, key.key_id, deployment, key.session_id))
        return opened

    def _note(self, session_id: str, key: "SessionKey | None", erased_at: datetime | None) -> None:
        self._known.pop(session_id, None)
        while len(self._known) >= self._most:
            self._known.pop(next(iter(self._known)), None)  # the one that was loaded first
        self._known[session_id] = _Known(key, erased_at, time.monotonic() + self._refresh)


def wrapping_context(deployment: str, session_id: str, key_id: str) -> dict[str, str]:
    """Return what a session key is wrapped for, so that it can't be put in the place of another one."""
    return {"deployment": deployment, "session": session_id, "key": key_id}


def erased(session_id: str, at: datetime | None) -> KeyErasedError:
    """Return the error for a session whose key was deleted."""
    when = "" if at is None else f" at {at.isoformat(timespec='seconds')}"
    return KeyErasedError(
        f"The key of session {session_id!r} was deleted{when}: the session was erased. Its encrypted data can't be "
        "read, and nothing more can be encrypted for it. Use another session id"
    )
