"""Keys of authorities, and commands signed with them."""

from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.signing import encode_signature, signed_message


@cache
def private_key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"-")[:32])


def public_key(name: str) -> bytes:
    return private_key(name).public_key().public_bytes_raw()


def signed_headers(
    name: str | None,
    partition: int,
    command_type: bytes,
    command_id: str,
    taken_at: int,
    body: bytes,
    source: bytes = b"/tests",
) -> list[tuple[str, bytes]]:
    """The headers of a command about a partition, signed with the key of this name, or not at all."""
    signature = None
    if name is not None:
        message = signed_message(partition, command_type.decode(), command_id, taken_at, body)
        signature = encode_signature(private_key(name).sign(message))
    time = format_micros(taken_at).encode()
    return command_headers(command_id, source, command_type, time, None, signature)
