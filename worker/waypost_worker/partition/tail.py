"""What the results topic already holds behind the stored position: the truth about what was emitted. Pure."""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Final

import orjson

from waypost.wire.event_types import EventType
from waypost.wire.id_lists import as_written_today
from waypost_worker.partition.ports import FetchedResult, RefusedError, ResultRecord

_ACQUIRED: Final = EventType.ACQUIRED.wire
_REJECTED: Final = EventType.REJECTED.wire
_DIGEST_BYTES: Final = 16


def digest(record: FetchedResult | ResultRecord) -> bytes:
    """16 bytes that two results of one command share exactly when they say the same."""
    event_id, kind, said = essence(record)
    hashed = hashlib.blake2b(event_id + b"\0" + kind + b"\0", digest_size=_DIGEST_BYTES)
    hashed.update(said)
    return hashed.digest()


def essence(record: FetchedResult | ResultRecord) -> tuple[bytes, bytes, bytes]:
    """Event id, type, and what two results of one command must share.

    The wording of a rejection may improve from one version to the next; all else of it may not. Long lists of ids
    are compared as they are written today.
    """
    headers = dict(record.headers)
    kind = headers.get("ce_type", b"")
    value = as_written_today(record.value)
    if kind == _REJECTED:
        said = orjson.loads(value)
        said.pop("message", None)
        value = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return headers.get("ce_id", b""), kind, value


class EmittedTail:
    """Command offsets and digests of the results found between the stored position and the fence.

    24 bytes a result: after a restore of Postgres the tail may be millions of records long.
    """

    def __init__(self, emitted: int, results_offset: int = 0) -> None:
        self.highest = emitted  # R: the highest command offset that was emitted
        self.producer_ids: set[int] = set()  # of the owners whose fence records were found
        self.last_value: bytes | None = None  # of the last record of all
        self._emitted = emitted
        self._results_offset = results_offset
        self._last_below: int | None = None
        self._offsets = array("q")
        self._digests = bytearray()
        self._next = 0

    def take(self, records: Sequence[FetchedResult], from_offset: int) -> None:
        """Note these results; digests are kept only for commands from ``from_offset`` on.

        RefusedError where a result is unreadable or out of command order: it is not of this service.
        """
        if records:
            self.last_value = records[-1].value
        for record in records:
            if dict(record.headers).get("ce_type") == _ACQUIRED:
                # The owner that stored F is in Postgres with its id; those that came later are behind F.
                if record.offset >= self._results_offset:
                    self._note_owner(record)
                continue
            offset = command_offset(record)
            if record.offset < self._results_offset:
                self._last_below = offset
                continue
            if self._offsets and offset <= self._offsets[-1]:
                raise RefusedError(
                    f"the result at offset {record.offset} is of command {offset}, behind one of command "
                    f"{self._offsets[-1]}: somebody else wrote to the results topic; nothing was changed; "
                    "find and stop that writer"
                )
            self.highest = max(self.highest, offset)
            if offset >= from_offset:
                self._offsets.append(offset)
                self._digests += digest(record)

    def _note_owner(self, record: FetchedResult) -> None:
        try:
            producer_id = orjson.loads(record.value).get("producer_id")
        except (ValueError, AttributeError):
            return  # of somebody who is no owner
        if isinstance(producer_id, int):
            self.producer_ids.add(producer_id)

    def check_position(self) -> None:
        """RefusedError if a result just below F is there, and the last one is not that of command E."""
        if self._last_below is not None and self._last_below != self._emitted:
            raise RefusedError(
                f"the last result below offset {self._results_offset} of the results topic is of command "
                f"{self._last_below}, but Postgres knows it as that of {self._emitted}: the topic was recreated "
                "or cut. Nothing was changed; use another topic prefix, or rebuild with 'waypost replay'"
            )

    def compare(self, offset: int, record: ResultRecord) -> None:
        """Hold a result that is not emitted again against the one in the topic, for every command in turn.

        RefusedError if they differ, or if either has no counterpart: the command topic is then not the one
        that these results came from.
        """
        if offset <= self._emitted:
            return  # below the stored position, where it was not read
        found = self._offsets[self._next] if self._next < len(self._offsets) else None
        at = self._next * _DIGEST_BYTES
        self._next += 1
        if found != offset or bytes(self._digests[at : at + _DIGEST_BYTES]) != digest(record):
            raise RefusedError(
                f"the result of the command at offset {offset} in the results topic differs from what the "
                "command log gives now, or there is none: one of the topics was changed; nothing was written, "
                "run 'waypost verify'"
            )


def command_offset(record: FetchedResult) -> int:
    """The offset of the command that a result answers; RefusedError if it is no result of this service."""
    try:
        offset = orjson.loads(record.value)["command"]["offset"]
        return int(offset)
    except (ValueError, KeyError, TypeError):
        raise RefusedError(
            f"the record at offset {record.offset} of the results topic is no result of this service: "
            "nothing was changed; find and stop the other writer"
        ) from None
