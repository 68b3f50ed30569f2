"""From rows of Postgres to checkpoints, decrypted if the reader has a codec."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from waypost.model.checkpoint import Checkpoint, checkpoint_id
from waypost.model.limits import canonical_metadata

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec

_AT_ONCE: Final = 20  # checkpoints of a stream whose keys are looked up together


async def decoded_rows(rows: Sequence[Any], codec: "Codec | None") -> list[Checkpoint]:
    """Return checkpoints, with their data decrypted if there is a codec.

    Raises:
        EncryptionError: Some data can't be decrypted.
    """
    data = await decrypted_data(rows, codec)
    return [_checkpoint(row, each) for row, each in zip(rows, data, strict=True)]


async def decoded_stream(rows: AsyncIterator[Any], codec: "Codec | None") -> AsyncIterator[Checkpoint]:
    """Yield checkpoints from a stream of rows, a few in memory at a time."""
    gathered: list[Any] = []
    async for row in rows:
        gathered.append(row)
        if codec is None or len(gathered) == _AT_ONCE:
            for checkpoint in await decoded_rows(gathered, codec):
                yield checkpoint
            gathered = []
    for checkpoint in await decoded_rows(gathered, codec):
        yield checkpoint


async def decrypted_data(
    rows: Sequence[Any], codec: "Codec | None", session_id: str | None = None
) -> list[bytes]:
    """Return the data of rows that have the columns ``number``, ``name``, ``data`` and ``command_id``.

    ``session_id`` is that of rows without this column. Rows whose data a statement left out, which is then empty, stay
    as they are.

    Raises:
        EncryptionError: Some data can't be decrypted.
    """
    data = [bytes(row["data"]) for row in rows]
    if codec is None:
        return data
    from waypost.encryption.codec import Found

    places = [place for place, each in enumerate(data) if each]
    found = []
    for place in places:
        row = rows[place]
        owner = row["session_id"] if session_id is None else session_id
        label = f"checkpoint {checkpoint_id(owner, row['number'])!r}"
        found.append(Found(owner, row["name"], row["command_id"], data[place], label))
    for place, plain in zip(places, await codec.decrypt(found), strict=True):
        data[place] = plain
    return data


def _checkpoint(row: Any, data: bytes) -> Checkpoint:
    return Checkpoint(
        id=checkpoint_id(row["session_id"], row["number"]),
        name=row["name"],
        timestamp=row["taken_at"],
        recorded_at=row["recorded_at"],
        raw_data=data,
        raw_metadata=canonical_metadata(orjson.loads(row["metadata"])),
        pinned=row["pinned"],
        imported_id=row["imported_id"],
    )
