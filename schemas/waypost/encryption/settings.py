"""From settings to a key store and a key wrapper."""

from importlib import import_module

from waypost.discovery import KeySettings
from waypost.encryption.directory import DirectoryKeyStore
from waypost.encryption.key_store import KeyStore
from waypost.encryption.postgres import PostgresKeyStore
from waypost.encryption.wrapping import FileWrapper, KeyWrapper, LocalWrapper
from waypost.errors import SettingsError


def make_store(settings: KeySettings) -> KeyStore:
    """Return the key store that settings name. It is not opened yet.

    Raises:
        SettingsError: They name none, or two.
    """
    if settings.dsn and settings.directory:
        raise SettingsError("keys_dsn and keys_directory are both set: keep the keys in one place")
    if settings.dsn:
        return PostgresKeyStore(settings.dsn)
    if settings.directory:
        return DirectoryKeyStore(settings.directory)
    raise SettingsError("neither keys_dsn nor keys_directory is set, so it is not known where the keys are")


def make_wrapper(settings: KeySettings) -> KeyWrapper:
    """Return the key wrapper that settings name.

    Raises:
        SettingsError: They name none or several, or one that can't be imported.
    """
    given = {
        "wrapping_key": settings.wrapping_key,
        "wrapping_key_file": settings.wrapping_key_file,
        "key_wrapper": settings.wrapper,
    }
    named = [name for name, value in given.items() if value]
    if len(named) != 1:
        found = f"{' and '.join(named)} are all set" if named else "none of them is set"
        raise SettingsError(
            f"one of wrapping_key, wrapping_key_file and key_wrapper says what wraps session keys; {found}"
        )
    if settings.wrapping_key_file:
        return FileWrapper(settings.wrapping_key_file)
    if (text := settings.wrapping_key) is not None:
        return LocalWrapper("the setting wrapping_key", lambda: text)
    return _imported(settings.wrapper or "")


def _imported(name: str) -> KeyWrapper:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise SettingsError(f"key_wrapper is module:function, such as my_kms:key_wrapper, not {name!r}")
    try:
        wrapper = getattr(import_module(module), attribute)()
    except Exception as error:
        raise SettingsError(
            f"key_wrapper names {name!r}, which can't be used: {type(error).__name__}: {error}"
        ) from error
    if not all(callable(getattr(wrapper, method, None)) for method in ("wrap", "unwrap")):
        raise SettingsError(f"key_wrapper names {name!r}, which returned no key wrapper with wrap and unwrap")
    found: KeyWrapper = wrapper
    return found
