"""Data that looks encrypted, and data that nearly does. No key made it."""

import json
from typing import Any


def looking_encrypted(session_id: str, command_id: str, **changes: Any) -> bytes:
    """Return data of the documented shape. A change of None leaves a member out."""
    members = {
        "v": 1,
        "alg": "A256GCM",
        "key": "0123456789abcdef0123456789abcdef",
        "session": session_id,
        "by": "create",
        "command": command_id,
        "nonce": "AAECAwQFBgcICQoL",
        "ciphertext": "AAECAwQFBgcICQoLDA0ODxAR",
        **changes,
    }
    present = {name: value for name, value in members.items() if value is not None}
    return json.dumps({"waypost.encrypted": present}, ensure_ascii=False).encode()


ENCRYPTED = looking_encrypted("run:7", "c-1")

_NEARLY = [
    *(looking_encrypted("run:7", "c-1", **{name: None}) for name in ("v", "alg", "key", "session", "by")),
    *(looking_encrypted("run:7", "c-1", **{name: None}) for name in ("command", "nonce", "ciphertext")),
    *(looking_encrypted("run:7", "c-1", v=version) for version in (0, 2, 1.0, True, "1")),
    looking_encrypted("run:7", "c-1", alg="A128GCM"),
    looking_encrypted("run:7", "c-1", more="x"),
    looking_encrypted("", "c-1"),
    looking_encrypted("s" * 201, "c-1"),
    looking_encrypted("run:7", ""),
    looking_encrypted("run:7", "c" * 65),
    looking_encrypted("run:7", "c-1", origin=""),
    looking_encrypted("run:7", "c-1", origin=7),
    looking_encrypted("run:7", "c-1", by="clear"),
    looking_encrypted("run:7", "c-1", key=""),
    looking_encrypted("run:7", "c-1", key="a b"),
    looking_encrypted("run:7", "c-1", key="k" * 65),
    looking_encrypted("run:7", "c-1", nonce="AAECAwQFBgcICQo="),
    looking_encrypted("run:7", "c-1", nonce="AAECAwQFBgcICQoLDA=="),
    looking_encrypted("run:7", "c-1", nonce="AAECAwQFBgcICQ-L"),
    looking_encrypted("run:7", "c-1", ciphertext=""),
    looking_encrypted("run:7", "c-1", ciphertext="AAECAwQFBgcICQoLDA0ODw=="),
    looking_encrypted("run:7", "c-1", ciphertext="AAECAwQFBgcICQoLDA0ODxA="),
    looking_encrypted("run:7", "c-1", ciphertext="AAECAwQFBgcICQoLDA0ODxARE"),
    looking_encrypted("run:7", "c-1", ciphertext="AAECAwQFBgcICQo=DA0ODxARAAECAwQF"),
    looking_encrypted("run:7", "c-1", ciphertext="AAECAwQFBgcICQoLDA0ODxARAAECA==="),
    looking_encrypted("run:7", "c-1", ciphertext='AAECAwQFBgcICQoLDA0ODxA="}}AAECA'),
    looking_encrypted("run:7", "c-1", ciphertext="what was said, in clear words"),
    b'{"waypost.encrypted":null}',
    b'{"waypost.encrypted":[]}',
    ENCRYPTED.replace(b'{"waypost', b'{"more":1,"waypost', 1),
    ENCRYPTED[:-1] + b',"more":1}',
    ENCRYPTED.replace(b"waypost.encrypted", b"waypost\\u002eencrypted", 1),
    ENCRYPTED.replace(b"waypost.encrypted", b"waypost.Encrypted", 1),
    b'{"data":' + ENCRYPTED + b"}",
]


def compact(data: bytes) -> bytes:
    """Return data as a publisher writes it, without white space."""
    return data.replace(b": ", b":").replace(b", ", b",")


NEARLY_ENCRYPTED = [*_NEARLY, *map(compact, _NEARLY)]
