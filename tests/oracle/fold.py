"""The fold of one command partition: expected rows, and one expected result body for each command."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import orjson
from tests.oracle.ed25519 import is_valid
from tests.properties.naive import DEFAULT_POLICY, NaiveSession

from waypost.errors import InvalidCommandError
from waypost.model.commands import Command, ConfigureAuthority, ConfigureDefaults, Create, Import, Skip
from waypost.model.times import format_micros
from waypost.wire.decode import parse_body
from waypost.wire.envelope import Envelope, KafkaRecord, open_envelope, session_of
from waypost.wire.topics import partition_of

Row = dict[str, Any]
OF_PARTITION = ConfigureDefaults | ConfigureAuthority | Skip
TYPES_OF_PARTITION = (
    b"waypost.defaults.configure",
    b"waypost.authority.configure",
    b"waypost.partition.skip",
)
DEDUP_WINDOW = 256  # ids of commands that set the default policy


@dataclass
class Expected:
    """What a partition's log amounts to. ``results`` in command order, each a (type, body) pair."""

    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    bare: set[int] = field(default_factory=set)  # offsets of those that are kept without content
    erased: set[int] = field(
        default_factory=set
    )  # and of those that are not kept, as their sessions were erased
    erased_at: dict[str, int] = field(default_factory=dict)  # erased sessions, with the time of the erasure


def fold(records: list[KafkaRecord], partition: int, partitions: int) -> Expected:
    """Fold ``records``, the whole of a partition's log, in order."""
    return _Fold(partition, partitions).run(records)


class _Fold:
    def __init__(self, partition: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self.sessions: dict[str, NaiveSession] = {}
        self.contents: dict[tuple[str, int], tuple[bytes, Any]] = {}
        self.default = dict(DEFAULT_POLICY)
        self.default_ids: list[str] = []
        self.key: bytes | None = None
        self.signed_at: int | None = None
        self.orders: dict[int, set[bytes]] = {}  # found so far
        self.ordered: dict[int, set[bytes]] = {}  # found ahead
        self.skipped: list[int] = []
        self.rejected_of: dict[str, list[int]] = {}  # offsets, by session
        self.expected = Expected()

    def run(self, records: list[KafkaRecord], ahead: list[KafkaRecord] | None = None) -> Expected:
        """Fold ``records``, the beginning of the log ``ahead``."""
        self.ordered = self.orders_in(records if ahead is None else ahead)
        for record in records:
            kind, body = self.one(record)
            command = body.setdefault("command", {})
            command["partition"], command["offset"] = self.partition, record.offset
            self.expected.results.append((kind, body))
        for session_id, session in self.sessions.items():
            self.expected.counters[session_id] = session.counter
            if session.erased is not None:
                self.expected.erased_at[session_id] = session.erased
            for checkpoint in session.checkpoints:
                key = (session_id, checkpoint["number"])
                data, metadata = self.contents[key]
                self.expected.rows[key] = {**checkpoint, "data": data, "metadata": metadata}
        return self.expected

    def orders_in(self, records: list[KafkaRecord]) -> dict[int, set[bytes]]:
        """The commands that an authority has skipped, with the hashes of their records: known before all else."""
        ahead = _Fold(self.partition, self.partitions)
        for record in records:
            if record.key is None and not is_skippable(record):
                ahead.one(record)
        return ahead.orders

    def one(self, record: KafkaRecord) -> tuple[str, dict[str, Any]]:
        if is_skippable(record) and record_hash(record) in self.ordered.get(record.offset, ()):
            self.skipped.append(record.offset)
            return self.reject(record, "skipped")
        try:
            envelope = open_envelope(record)
            action = parse_body(envelope.type, envelope.body)
            self.check_place(envelope.session_id, isinstance(action, OF_PARTITION))
        except InvalidCommandError as error:
            return self.reject(record, "erased" if self.is_erased(record) else error.code)
        command = Command(envelope.id, record.offset, envelope.taken_at, envelope.recorded_at, action)
        if isinstance(action, OF_PARTITION):
            return self.of_partition(record, envelope, command, action)
        session_id = envelope.session_id or ""
        session = self.sessions.setdefault(session_id, NaiveSession(session_id))
        before = {c["number"]: dict(c) for c in session.checkpoints}
        decision = session.handle(command, self.default)
        if decision[0] == "rejected":
            return self.reject(record, decision[1])
        if decision[0] == "duplicate":
            known = None if decision[1] is None else f"{session_id}:{decision[1]}"
            return "waypost.command.duplicate", {
                "session_id": session_id,
                "checkpoint_id": known,
                "command": {"id": command.id},
            }
        if decision[0] == "erased":
            self.expected.erased.update(self.rejected_of.pop(session_id, []))
        kind, body = self.accepted(session, command, decision, before)
        return kind, {"session_id": session_id, **body, "command": {"id": command.id}}

    def check_place(self, session_id: str | None, is_of_partition: bool) -> None:
        if is_of_partition != (session_id is None):
            raise InvalidCommandError("invalid-envelope", "key")
        if session_id is not None and partition_of(session_id, self.partitions) != self.partition:
            raise InvalidCommandError("misrouted", "partition")

    def accepted(
        self, session: NaiveSession, command: Command, decision: tuple[Any, ...], before: dict[int, Row]
    ) -> tuple[str, dict[str, Any]]:
        session_id = session.session_id

        def removed(numbers: list[int]) -> dict[str, Any]:
            return named("removed", "removed_ranges", session_id, numbers)

        action = command.action
        kind = decision[0]
        if isinstance(action, Create):
            number = decision[1]
            self.contents[session_id, number] = (action.data, orjson.loads(action.metadata))
            made = {
                "number": number,
                "name": action.name,
                "taken_at": command.taken_at,
                "recorded_at": command.recorded_at,
                "pinned": False,
                "imported_id": None,
            }
            return "waypost.checkpoint.created", {
                "checkpoint": self.shown(session_id, made),
                **removed(decision[5]),
            }
        if kind in ("pinned", "unpinned", "deleted"):
            about = {"checkpoint_id": f"{session_id}:{decision[1]}", **removed(decision[2])}
            return f"waypost.checkpoint.{kind}", about
        if kind == "cleared":
            return "waypost.session.cleared", {"count": len(decision[1]), **removed(decision[1])}
        if kind == "rolled back":
            shown = self.shown(session_id, before[decision[1]])
            return "waypost.session.rolled_back", {"checkpoint": shown, **removed(decision[2])}
        if kind == "erased":
            about = {"erased_at": format_micros(decision[1]), "count": len(decision[2])}
            return "waypost.session.erased", {**about, **removed(decision[2])}
        if kind == "expired":
            times = idle_times(decision)
            return "waypost.session.expired", {**times, "count": len(decision[3]), **removed(decision[3])}
        if kind == "kept":
            return "waypost.session.kept", idle_times(decision)
        if isinstance(action, Import):
            for item, (number, outcome) in zip(action.checkpoints, decision[1], strict=True):
                if outcome != "skipped":
                    self.contents[session_id, number] = (item.data, orjson.loads(item.metadata))
            counts = {
                outcome: sum(found == outcome for _, found in decision[1])
                for outcome in ("imported", "replaced", "skipped")
            }
            placed = named("ids", "id_ranges", session_id, [number for number, _ in decision[1]])
            return "waypost.session.imported", {**counts, **placed, **removed(decision[2])}
        assert kind == "configured", decision
        return "waypost.session.configured", {
            "policy": _policy(dict(decision[1])),
            **removed(decision[2]),
        }

    def shown(self, session_id: str, checkpoint: Row) -> dict[str, Any]:
        data, metadata = self.contents[session_id, checkpoint["number"]]
        shown = {
            "id": f"{session_id}:{checkpoint['number']}",
            "name": checkpoint["name"],
            "timestamp": format_micros(checkpoint["taken_at"]),
            "recorded_at": format_micros(checkpoint["recorded_at"]),
            "data": orjson.loads(data),
            "metadata": metadata,
            "pinned": checkpoint["pinned"],
        }
        if checkpoint["imported_id"] is not None:
            shown["imported_id"] = checkpoint["imported_id"]
        return shown

    def of_partition(
        self,
        record: KafkaRecord,
        envelope: Envelope,
        command: Command,
        action: ConfigureDefaults | ConfigureAuthority | Skip,
    ) -> tuple[str, dict[str, Any]]:
        key = self.key
        if key is not None and not self.is_signed(record, envelope, key):
            return self.reject(record, "unauthorized")
        if command.id in self.default_ids:
            body = {"session_id": None, "checkpoint_id": None, "command": {"id": command.id}}
            return "waypost.command.duplicate", body
        if key is not None and self.signed_at is not None and command.taken_at <= self.signed_at:
            return self.reject(record, "unauthorized")
        if key is not None:
            self.signed_at = command.taken_at
        about: dict[str, Any]
        if isinstance(action, Skip):
            if key is None:
                return self.reject(record, "unauthorized")
            if action.offset >= record.offset:
                return self.reject(record, "invalid-body")
            self.orders.setdefault(action.offset, set()).add(action.record)
            if action.offset not in self.skipped:
                return self.reject(record, "conflict")
            about = {"offset": action.offset, "reason": action.reason, "command": {"id": command.id}}
            return "waypost.partition.skipped", about
        if isinstance(action, ConfigureAuthority):
            self.key = action.key
            shown = None if action.key is None else base64.b64encode(action.key).decode()
            kind, about = "waypost.authority.configured", {"key": shown}
        else:
            self.default.update(dict(action.changes))
            kind, about = "waypost.defaults.configured", {"policy": _policy(self.default)}
        if isinstance(action, ConfigureAuthority):
            times = [command.taken_at] if self.signed_at is None else [command.taken_at, self.signed_at]
            self.signed_at = max(times)
        self.default_ids = [*self.default_ids, str(command.id)][-DEDUP_WINDOW:]
        return kind, {**about, "command": {"id": command.id}}

    def is_signed(self, record: KafkaRecord, envelope: Envelope, key: bytes) -> bool:
        """As docs/other-languages.md says what is signed; for commands in binary mode."""
        signature = dict(record.headers).get("ce_signature") or b""
        message = b"Waypost signed command, version 1\n"
        for part in (
            str(self.partition),
            envelope.type,
            envelope.id,
            str(envelope.taken_at),
            envelope.body.decode(),
        ):
            message += f"{len(part.encode())}:{part}\n".encode()
        try:
            raw = base64.b64decode(signature, validate=True)
        except ValueError:
            return False
        return is_valid(key, message, raw)

    def reject(self, record: KafkaRecord, code: str) -> tuple[str, dict[str, Any]]:
        self.expected.rejected.append((record.offset, code))
        try:
            session_id = session_of(record)
        except InvalidCommandError:
            session_id = None
        if session_id is not None:
            self.rejected_of.setdefault(session_id, []).append(record.offset)
        if code == "erased":
            self.expected.bare.add(record.offset)
        return "waypost.command.rejected", {"session_id": session_id, "code": code}

    def is_erased(self, record: KafkaRecord) -> bool:
        """Whether the record is addressed to an erased session of this partition."""
        try:
            session_id = session_of(record)
        except InvalidCommandError:
            return False
        session = self.sessions.get(session_id or "")
        return session is not None and session.erased is not None


def idle_times(decision: tuple[Any, ...]) -> dict[str, Any]:
    since, last = decision[1], decision[2]
    return {
        "idle_since": format_micros(since),
        "last_recorded_at": None if last is None else format_micros(last),
    }


def is_skippable(record: KafkaRecord) -> bool:
    said = [(name, value) for name, value in record.headers if value is not None]
    content = dict(said).get("content-type", b"").split(b";")[0].strip(b" \t").lower()
    kinds = [value for name, value in said if name == "ce_type" and value in TYPES_OF_PARTITION]
    return record.key is not None or not (kinds or content == b"application/cloudevents+json")


def record_hash(record: KafkaRecord) -> bytes:
    """16 bytes over offset, time, key, value and headers, each with its length in front."""
    parts = [f"{record.offset} {record.timestamp}".encode()]
    parts += [
        b" -" if part is None else f" {len(part)}:".encode() + part for part in (record.key, record.value)
    ]
    for name, value in record.headers:
        parts.append(f" {len(name)}:{name} {len(value or b'')}:".encode() + (value or b""))
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def named(whole: str, ranges: str, session_id: str, numbers: list[int]) -> dict[str, Any]:
    """The fields of a result that name these checkpoints: ids in full up to 1 MiB of JSON, or ranges of numbers."""
    ids = [f"{session_id}:{number}" for number in numbers]
    if len(json.dumps(ids, ensure_ascii=False, separators=(",", ":")).encode()) <= 1024 * 1024:
        return {whole: ids}
    # Consecutive numbers share their distance to their place in the list.
    runs = groupby(enumerate(numbers), key=lambda placed: placed[1] - placed[0])
    spans = [[number for _, number in run] for _, run in runs]
    return {whole: [], ranges: [[span[0], span[-1]] for span in spans]}


def _policy(policy: dict[str, Any]) -> dict[str, Any]:
    age = policy["max_age"]
    shown = {**policy, "max_age": None if age is None else age / 1_000_000}
    if not shown["encrypted"]:
        del shown["encrypted"]
    return shown


def differences(expected: Expected, found: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Where the results of a partition (type and parsed body, in topic order) are not the expected ones.

    The wording of a rejection and the id of a refused command are left out: they are not semantics.
    """
    problems = []
    for (kind, body), (found_kind, found_body) in zip(expected.results, found, strict=False):
        offset = body["command"]["offset"]
        if kind != found_kind:
            problems.append(f"command {offset}: expected {kind}, found {found_kind}")
            continue
        if kind == "waypost.command.rejected":
            shown = {key: value for key, value in found_body.items() if key != "message"}
            shown["command"] = {k: v for k, v in found_body["command"].items() if k != "id"}
        else:
            shown = found_body
        if body != shown:
            problems.append(f"command {offset} ({kind}): expected {body}, found {shown}"[:600])
    missing = len(expected.results) - len(found)
    if missing:
        problems.append(f"{abs(missing)} results {'missing' if missing > 0 else 'too many'}")
    return problems
