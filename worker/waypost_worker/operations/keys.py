"""Check session keys for doctor: whether the store can be reached, and whether its keys can be unwrapped."""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from waypost.encryption.codec import Codec
from waypost.encryption.key_store import KeyStore, StoredKey
from waypost.encryption.session_keys import wrapping_context
from waypost.encryption.wrapping import WrappedKey
from waypost.errors import EncryptionError, KeyWrappingError
from waypost_worker.findings import Finding

_SUBJECT: Final = "keys"
_TRIED: Final = 1000  # keys; unwrapping may cost a call to a key management service each
_AT_ONCE: Final = 16
_NAMED: Final = 3


async def check_keys(codec: Codec, state_dsns: Sequence[str], keys_dsn: str | None) -> list[Finding]:
    """Check that the key store can be used, and that what wraps its keys is here."""
    findings = []
    if (shared := shared_database(keys_dsn, state_dsns)) is not None:
        findings.append(
            Finding("warning", _SUBJECT, shared, "move the key store to a Postgres with separate backups")
        )
    try:
        deployment = await codec.store.deployment()
        keys = await codec.store.page(limit=_TRIED)
        failed = await _unwrappable(codec, deployment, [key for key in keys if not key.erased])
    except EncryptionError as error:
        fix = "restore the key store, or correct keys_dsn or keys_directory"
        return [*findings, Finding("error", _SUBJECT, str(error), fix)]
    finally:
        await codec.close()
    if failed:
        named = ", ".join(repr(key.session_id) for key, _ in failed[:_NAMED])
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        message = f"the keys of {named}{more} can't be unwrapped: {failed[0][1]}"
        return [*findings, Finding("error", _SUBJECT, message, "add the wrapping key that is missing")]
    findings.append(Finding("ok", _SUBJECT, await _summary(codec.store, keys)))
    return findings


async def _unwrappable(
    codec: Codec, deployment: str, keys: Sequence[StoredKey]
) -> list[tuple[StoredKey, KeyWrappingError]]:
    def tried(key: StoredKey) -> KeyWrappingError | None:
        try:
            context = wrapping_context(deployment, key.session_id, key.key_id)
            codec.wrapper.unwrap(WrappedKey(key.wrapping_key, key.wrapped), context)
        except KeyWrappingError as error:
            return error
        return None

    failed = []
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        errors = await asyncio.gather(*(asyncio.to_thread(tried, key) for key in some))
        failed += [(key, error) for key, error in zip(some, errors, strict=True) if error is not None]
    return failed


async def _summary(store: KeyStore, keys: Sequence[StoredKey]) -> str:
    erased = sum(key.erased for key in keys)
    wrapping = sorted({key.wrapping_key for key in keys if not key.erased})
    at_least = "the first " if len(keys) == _TRIED else ""
    with_keys = f", wrapped with {' and '.join(wrapping)}" if wrapping else ""
    count = f"{at_least}{len(keys) - erased} session keys can be unwrapped{with_keys}; {erased} erased"
    return f"{store.described}: {count}"


def shared_database(keys_dsn: str | None, state_dsns: Sequence[str]) -> str | None:
    """Return what is wrong if the key store is in a database of sessions."""
    if keys_dsn is None or _place(keys_dsn) not in map(_place, state_dsns):
        return None
    return "the session keys are in the database of the sessions, whose backups bring deleted keys back"


def _place(dsn: str) -> tuple[str | None, int, str] | str:
    try:
        parts = urlsplit(dsn)
        return parts.hostname, parts.port or 5432, parts.path
    except ValueError:  # several hosts
        return dsn.rpartition("@")[2]
