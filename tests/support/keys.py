"""Key stores, wrapping keys and codecs of a test's own."""

from pathlib import Path
from typing import Any

from waypost import Codec, DirectoryKeyStore, FileWrapper
from waypost.encryption.wrapping import new_wrapping_key
from waypost.wire.decode import parse_body
from waypost.wire.event_types import EventType


def wrapping_file(path: Path) -> Path:
    """Return a file with a new wrapping key, or the one that is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(new_wrapping_key() + "\n")
    return path


async def key_codec(directory: Path, **options: Any) -> Codec:
    """Return a new codec, with nothing in memory, for the keys in a directory, which are made if there are none."""
    wrapper = FileWrapper(wrapping_file(directory / "wrapping.key"))
    store = DirectoryKeyStore(directory / "keys")
    await store.initialize()
    return Codec(store, wrapper, **options)


def read_back(body: bytes) -> bytes:
    """Return the data in the body of a create."""
    return bytes(parse_body(EventType.CREATE, body).data)  # type: ignore[union-attr]
