"""From settings to the codec of a deployment. Imports encryption only if there are settings for it."""

from typing import TYPE_CHECKING

from waypost.discovery import KeySettings
from waypost.errors import SettingsError
from waypost_worker.config.settings import Settings, config_file, config_origin

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec


def key_settings(settings: Settings) -> KeySettings | None:
    """Return what is set about session keys, or None if it is nothing.

    Raises:
        SettingsError: ``key_wrapper`` is in the TOML file.
    """
    wrapping_key = settings.wrapping_key
    found = KeySettings(
        None if settings.keys_dsn is None else settings.keys_dsn.get_secret_value(),
        settings.keys_directory,
        None if wrapping_key is None else wrapping_key.get_secret_value(),
        settings.wrapping_key_file,
        settings.key_wrapper,
        settings.allow_plaintext,
    )
    if found.wrapper and config_origin("key_wrapper") == str(config_file()):
        # Anyone who can put a waypost.toml into this directory could have any code run.
        raise SettingsError("key_wrapper can't be in a file: it names code to run. Set WAYPOST_KEY_WRAPPER")
    given = (found.dsn, found.directory, found.wrapping_key, found.wrapping_key_file, found.wrapper)
    return found if any(given) else None


def make_codec(settings: Settings) -> "Codec | None":
    """Return the codec of a deployment, or None if there is none.

    Raises:
        SettingsError: The settings name no key store or no wrapping key, or one that can't be used.
    """
    found = key_settings(settings)
    if found is None:
        return None
    from waypost.encryption import codec

    return codec.make_codec(found)
