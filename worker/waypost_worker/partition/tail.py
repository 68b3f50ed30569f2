"""The results in the topic after the stored position: the final record of what was emitted. Pure."""

import hashlib
from array import array
from collections.abc import Collection, Sequence
from typing import Final

import orjson

from waypost.wire.event_types import EventType
from waypost.wire.id_lists import as_written_today
from waypost_worker.partition.ports import FetchedResult, RefusedError, ResultRecord

_ACQUIRED: Final = EventType.ACQUIRED.wire
_REJECTED: Final = EventType.REJECTED.wire
_DIGEST_BYTES: Final = 16
_NO_OFFSET: Final = 2**63 - 1
_WAY_OUT: Final = (
    "Find that writer and revoke its permission to write; 'waypost results foreign' then shows its records, and "
    "'waypost results accept' makes workers ignore them"
)


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

    def __init__(
        self, emitted: int, results_offset: int = 0, owners: Collection[int] | None = None, start: int = 0
    ) -> None:
        """From the stored position (E, F). ``owners`` are the producer ids of those that may have written results
        behind F and left no fence record there; None if they are not known. ``start`` is where the topic begins.
        """
        self.highest = emitted  # R: the highest command offset that was emitted
        self.producer_ids: set[int] = set()  # of the owners whose fence records were found
        self.last_value: bytes | None = None  # of the last record of all
        self._owners = None if owners is None else set(owners)
        self._emitted = emitted
        self._results_offset = results_offset
        self._last_below: int | None = None
        # Of commands before the first that is answered, retention may have removed the results.
        self._is_first_known = start <= results_offset
        self._first_answered = emitted
        self._answered: set[int] = set()  # commands before ``from_offset``
        self._offsets = array("q")
        self._digests = bytearray()
        self._next = 0

    def take(self, records: Sequence[FetchedResult], from_offset: int, producers: Sequence[int]) -> None:
        """Note these results, and the ids of the producers that wrote them, -1 for none.

        Digests are kept only for commands from ``from_offset`` on. Raise RefusedError if a result is unreadable, comes
        from a producer that no owner had, or does not answer a later command than the previous one, from E on: then it
        was emitted twice, or not by this service.
        """
        if records:
            self.last_value = records[-1].value
        for record, producer_id in zip(records, producers, strict=True):
            if dict(record.headers).get("ce_type") == _ACQUIRED:
                if record.offset >= self._results_offset:
                    self._note_owner(record, producer_id)
                continue
            offset = command_offset(record)
            if record.offset < self._results_offset:
                self._last_below = offset
                continue
            if self._owners is not None and producer_id not in self._owners:
                # Its content may be right, or answer a command after the last answer, which would then never be
                # answered itself.
                raise RefusedError(
                    f"the result at offset {record.offset} of the results topic was written by producer {producer_id}, "
                    f"which no worker of this partition had: nothing was changed. {_WAY_OUT}"
                )
            if offset <= self.highest:
                raise RefusedError(
                    f"the result at offset {record.offset} is of command {offset}, after one of command "
                    f"{self.highest}: somebody else wrote to the results topic; nothing was changed. {_WAY_OUT}"
                )
            self.highest = offset
            if not self._is_first_known:
                self._is_first_known, self._first_answered = True, offset
            if offset >= from_offset:
                self._offsets.append(offset)
                self._digests += _digest_found(record)
            else:
                self._answered.add(offset)

    def lacks(self, offset: int) -> bool:
        """Tell whether an applied command has no result here, although a later one has."""
        is_looked_for = offset > self._emitted and self._first_answered <= offset < self.highest
        return is_looked_for and offset not in self._answered

    def _note_owner(self, record: FetchedResult, written_by: int) -> None:
        producer_id = fenced_producer(record)
        if producer_id is None:
            return  # of a producer that is not an owner's
        self.producer_ids.add(producer_id)
        if self._owners is not None and producer_id == written_by:
            self._owners.add(producer_id)

    def check_position(self) -> None:
        """Raise RefusedError if a result just below F exists, and the last one does not answer command E."""
        if self._last_below is not None and self._last_below != self._emitted:
            raise RefusedError(
                f"the last result below offset {self._results_offset} of the results topic answers command "
                f"{self._last_below}, but in Postgres it answers {self._emitted}: the topic was recreated "
                "or truncated. Nothing was changed; use another topic prefix, or rebuild with 'waypost replay'"
            )

    def compare(self, offset: int, record: ResultRecord) -> None:
        """Hold a result that is not emitted again against the one in the topic, for every command in turn.

        RefusedError if they differ, or if either has no counterpart: the command topic is then not the one
        that these results came from.
        """
        if offset <= self._emitted or offset < self._first_answered:
            return  # below the stored position, where it was not read; or retention removed it, which was accepted
        found = self._offsets[self._next] if self._next < len(self._offsets) else None
        at = self._next * _DIGEST_BYTES
        self._next += 1
        if found != offset or bytes(self._digests[at : at + _DIGEST_BYTES]) != digest(record):
            raise RefusedError(
                f"the result of the command at offset {offset} in the results topic differs from what the "
                "command log gives now, or there is none: one of the topics was changed; nothing was written, "
                "run 'waypost verify'"
            )


def _digest_found(record: FetchedResult) -> bytes:
    try:
        return digest(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Headers without a value, or a body that no result has.
        raise _not_a_result(record) from None


def fenced_producer(record: FetchedResult) -> int | None:
    """Return the producer id that a fence record names; None if it names none."""
    try:
        producer_id = orjson.loads(record.value)["producer_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return producer_id if isinstance(producer_id, int) else None


def command_offset(record: FetchedResult) -> int:
    """Return the offset of the command that a result answers. Raise RefusedError if it is not a result of this
    service.
    """
    try:
        offset = orjson.loads(record.value)["command"]["offset"]
        if not isinstance(offset, int) or not 0 <= offset < _NO_OFFSET:
            raise ValueError(offset)
        return offset
    except (ValueError, KeyError, TypeError):
        raise _not_a_result(record) from None


def _not_a_result(record: FetchedResult) -> RefusedError:
    return RefusedError(
        f"the record at offset {record.offset} of the results topic is not a result of this service: "
        f"nothing was changed. {_WAY_OUT}"
    )
