"""Key files of an authority: made, read, and used to sign. Knows no partition and no command line."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from waypost.model.authority import key_problem
from waypost_worker.cli.support.output import USAGE, CommandError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KeyFlag = Annotated[
    Path | None, Parameter(help="file with the private key to sign with, if there is an authority")
]
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Signer(NamedTuple):
    """A private key from a file, and the public key that belongs to it."""

    private: "Ed25519PrivateKey"
    public: bytes
    path: Path

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``."""
        return self.private.sign(message)


def create_key(path: Path) -> bytes:
    """Make a key pair and write the private key to a new file that only its owner can read; the public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(
            f"{path} already exists. Nothing was written: a lost key can't be replaced"
        ) from None
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None
    return private.public_key().public_bytes_raw()


def read_signer(path: Path) -> Signer:
    """Read a private key. CommandError if others may read the file, or it holds no such key."""
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", USAGE) from None
    if mode & _OTHERS:
        raise CommandError(
            f"{path} is open to other users of this machine. Nothing was signed. Run: chmod 600 {path}", USAGE
        )
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = _loaded(path, text, lambda: load_pem_private_key(text, None))
    return Signer(private, private.public_key().public_bytes_raw(), path)


def read_public(path: Path) -> bytes:
    """Read a public key from a file that holds it, or the private key that it belongs to."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", USAGE) from None
    if b"PRIVATE KEY" in text:
        public = read_signer(path).public
    else:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        public = _loaded(path, text, lambda: load_pem_public_key(text)).public_bytes_raw()
    if (problem := key_problem(public)) is not None:
        raise CommandError(f"the key in {path} {problem}", USAGE)
    return public


def _loaded(path: Path, text: bytes, load: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    try:
        key = load()
    except TypeError:
        raise CommandError(
            f"the key in {path} is protected by a password: use one that is not", USAGE
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        raise CommandError(
            f"{path} contains no Ed25519 key in PEM: make one with 'waypost authority create-key'", USAGE
        )
    return key
