"""Wrap session keys again with the newest wrapping key. Each step leaves the store whole, so it may end anywhere."""

import asyncio
import os
from dataclasses import replace

from waypost.encryption.key_store import KeyStore, StoredKey
from waypost.encryption.session_key import KEY_BYTES
from waypost.encryption.session_keys import wrapping_context
from waypost.encryption.wrapping import KeyWrapper, WrappedKey
from waypost.errors import KeyWrappingError


class Rotation:
    """One run over a key store. ``wrapped`` counts keys wrapped again, ``failed`` says why others were not."""

    def __init__(self, store: KeyStore, wrapper: KeyWrapper, newest: str) -> None:
        self.newest = newest
        self.wrapped = 0
        self.failed: list[str] = []
        self._store = store
        self._wrapper = wrapper

    @classmethod
    async def begin(cls, store: KeyStore, wrapper: KeyWrapper) -> "Rotation":
        """Find out which wrapping key is the newest, by wrapping random bytes that nobody uses."""
        context = wrapping_context(await store.deployment(), "", "")
        tried = await asyncio.to_thread(wrapper.wrap, os.urandom(KEY_BYTES), context)
        return cls(store, wrapper, tried.wrapping_key)

    def is_stale(self, key: StoredKey) -> bool:
        """Tell whether another wrapping key wrapped this."""
        return not key.erased and key.wrapping_key != self.newest

    async def wrap_again(self, key: StoredKey) -> None:
        """Wrap a key with the newest wrapping key. One that was erased or wrapped meanwhile is left alone."""
        try:
            raw = await unwrapped(self._store, self._wrapper, key)
            context = wrapping_context(await self._store.deployment(), key.session_id, key.key_id)
            new = await asyncio.to_thread(self._wrapper.wrap, raw, context)
        except KeyWrappingError as error:
            self.failed.append(f"the key of session {key.session_id!r} stays as it is: {error}")
            return
        changed = replace(key, wrapping_key=new.wrapping_key, wrapped=new.wrapped)
        self.wrapped += await self._store.replace(key, changed)


async def unwrapped(store: KeyStore, wrapper: KeyWrapper, key: StoredKey) -> bytes:
    """Return a session key.

    Raises:
        KeyWrappingError: It can't be unwrapped.
        KeyStoreError: The store can't be used.
    """
    context = wrapping_context(await store.deployment(), key.session_id, key.key_id)
    return await asyncio.to_thread(wrapper.unwrap, WrappedKey(key.wrapping_key, key.wrapped), context)
