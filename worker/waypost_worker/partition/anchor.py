"""The anchor, by which an owner recognizes the log that it has applied. Pure."""

import hashlib

from waypost.wire.envelope import KafkaRecord


def anchor_of(record: KafkaRecord) -> bytes:
    """Return the hash that ties a position to one command topic.

    16 bytes over all of a record: offset, timestamp, key, headers and value, each with its length.
    """
    hashed = hashlib.blake2b(digest_size=16)
    hashed.update(b"%d %d" % (record.offset, record.timestamp))
    for part in (record.key, record.value):
        hashed.update(b" -" if part is None else b" %d:" % len(part))
        hashed.update(part or b"")
    for name, value in record.headers:
        raw = value or b""
        hashed.update(b" %d:%b %d:" % (len(name), name.encode(), len(raw)))
        hashed.update(raw)
    return hashed.digest()
