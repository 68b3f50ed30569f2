"""From a decision to the one result record of its command. Pure, and the same bytes after every replay.

The result types and bodies are the contract's (:mod:`waypost.wire.result_models`); a test holds what is made here
against those models. ``ce_id`` is a UUIDv5 (RFC 9562) of results topic, command partition and offset.
"""

import hashlib
from binascii import hexlify
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple, assert_never
from uuid import NAMESPACE_URL

import orjson
from typing_extensions import override

from waypost.model.checkpoint import checkpoint_id
from waypost.model.decisions import (
    Accepted,
    AuthorityConfigured,
    Cleared,
    Configured,
    Created,
    DefaultsConfigured,
    Deleted,
    Duplicate,
    Erased,
    Expired,
    Imported,
    PartitionDecision,
    Pinned,
    Rejected,
    RolledBack,
    SessionKept,
    Skipped,
    Unpinned,
)
from waypost.model.index import Entry
from waypost.model.retention import RetentionPolicy
from waypost.model.times import format_micros
from waypost.wire.envelope import JSON, MAX_KEY_BYTES, Envelope
from waypost.wire.event_types import EventType
from waypost.wire.id_lists import ALWAYS_FITTING, id_list_fields, id_list_members
from waypost.wire.signing import encode_key
from waypost_worker.partition.kept import MAX_MESSAGE
from waypost_worker.partition.ports import Fence, ResultRecord

_TYPES: Final[dict[type, bytes]] = {
    Pinned: EventType.PINNED.wire,
    Unpinned: EventType.UNPINNED.wire,
    Deleted: EventType.DELETED.wire,
    Cleared: EventType.CLEARED.wire,
    RolledBack: EventType.ROLLED_BACK.wire,
    Imported: EventType.IMPORTED.wire,
    Configured: EventType.CONFIGURED.wire,
    Expired: EventType.EXPIRED.wire,
    Erased: EventType.ERASED.wire,
    DefaultsConfigured: EventType.DEFAULTS_CONFIGURED.wire,
    AuthorityConfigured: EventType.AUTHORITY_CONFIGURED.wire,
    Skipped: EventType.SKIPPED.wire,
}
_DUPLICATE: Final = EventType.DUPLICATE.wire
_KEPT: Final = EventType.KEPT.wire
_REJECTED: Final = EventType.REJECTED.wire
# The two highest bits of the ninth byte are 10 (RFC 9562, section 4.1).
_VARIANT: Final = {b"%x" % digit: b"%x" % (8 | digit & 3) for digit in range(16)}
_PARTS: Final = Struct("8s4sx3sc3s12s8x").unpack
_NOTHING_REMOVED: Final = b',"pinned":false},"removed":[],"command":{"id":'
Content = tuple[bytes, bytes]  # data and canonical metadata, both JSON


Header = tuple[str, bytes]


@lru_cache(maxsize=1024)
def _name(name: str) -> tuple[bytes, Header]:
    # Agents have few names: as JSON, and as a header.
    return orjson.dumps(name), ("ce_checkpointname", name.encode())


@lru_cache(maxsize=16)
def _time(micros: int) -> tuple[bytes, Header]:
    # All records of one append to the log have the same time.
    text = format_micros(micros).encode()
    return text, ("ce_time", text)


class _About(NamedTuple):
    """The part of a result's key and headers that describes its command; ``name`` is that of a checkpoint."""

    key: bytes | None
    command_id: str | None
    session_id: str | None
    subject: str | None
    name: str | None = None
    traceparent: bytes | None = None


class ResultEncoder:
    """Makes the result records of one partition."""

    def __init__(self, results_topic: str, partition: int) -> None:
        self.partition = partition
        self._place = b',"partition":%d,"offset":' % partition
        self._source = f"/{results_topic}/{partition}".encode()
        # Headers that all results of creates share.
        self._version = ("ce_specversion", b"1.0")
        self._from = ("ce_source", self._source)
        self._created = ("ce_type", EventType.CREATED.wire)
        self._content = ("content-type", JSON)
        # The SHA-1 of the constant part is taken once; each id then hashes only its offset.
        self._identity = hashlib.sha1(NAMESPACE_URL.bytes, usedforsecurity=False)
        self._identity.update(f"{results_topic}:{partition}:".encode())

    def event_id(self, offset: int) -> bytes:
        """The CloudEvents id of the result of the command at ``offset``: a UUIDv5."""
        return self._event_id(b"%d" % offset)

    def _event_id(self, offset: bytes) -> bytes:
        hashed = self._identity.copy()
        hashed.update(offset)
        first, second, third, variant, fourth, last = _PARTS(hexlify(hashed.digest()))
        parts = (first, b"-", second, b"-5", third, b"-", _VARIANT[variant], fourth, b"-", last)
        return b"".join(parts)

    def created(
        self,
        envelope: Envelope,
        offset: int,
        entry: Entry,
        content: Content,
        removed: tuple[int, ...],
    ) -> ResultRecord:
        """The result of a create: the whole checkpoint and what retention dropped."""
        session_id = envelope.session_id or ""
        key = session_id.encode()
        session = orjson.dumps(session_id)
        opened = session[:-1]
        number, place = b"%d" % entry.number, b"%d" % offset
        recorded, time_header = _time(entry.recorded_at)
        name, name_header = _name(entry.name)
        if not removed:
            gone = _NOTHING_REMOVED
        elif len(removed) <= ALWAYS_FITTING:
            gone = b',"pinned":false},"removed":[%b],"command":{"id":' % b",".join(
                [b'%b:%d"' % (opened, one) for one in removed]
            )
        else:
            gone = b',"pinned":false},%b,"command":{"id":' % id_list_members(b"removed", session, removed)
        body = b"".join(
            (
                b'{"session_id":',
                session,
                b',"checkpoint":{"id":',
                opened,
                b":",
                number,
                b'","name":',
                name,
                b',"timestamp":"',
                format_micros(entry.taken_at).encode(),
                b'","recorded_at":"',
                recorded,
                b'","data":',
                content[0],
                b',"metadata":',
                content[1],
                gone,
                orjson.dumps(envelope.id),
                self._place,
                place,
                b"}}",
            )
        )
        headers = [
            self._version,
            ("ce_id", self._event_id(place)),
            self._from,
            self._created,
            time_header,
            ("ce_subject", key + b":" + number),
            ("ce_sessionid", key),
            name_header,
            self._content,
        ]
        if envelope.traceparent is not None:
            headers.append(("traceparent", envelope.traceparent))
        return tuple.__new__(ResultRecord, (key, body, headers))  # as in waypost.wire.envelope

    def accepted(
        self, envelope: Envelope, offset: int, decision: Accepted, about: tuple[Entry, Content] | None = None
    ) -> ResultRecord:
        """The result of any accepted command but a create; ``about`` is a rollback's checkpoint."""
        session_id = envelope.session_id or ""
        body: dict[str, Any] = {"session_id": session_id}
        subject, name = session_id, None
        match decision:
            case Pinned() | Unpinned() | Deleted():
                subject = body["checkpoint_id"] = checkpoint_id(session_id, decision.number)
            case Cleared():
                body["count"] = len(decision.removed)
            case RolledBack():
                if about is None:
                    raise AssertionError("the result of a rollback needs its checkpoint")
                entry, content = about
                subject, name = checkpoint_id(session_id, entry.number), entry.name
                body["checkpoint"] = checkpoint_fields(session_id, entry, content)
            case Imported():
                for outcome in ("imported", "replaced", "skipped"):
                    body[outcome] = decision.count(outcome)
                numbers = [placed.number for placed in decision.placed]
                body |= id_list_fields("ids", session_id, numbers)
            case Configured():
                body["policy"] = policy_fields(decision.policy)
            case Expired():
                body |= _idle_fields(decision)
                body["count"] = len(decision.removed)
            case Erased():
                body["erased_at"] = format_micros(decision.erased_at)
                body["count"] = len(decision.removed)
            case Created():
                raise AssertionError("a create has a separate method")
        body |= id_list_fields("removed", session_id, decision.removed)
        return self._record(
            envelope.session_id, _TYPES[type(decision)], envelope, offset, body, subject, name
        )

    def for_partition(self, envelope: Envelope, offset: int, decision: PartitionDecision) -> ResultRecord:
        """The result of an accepted command about the whole partition."""
        body: dict[str, Any]
        match decision:
            case DefaultsConfigured():
                body = {"policy": policy_fields(decision.policy)}
            case AuthorityConfigured():
                body = {"key": None if decision.key is None else encode_key(decision.key)}
            case Skipped():
                body = {"offset": decision.offset, "reason": decision.reason}
            case _:
                assert_never(decision)
        return self._record(None, _TYPES[type(decision)], envelope, offset, body)

    def duplicate(self, envelope: Envelope, offset: int, decision: Duplicate) -> ResultRecord:
        """The result of a command that was accepted before."""
        session_id = envelope.session_id
        known = None
        if session_id is not None and decision.number is not None:
            known = checkpoint_id(session_id, decision.number)
        body = {"session_id": session_id, "checkpoint_id": known}
        return self._record(session_id, _DUPLICATE, envelope, offset, body, known or session_id)

    def kept(self, envelope: Envelope, offset: int, decision: SessionKept) -> ResultRecord:
        """The result of an expiry of a session that was not idle."""
        session_id = envelope.session_id
        body = {"session_id": session_id, **_idle_fields(decision)}
        return self._record(session_id, _KEPT, envelope, offset, body, session_id)

    def rejected(
        self,
        rejection: Rejected,
        offset: int,
        recorded_at: int,
        *,
        key: bytes | None,
        session_id: str | None,
        command_id: str | None,
        traceparent: bytes | None = None,
    ) -> ResultRecord:
        """Make the result of a rejected command. Its record has the command's key, unless that is too long for one."""
        message = rejection.message[:MAX_MESSAGE]
        body = {"session_id": session_id, "code": rejection.code, "message": message}
        short_key = None if key is not None and len(key) > MAX_KEY_BYTES else key
        about = _About(short_key, command_id, session_id, session_id, traceparent=traceparent)
        return self._build(_REJECTED, offset, recorded_at, body, about)

    def acquired(self, epoch: int, next_offset: int, fence: Fence) -> ResultRecord:
        """The fence record. It carries no clock and no command; its id names the epoch.

        The producer id is for owners that come later: Postgres may have forgotten it, the topic has not.
        """
        body = {
            "partition": self.partition,
            "epoch": epoch,
            "next_offset": next_offset,
            "producer_id": fence.producer_id,
            "producer_epoch": fence.producer_epoch,
        }
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"acquired-%d-%d" % (self.partition, epoch)),
            ("ce_source", self._source),
            ("ce_type", EventType.ACQUIRED.wire),
            ("content-type", JSON),
        ]
        return ResultRecord(None, orjson.dumps(body), headers)

    def _record(
        self,
        session_id: str | None,
        result_type: bytes,
        envelope: Envelope,
        offset: int,
        body: dict[str, Any],
        subject: str | None = None,
        name: str | None = None,
    ) -> ResultRecord:
        key = None if session_id is None else session_id.encode()
        about = _About(key, envelope.id, session_id, subject, name, envelope.traceparent)
        return self._build(result_type, offset, envelope.recorded_at, body, about)

    def _build(
        self, result_type: bytes, offset: int, recorded_at: int, body: dict[str, Any], about: _About
    ) -> ResultRecord:
        key, command_id, session_id, subject, name, traceparent = about
        body["command"] = {"id": command_id, "partition": self.partition, "offset": offset}
        headers = [
            self._version,
            ("ce_id", self.event_id(offset)),
            self._from,
            ("ce_type", result_type),
            _time(recorded_at)[1],
        ]
        if subject is not None:
            headers.append(("ce_subject", subject.encode()))
        if session_id is not None:
            headers.append(("ce_sessionid", session_id.encode()))
        if name is not None:
            headers.append(("ce_checkpointname", name.encode()))
        headers.append(self._content)
        if traceparent is not None:
            headers.append(("traceparent", traceparent))
        return ResultRecord(key, orjson.dumps(body), headers)


def checkpoint_fields(session_id: str, entry: Entry, content: Content) -> dict[str, Any]:
    """A checkpoint as results show it; data stays byte for byte what was stored."""
    fields: dict[str, Any] = {
        "id": checkpoint_id(session_id, entry.number),
        "name": entry.name,
        "timestamp": format_micros(entry.taken_at),
        "recorded_at": format_micros(entry.recorded_at),
        "data": orjson.Fragment(content[0]),
        "metadata": orjson.Fragment(content[1]),
        "pinned": entry.pinned,
    }
    if entry.imported_id is not None:
        fields["imported_id"] = entry.imported_id
    return fields


def _idle_fields(decision: Expired | SessionKept) -> dict[str, Any]:
    last = decision.last_recorded_at
    return {
        "idle_since": format_micros(decision.idle_since),
        "last_recorded_at": None if last is None else format_micros(last),
    }


def policy_fields(policy: RetentionPolicy) -> dict[str, Any]:
    """A policy as results show it: ``max_age`` in seconds, whole where it is whole."""
    age: int | float | None = policy.max_age
    if policy.max_age is not None:
        seconds, rest = divmod(policy.max_age, 1_000_000)
        age = policy.max_age / 1_000_000 if rest else seconds
    fields: dict[str, Any] = {
        "max_checkpoints": policy.max_checkpoints,
        "compress_after": policy.compress_after,
        "keep_recent": policy.keep_recent,
        "max_age": age,
    }
    if policy.encrypted:  # left out otherwise, as results were before there was encryption
        fields["encrypted"] = True
    return fields


_NOTHING: Final = ResultRecord(None, b"", ())


class NullEncoder(ResultEncoder):
    """Make the same empty record of everything, for folds whose results nobody reads: encoding is a third of
    the work.
    """

    def __init__(self, partition: int) -> None:
        super().__init__("", partition)

    @override
    def created(self, *_: Any) -> ResultRecord:
        return _NOTHING

    @override
    def accepted(self, *_: Any) -> ResultRecord:
        return _NOTHING

    @override
    def for_partition(self, *_: Any) -> ResultRecord:
        return _NOTHING

    @override
    def duplicate(self, *_: Any) -> ResultRecord:
        return _NOTHING

    @override
    def kept(self, *_: Any) -> ResultRecord:
        return _NOTHING

    @override
    def rejected(self, *_: Any, **__: Any) -> ResultRecord:
        return _NOTHING
