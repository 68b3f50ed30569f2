"""Wrapping of session keys, with your own key-encryption key or by a key management service.

A wrapping key is 32 random bytes. In a file or a variable it is one line of base64. Further lines are older keys, which
unwrap what they wrapped but wrap nothing new.
"""

import base64
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from waypost.arguments import checked_path
from waypost.errors import KeyWrappingError
from waypost.model.limits import require_sendable

WRAPPING_KEY_VARIABLE: Final = "WAYPOST_WRAPPING_KEY"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ID_DIGITS: Final = 16
# Nothing else that anybody encrypts with such a key begins like this.
_DOMAIN: Final = b"Waypost wrapped key, version 1\n"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A session key that was wrapped, and the name of the key that did it."""

    wrapping_key: str
    wrapped: bytes = field(repr=False)


class KeyWrapper(Protocol):
    """Protection of session keys, which are 32 bytes each.

    Both methods may block, as on a network, since they are called in a thread. ``context`` names what the key is for.
    It is not secret, but must be authenticated: a key wrapped in one context must not be unwrapped in another.
    """

    def wrap(self, key: bytes, context: Mapping[str, str]) -> WrappedKey:
        """Wrap a session key with the newest wrapping key.

        Raises:
            KeyWrappingError: It can't be wrapped now.
        """
        ...

    def unwrap(self, wrapped: WrappedKey, context: Mapping[str, str]) -> bytes:
        """Return a session key.

        Raises:
            KeyWrappingError: It was wrapped with another key, in another context, or was changed.
        """
        ...


class LocalWrapper:
    """Key wrapper with wrapping keys in memory, by AES-256-GCM.

    Args:
        where: Where the keys come from, for errors.
        read: Returns their text, the newest first. It is called again when an unknown wrapping key is met.
    """

    def __init__(self, where: str, read: Callable[[], str]) -> None:
        self._where = where
        self._read = read
        self._keys: dict[str, bytes] = {}
        self._newest = ""

    def wrap(self, key: bytes, context: Mapping[str, str]) -> WrappedKey:
        """Wrap a session key with the newest wrapping key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._load()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self._keys[self._newest]).encrypt(nonce, key, _encoded(context))
        return WrappedKey(self._newest, nonce + sealed)

    def unwrap(self, wrapped: WrappedKey, context: Mapping[str, str]) -> bytes:
        """Return a session key."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if wrapped.wrapping_key not in self._keys:
            self._load()  # the keys may have been rotated since
        if (wrapping_key := self._keys.get(wrapped.wrapping_key)) is None:
            raise KeyWrappingError(
                f"A session key is wrapped with {wrapped.wrapping_key!r}, and {self._where} holds "
                f"{', '.join(map(repr, self._keys))}. Nothing was decrypted. Add the older wrapping key below the "
                "newest"
            )
        nonce, sealed = wrapped.wrapped[:_NONCE_BYTES], wrapped.wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(wrapping_key).decrypt(nonce, sealed, _encoded(context))
        except (InvalidTag, ValueError):
            raise KeyWrappingError(
                "A wrapped session key does not authenticate: it was changed, or belongs to another session or key "
                "store. Nothing was decrypted. Restore the key store"
            ) from None

    def read(self) -> str:
        """Return the text of the wrapping keys.

        Raises:
            KeyWrappingError: It can't be read, or is something else.
        """
        text = self._read()
        parse_wrapping_keys(text, self._where)
        return text

    def _load(self) -> None:
        keys = parse_wrapping_keys(self._read(), self._where)
        self._keys, self._newest = keys, next(iter(keys))


class FileWrapper(LocalWrapper):
    """Key wrapper with wrapping keys in a file, the newest one first.

    The file is read when a key is wrapped, and when one is met that an unknown key wrapped, so programs that run need
    no restart after a rotation.

    Args:
        path: The file. ``waypost keys create-wrapping-key`` makes it. It must be closed to other users.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = checked_path("the wrapping key file", path)
        super().__init__(f"the file {self._path}", self._text)

    def __repr__(self) -> str:
        return f"FileWrapper({str(self._path)!r})"

    def _text(self) -> str:
        try:
            with self._path.open(encoding="ascii") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & (stat.S_IWGRP | stat.S_IRWXO):
                    raise KeyWrappingError(
                        f"The wrapping key file {self._path} is open to other users (mode {mode:o}), so it was not "
                        f"used. Run: chmod 600 {self._path}"
                    )
                return file.read()
        except FileNotFoundError:
            raise KeyWrappingError(
                f"The wrapping key file {self._path} does not exist. Restore it: without it, what was encrypted can't "
                f"be read. If there never was one, run: waypost keys create-wrapping-key {self._path}"
            ) from None
        except OSError as error:
            raise KeyWrappingError(
                f"The wrapping key file {self._path} can't be read: {error.strerror}"
            ) from None
        except UnicodeDecodeError:
            raise not_wrapping_keys(self._where) from None


class EnvironmentWrapper(LocalWrapper):
    """Key wrapper with wrapping keys in an environment variable, separated by white space, the newest one first.

    Args:
        variable: Name of the variable.
    """

    def __init__(self, variable: str = WRAPPING_KEY_VARIABLE) -> None:
        require_sendable("the name of the variable", variable)
        self._variable = variable
        super().__init__(f"the variable {variable}", self._text)

    def __repr__(self) -> str:
        return f"EnvironmentWrapper({self._variable!r})"

    def _text(self) -> str:
        text = os.environ.get(self._variable)
        if not text:
            raise KeyWrappingError(
                f"The variable {self._variable} is not set, so no key can be wrapped or unwrapped"
            )
        return text


def new_wrapping_key() -> str:
    """Return a random wrapping key, as a file or a variable holds it."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def wrapping_key_id(key: bytes) -> str:
    """Return the name of a wrapping key: digits of its hash, from which it can't be found."""
    return hashlib.sha256(_DOMAIN + key).hexdigest()[:_ID_DIGITS]


def parse_wrapping_keys(text: str, where: str) -> dict[str, bytes]:
    """Return the keys in a text by their names, in their order.

    Raises:
        KeyWrappingError: The text holds no key, or something else.
    """
    try:
        keys = [base64.b64decode(word, validate=True) for word in text.split()]
    except ValueError:
        raise not_wrapping_keys(where) from None
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise not_wrapping_keys(where)
    return {wrapping_key_id(key): key for key in keys}


def not_wrapping_keys(where: str) -> KeyWrappingError:
    """Return the error for a text that is not one or several wrapping keys. It is not quoted."""
    return KeyWrappingError(
        f"Wrapping keys are {_KEY_BYTES} random bytes each, in base64, and {where} holds something else. Nothing was "
        "wrapped or unwrapped. Make a key with: waypost keys create-wrapping-key FILE"
    )


def _encoded(context: Mapping[str, str]) -> bytes:
    pairs = [(name.encode(), value.encode()) for name, value in sorted(context.items())]
    return _DOMAIN + b"".join(b"%d:%b%d:%b\n" % (len(name), name, len(value), value) for name, value in pairs)
