"""Encryption and decryption of data with a session's key: AES-256-GCM, and what it authenticates besides the data.

The associated data names the deployment, the key, the origin, the session, the kind and the id of the command, and the
checkpoint's name. So ciphertext is worth nothing in another place. No I/O.
"""

import os
from binascii import a2b_base64, b2a_base64
from typing import Final

import orjson

from waypost.errors import UnauthenticDataError
from waypost.model.encrypted_data import ALGORITHM, CREATED, MARK, NONCE_BYTES, VERSION, EncryptedData

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    raise ImportError(
        "waypost.Codec needs cryptography: install it with pip install 'waypost[encryption]'"
    ) from None

KEY_BYTES: Final = 32
_DOMAIN: Final = b"Waypost encrypted data, version 1\n"


class SessionKey:
    """A session's key, ready for use. It may be used from several threads."""

    __slots__ = ("_aead", "_deployment", "_head", "_start", "key_id", "origin")

    def __init__(self, key: bytes, key_id: str, deployment: str, origin: str) -> None:
        self.key_id = key_id
        self.origin = origin
        self._deployment = deployment
        self._aead = AESGCM(key)
        # Nearly all data is made for the key's own session, so what is the same each time is made once.
        self._start = self._associated_start(origin)
        self._head = _head(key_id, origin, origin)

    def encrypt(
        self, data: bytes, name: str, command_id: str, *, by: str = CREATED, session_id: str | None = None
    ) -> bytes:
        """Return encrypted data for a checkpoint of this name.

        Args:
            data: The JSON of the data.
            name: The checkpoint's name.
            command_id: Id of the command that will bring it.
            by: Kind of that command.
            session_id: The session in which it may be read, if it is not that of the key.
        """
        if session_id is None or session_id == self.origin:
            start, head = self._start, self._head
        else:
            start, head = self._associated_start(session_id), _head(self.key_id, self.origin, session_id)
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._aead.encrypt(nonce, data, _associated(start, by, command_id, name))
        return b'%b"by":"%b","command":%b,"nonce":"%b","ciphertext":"%b"}}' % (
            head,
            by.encode(),
            orjson.dumps(command_id),
            b2a_base64(nonce, newline=False),
            b2a_base64(sealed, newline=False),
        )

    def decrypt(self, encrypted: EncryptedData, name: str) -> bytes:
        """Return the JSON of checkpoint data that was encrypted under this name.

        Raises:
            UnauthenticDataError: It does not authenticate.
        """
        start = self._start if encrypted.session == self.origin else self._associated_start(encrypted.session)
        associated = _associated(start, encrypted.by, encrypted.command, name)
        try:
            return self._aead.decrypt(
                a2b_base64(encrypted.nonce), a2b_base64(encrypted.ciphertext), associated
            )
        except (InvalidTag, ValueError):
            raise UnauthenticDataError(
                "does not authenticate with its key: it was changed or cut, belongs to a checkpoint of another name or "
                "to another deployment, or was encrypted with another key"
            ) from None

    def _associated_start(self, session_id: str) -> bytes:
        return _DOMAIN + _listed(self._deployment, self.key_id, self.origin, session_id)


def _associated(start: bytes, by: str, command_id: str, name: str) -> bytes:
    return start + _listed(by, command_id, name)


def _listed(*texts: str) -> bytes:
    """Return texts with their lengths in front, so that no two lists are the same."""
    return b"".join([b"%d:%b\n" % (len(raw), raw) for raw in [text.encode() for text in texts]])


def _head(key_id: str, origin: str, session_id: str) -> bytes:
    members = {"v": VERSION, "alg": ALGORITHM, "key": key_id, "session": session_id}
    if origin != session_id:
        members["origin"] = origin
    return orjson.dumps({MARK: members})[:-2] + b","
