"""Verifying a command's signature with a key. The only part of the worker that knows cryptography.

Part of what a command means, and so a function of the record alone. Nobody but the holder of a key can make a signature
about which two implementations of Ed25519 disagree, and keys for which anybody could are not accepted as an authority
(``waypost.model.authority``).
"""

from waypost.wire.envelope import Envelope
from waypost.wire.signing import MAX_SIGNED_BODY, decode_signature, signed_message


def is_signed(envelope: Envelope, partition: int, key: bytes) -> bool:
    """Return whether ``envelope`` is signed with ``key`` for this partition."""
    signature = None if envelope.signature is None else decode_signature(envelope.signature)
    if signature is None or len(envelope.body) > MAX_SIGNED_BODY:
        return False
    # Here and not above: most workers never see a signature.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message = signed_message(partition, envelope.type, envelope.id, envelope.taken_at, envelope.body)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
