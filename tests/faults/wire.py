"""As much of the Kafka and Postgres protocols as it takes to lose the reply to one kind of request.

The request reaches the server and takes effect; its reply is thrown away, and the connection cut.
Sources: Kafka protocol guide (requests and responses are framed by a length, a response names its request by
correlation id); PostgreSQL, Frontend/Backend Protocol, Message Formats.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

PRODUCE: Final = 0
# Only the statement that applies a batch writes its outbox entry.
COMMIT: Final = b"insert into waypost.outbox"
_STARTUPS_WITHOUT_TYPE: Final = (80877103, 80877104)  # SSLRequest, GSSENCRequest: another startup follows


@dataclass
class Losses:
    """How many replies are to be lost yet, and with what chance each; ``lost`` were."""

    random: Random
    chance: float = 0.3
    left: int = 0
    lost: int = 0

    def strike(self) -> bool:
        """Whether this one is to be lost."""
        if self.left and self.random.random() < self.chance:
            self.left -= 1
            return True
        return False


class KafkaReplies:
    """A Wire to a broker that loses replies to Produce requests."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._requests = bytearray()
        self._replies = bytearray()
        self._doomed: set[bytes] = set()  # correlation ids

    def sent(self, data: bytes) -> None:
        """See the protocol."""
        self._requests += data
        while (frame := _kafka_frame(self._requests)) is not None:
            if int.from_bytes(frame[4:6]) == PRODUCE and self._losses.strike():
                self._doomed.add(bytes(frame[8:12]))

    def answered(self, data: bytes) -> bytes | None:
        """See the protocol."""
        self._replies += data
        passed = b""
        while (frame := _kafka_frame(self._replies)) is not None:
            if bytes(frame[4:8]) in self._doomed:
                self._losses.lost += 1
                return None
            passed += frame
        return passed


def _kafka_frame(buffer: bytearray) -> bytes | None:
    """Take the first whole frame, length included, off the buffer."""
    if len(buffer) < 4:
        return None
    end = 4 + int.from_bytes(buffer[:4])
    if len(buffer) < end:
        return None
    frame = bytes(buffer[:end])
    del buffer[:end]
    return frame


class PostgresReplies:
    """A Wire to Postgres that loses replies to the execution of a statement whose text holds ``mark``.

    The cut comes with ReadyForQuery, so that the statement, a transaction of its own, is known to be committed.
    """

    def __init__(self, losses: Losses, mark: bytes) -> None:
        self._losses = losses
        self._mark = mark
        self._requests = bytearray()
        self._started = False
        self._marked: set[bytes] = set()  # names of prepared statements
        self._losing = False
        self._tail = b""

    def sent(self, data: bytes) -> None:
        """See the protocol."""
        self._requests += data
        while True:
            header = 5 if self._started else 4
            if len(self._requests) < header:
                return
            end = header - 4 + int.from_bytes(self._requests[header - 4 : header])
            if len(self._requests) < end:
                return
            message = bytes(self._requests[:end])
            del self._requests[:end]
            if self._started:
                self._take(message[:1], message[5:])
            else:
                self._started = int.from_bytes(message[4:8]) not in _STARTUPS_WITHOUT_TYPE

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":  # Parse: name, query
            name, _, rest = body.partition(b"\0")
            if self._mark in rest:
                self._marked.add(name)
        elif kind == b"B":  # Bind: portal, statement name
            name = body.split(b"\0", 2)[1]
            if name in self._marked and self._losses.strike():
                self._losing = True

    def answered(self, data: bytes) -> bytes | None:
        """See the protocol."""
        if not self._losing:
            return data
        self._tail = (self._tail + data)[-6:]
        if self._tail.startswith(b"Z\0\0\0\5"):  # ReadyForQuery
            self._losses.lost += 1
            return None
        return b""
