"""Valid commands as record batches, which the mutators start from."""

from collections.abc import Sequence
from random import Random
from typing import Final

from tests.support.hostile_batches import NONE, batch, header, record
from tests.support.variant import packed

from waypost.wire.topics import partition_of

PARTITIONS: Final = 2
#: The partition that hostile inputs go to, and a few sessions that live there.
HOME: Final = 0
SESSIONS: Final = [
    name for name in (f"fuzz-{number}" for number in range(60)) if partition_of(name, PARTITIONS) == HOME
][:20]
TIME: Final = b"2026-11-24T08:24:59.123456Z"
Header = tuple[bytes, bytes | None]
Command = tuple[bytes | None, bytes | None, Sequence[Header]]


def valid_headers(command_id: str, command_type: str) -> list[Header]:
    """Return the headers of a command in binary mode."""
    return [
        (b"ce_specversion", b"1.0"),
        (b"ce_id", command_id.encode()),
        (b"ce_source", b"/fuzz"),
        (b"ce_type", command_type.encode()),
        (b"ce_time", TIME),
        (b"content-type", b"application/json"),
    ]


def create(session: str, command_id: str, body: bytes = b'{"name":"n","data":{}}') -> Command:
    """Return an ordinary command."""
    return session.encode(), body, valid_headers(command_id, "waypost.checkpoint.create")


def joined(commands: Sequence[Command]) -> bytes:
    """Return commands as the records of a batch."""
    return b"".join(
        record(number, key, value, [header(name, content) for name, content in headers])
        for number, (key, value, headers) in enumerate(commands)
    )


def some_creates(chance: Random, count: int) -> bytes:
    """Return ordinary commands as the records of a batch."""
    return joined(
        [create(chance.choice(SESSIONS), f"{chance.randrange(10**9)}-{number}") for number in range(count)]
    )


def command_batch(chance: Random, commands: Sequence[Command]) -> bytes:
    """Return commands in a well-formed batch; large ones are not compressed, which would hide their size."""
    data = joined(commands)
    codec = NONE if len(data) > 100_000 or chance.random() < 0.7 else chance.randrange(5)
    return batch(packed(codec, data), len(commands), codec)
