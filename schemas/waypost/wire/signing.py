"""The signed bytes of a command, and the text form of keys and signatures. Pure; knows no cryptography.

A signature is one of Ed25519 (RFC 8032) over :func:`signed_message`, in the attribute ``signature`` of the command: the
header ``ce_signature`` in binary mode. It covers the body byte by byte, so no two implementations need to agree on a
spelling of JSON.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error
from typing import Final

from waypost.model.authority import key_problem

SIGNATURE_BYTES: Final = 64
RECORD_HASH_BYTES: Final = 16
MAX_SIGNED_BODY: Final = 64 * 1024
# Nothing else that anybody signs with such a key begins like this.
_DOMAIN: Final = b"Waypost signed command, version 1\n"
_HASH: Final = re.compile("[0-9a-f]{32}")
_LONGEST: Final = 2 * SIGNATURE_BYTES


def signed_message(partition: int, command_type: str, command_id: str, taken_at: int, body: bytes) -> bytes:
    """Return the bytes to sign: each part with its length in front, so that none can pass for another.

    ``taken_at`` is the command's ``ce_time`` in microseconds since 1970.
    """
    parts = (b"%d" % partition, command_type.encode(), command_id.encode(), b"%d" % taken_at, body)
    return _DOMAIN + b"".join([b"%d:%b\n" % (len(part), part) for part in parts])


def encode_key(key: bytes) -> str:
    """Return a public key as commands and results show it."""
    return b64encode(key).decode()


def decode_key(text: str) -> bytes:
    """Return the bytes of a public key. Raise ValueError if it can't be used."""
    try:
        key = b64decode(text, validate=True) if len(text) <= _LONGEST else None
    except (Error, ValueError):
        key = None
    if key is None:
        raise ValueError("is not base64 of a key")
    if (problem := key_problem(key)) is not None:
        raise ValueError(problem)
    return key


def decode_record_hash(text: str) -> bytes:
    """Return the hash of a record. Raise ValueError if it is not one."""
    if _HASH.fullmatch(text) is None:
        raise ValueError(f"is not {2 * RECORD_HASH_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


def encode_signature(signature: bytes) -> bytes:
    """Return a signature as the attribute of a command."""
    return b64encode(signature)


def decode_signature(attribute: bytes) -> bytes | None:
    """Return the signature that an attribute holds, or None if it holds none."""
    if len(attribute) > _LONGEST:
        return None
    try:
        signature = b64decode(attribute, validate=True)
    except (Error, ValueError):
        return None
    return signature if len(signature) == SIGNATURE_BYTES else None
