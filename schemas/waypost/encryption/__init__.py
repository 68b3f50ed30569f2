"""Encryption of checkpoint data at the edges, where it enters and leaves.

Owns session keys, where they are kept, how they are wrapped, and what encrypted data looks like. May import
``wire``, ``model`` and the modules next to them; must not know Kafka, nor a publisher, subscriber or reader.
"""

from typing import TYPE_CHECKING

from waypost.errors import InvalidArgumentError, quoted

if TYPE_CHECKING:
    from waypost.discovery import Deployment
    from waypost.encryption.codec import Codec


def codec_of(deployment: "Deployment") -> "Codec | None":
    """Return the codec of a deployment that was found, or None if its data is not encrypted.

    Raises:
        SettingsError: Its settings name no key store or no wrapping key, or one that can't be used.
    """
    if deployment.keys is None:
        return None
    from waypost.encryption.codec import make_codec  # brings cryptography

    return make_codec(deployment.keys)


def require_codec(codec: object) -> None:
    """Raise InvalidArgumentError for what is not a codec, nor None."""
    if codec is not None:
        from waypost.encryption.codec import Codec

        if not isinstance(codec, Codec):
            raise InvalidArgumentError(f"codec must be a waypost.Codec, not {quoted(codec)}")
