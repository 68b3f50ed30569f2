"""Agents that publish commands: every kind, repeated ones, and every kind of mistake. Determined by the seed."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import orjson
from tests.support.commands import structured_event
from tests.support.encrypted_data import looking_encrypted
from tests.support.signing import public_key, signed_headers

from waypost.model.times import format_micros
from waypost.wire.encode import authority_body, skip_body
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of

EPOCH_MS = 1_795_000_000_000  # when virtual time begins, milliseconds since the Unix epoch
NAMES = ("task_started", "tool_called", "decision", "task_done")
Message = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]  # key, value, headers

_KINDS = (
    ("create", 60),
    ("pin", 6),
    ("unpin", 3),
    ("delete", 4),
    ("rollback", 7),
    ("import", 4),
    ("configure", 3),
    ("clear", 1),
    ("again", 8),
    ("mistake", 4),
    ("defaults", 1),
)
_SPARE = 8  # sessions that take the places of erased ones
_CHOICES = tuple(kind for kind, weight in _KINDS for _ in range(weight))


@cache
def sessions_of(partition: int, partitions: int, count: int) -> tuple[str, ...]:
    """Session ids that belong to a partition."""
    names = (f"run-{number}" for number in range(10_000))
    return tuple([name for name in names if partition_of(name, partitions) == partition][:count])


class Operators:
    """Sets the default policy and the authority of one partition, among others who may not."""

    def __init__(self, random: Random, partition: int) -> None:
        self._random = random
        self._partition = partition
        self._key: str | None = None
        self._kept: list[Message] = []

    def next(self, command_id: str, policy: bytes, now: int) -> Message:
        """The next command about the partition; ``now`` in microseconds."""
        chance, key = self._random.random(), self._key
        if chance < 0.2:
            self._key = self._random.choice(("one", "two", None))
            body = authority_body(None if self._key is None else public_key(self._key))
            return self._signed(key, EventType.CONFIGURE_AUTHORITY, command_id, body, now)
        if chance < 0.3 and self._kept:  # by somebody who kept what an operator sent
            return self._random.choice(self._kept)
        if chance < 0.4:
            key = None
        elif chance < 0.5:
            key = "an intruder"
        elif chance < 0.6:
            now -= 10**9
        return self._signed(key, EventType.CONFIGURE_DEFAULTS, command_id, policy, now)

    def order(
        self, command_id: str, offset: int, record: bytes, now: int, key: bytes | None
    ) -> list[Message]:
        """Have a command skipped; name an authority before if there is none."""
        messages = []
        names = {public_key(name): name for name in ("one", "two")}
        self._key = None if key is None else names[key]
        if self._key is None:
            self._key = "one"
            body = authority_body(public_key("one"))
            kind = EventType.CONFIGURE_AUTHORITY
            messages.append(self._signed(None, kind, f"{command_id}-key", body, now))
        body = skip_body(offset, record, "poison")
        return [*messages, self._signed(self._key, EventType.SKIP, command_id, body, now + 1)]

    def _signed(self, key: str | None, kind: EventType, command_id: str, body: bytes, now: int) -> Message:
        headers = signed_headers(key, self._partition, kind.wire, command_id, now, body)
        self._kept.append((None, body, headers))
        return self._kept[-1]


class Reaper:
    """Has sessions expire: some are idle, most are not, and some will be only in the future."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def instead_of(self, kind: str, now_ms: int) -> bytes | None:
        """The body of an expiry that takes the place of another rare command, or None."""
        if kind not in ("clear", "configure") or self._random.random() < 0.5:
            return None
        idle_ms = self._random.choice((-500, 0, 1, 50, 400, 2_000))
        body = {
            "idle_since": format_micros((now_ms - idle_ms) * 1000),
            "pinned": self._random.random() < 0.3,
        }
        return orjson.dumps(body)


class Eraser:
    """Has some sessions erased, of few agents. One that is erased is often followed by another: others stay dead."""

    def __init__(self, random: Random, spare: tuple[str, ...]) -> None:
        self._random = random
        self._spare = list(spare)
        self._erases = random.random() < 0.3
        self._last: str | None = None

    def erases(self, kind: str) -> bool:
        """Whether an erasure takes the place of another rare command."""
        return self._erases and kind in ("clear", "unpin", "import") and self._random.random() < 0.3

    def session(self, session_id: str, sessions: list[str]) -> str:
        """The session to erase: this one, which may be replaced in ``sessions``, or once more the last one."""
        if self._last is not None and self._random.random() < 0.3:
            return self._last
        if session_id in sessions and self._spare and self._random.random() < 0.7:
            sessions[sessions.index(session_id)] = self._spare.pop()
        self._last = session_id
        return session_id


class Agents:
    """Makes the commands of one partition's sessions, one after the other."""

    def __init__(self, random: Random, partition: int, partitions: int, sessions: int) -> None:
        self._random = random
        self._partition = partition
        self._partitions = partitions
        names = sessions_of(partition, partitions, sessions + _SPARE)
        self._sessions = list(names[:sessions])
        # They have luck of their own, so that they change nothing about what agents of the same seed do.
        luck = str(random.getstate()[1][:4])
        self._operators = Operators(Random(luck), partition)
        self._reaper = Reaper(Random(f"{luck} reaper"))
        self._eraser = Eraser(Random(f"{luck} eraser"), names[sessions:])
        self._made = 0
        self._sent: list[Message] = []
        self._numbers = dict.fromkeys(names, 0)

    def order(self, offset: int, record: bytes, now_ms: int, key: bytes | None) -> list[Message]:
        """An operator's order to skip a command, as Kafka records."""
        self._made += 1
        return self._operators.order(f"c{self._partition}-{self._made}", offset, record, now_ms * 1000, key)

    def next(self, now_ms: int) -> Message:
        """The next command, as a Kafka record."""
        kind = self._random.choice(_CHOICES)
        if kind == "again" and self._sent:
            return self._random.choice(self._sent[-12:])
        self._made += 1
        if kind == "mistake":
            return self._mistake(now_ms)
        if kind == "defaults":
            body = self._policy()
            self._headers(EventType.CONFIGURE_DEFAULTS.wire, now_ms)
            return self._operators.next(f"c{self._partition}-{self._made}", body, now_ms * 1000)
        session_id = self._random.choice(self._sessions)
        command_type, body = self._command(kind, session_id, now_ms)
        if (expiry := self._reaper.instead_of(kind, now_ms)) is not None:
            command_type, body = EventType.EXPIRE.wire, expiry
        if self._eraser.erases(kind):
            session_id = self._eraser.session(session_id, self._sessions)
            command_type, body = EventType.ERASE.wire, b"{}"
        message: Message = (session_id.encode(), body, self._headers(command_type, now_ms))
        if self._random.random() < 0.05:
            message = self._structured(session_id, command_type, body, now_ms)
        self._sent.append(message)
        return message

    def _command(self, kind: str, session_id: str, now_ms: int) -> tuple[bytes, bytes]:
        random = self._random
        target = f"{session_id}:{max(1, self._numbers[session_id] - random.randrange(5))}"
        match kind:
            case "pin" | "unpin" | "delete":
                return b"waypost.checkpoint." + kind.encode(), orjson.dumps({"checkpoint_id": target})
            case "rollback":
                body = {"checkpoint_id": target, "discard_later": random.random() < 0.4}
                return EventType.ROLLBACK.wire, orjson.dumps(body)
            case "import":
                return EventType.IMPORT.wire, self._import(session_id, now_ms)
            case "configure":
                return EventType.CONFIGURE.wire, self._policy()
            case "clear":
                return EventType.CLEAR.wire, b"{}"
            case _:
                self._numbers[session_id] += 1
                metadata = b',"metadata":{"step":%d}' % self._made if random.random() < 0.3 else b""
                name = random.choice(NAMES).encode()
                # Odd but legal bytes: data must come back as it went in.
                data = b'{"step": %d, "text":"\\u00e4 %s"}' % (self._made, b"x" * random.randrange(40))
                if self._made % 5 < 2:
                    data = looking_encrypted(session_id, f"c{self._made}")
                return EventType.CREATE.wire, b'{"name":"%b"%b,"data":%b}' % (name, metadata, data)

    def _import(self, session_id: str, now_ms: int) -> bytes:
        random = self._random
        highest = self._numbers[session_id]
        items = [
            {
                "id": random.choice(
                    [f"{session_id}:{random.randrange(1, highest + 3)}", f"old:{self._made}"]
                ),
                "name": "imported",
                "timestamp": format_micros((now_ms - 5000) * 1000),
                "data": orjson.Fragment(looking_encrypted(session_id, f"c{self._made}"))
                if self._made % 5 < 2
                else {"from": self._made},
            }
            for _ in range(random.randrange(1, 4))
        ]
        return orjson.dumps(
            {"checkpoints": items, "on_conflict": random.choice(("skip", "replace", "reject"))}
        )

    def _policy(self) -> bytes:
        random = self._random
        policy = {
            "max_checkpoints": random.randrange(2, 9),
            "compress_after": random.randrange(1, 7),
            "keep_recent": random.randrange(0, 6),
            "max_age": random.choice((None, 1, 3, 10)),
        }
        changes: dict[str, Any] = {field: policy[field] for field in policy if random.random() < 0.6}
        if self._made % 17 == 0:
            changes["encrypted"] = self._made % 3 > 0
        return orjson.dumps(changes)

    def _headers(self, command_type: bytes, now_ms: int) -> list[tuple[str, bytes]]:
        taken = format_micros((now_ms - self._random.randrange(200)) * 1000).encode()
        traceparent = b"00-%032x-%016x-01" % (self._made, self._made) if self._made % 7 == 0 else None
        command_id = f"c{self._partition}-{self._made}"
        return command_headers(command_id, b"/simulation", command_type, taken, traceparent)

    def _structured(self, session_id: str, command_type: bytes, body: bytes, now_ms: int) -> Message:
        attributes = {
            "id": f"c{self._partition}-{self._made}",
            "source": "/simulation",
            "type": command_type.decode(),
        }
        event = structured_event(attributes, now_ms * 1000, body)
        return session_id.encode(), event, [("content-type", b"application/cloudevents+json")]

    def _mistake(self, now_ms: int) -> Message:
        random = self._random
        session_id = random.choice(self._sessions).encode()
        headers = self._headers(EventType.CREATE.wire, now_ms)
        good = b'{"name":"n","data":{}}'
        elsewhere = sessions_of((self._partition + 1) % self._partitions, self._partitions, 1)[0].encode()
        unknown = self._headers(b"waypost.checkpoint.explode", now_ms)
        makers: tuple[Callable[[], Message], ...] = (
            lambda: (session_id, b'{"name": "n", "data": {', headers),
            lambda: (session_id, b'{"name":"n","data":{},"colour":"red"}', headers),
            lambda: (session_id, None, headers),
            lambda: (None, good, headers),
            lambda: (b"\xff\xfe", good, headers),
            lambda: (elsewhere, good, headers) if self._partitions > 1 else (session_id, b"[]", headers),
            lambda: (session_id, good, []),
            lambda: (session_id, good, unknown),
        )
        return random.choice(makers)()
