"""Append and fetch record batches unchanged, over a plain socket.

A client library would build or reject the batches that tests send.
"""

import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

_PRODUCE, _FETCH = 0, 1
_PRODUCE_VERSION, _FETCH_VERSION = 7, 4
_SECONDS: Final = 60.0
_ALL_REPLICAS: Final = -1


class Answer(NamedTuple):
    """The broker's answer to a batch: an error code, 0 for success, and the offset of the first record."""

    error: int
    offset: int


class RawKafka:
    """A blocking connection to the broker that leads all partitions in use."""

    def __init__(self, bootstrap_servers: str) -> None:
        host, _, port = bootstrap_servers.partition(",")[0].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=_SECONDS)
        self._sent = 0

    def produce(self, topic: str, partition: int, batch: bytes, version: int = _PRODUCE_VERSION) -> Answer:
        """Append a batch. Raise ConnectionError if the broker closes the connection instead of answering."""
        body = _string(None) if version >= 3 else b""
        body += struct.pack(">hi", _ALL_REPLICAS, 30_000)
        body += struct.pack(">i", 1) + _string(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch
        answer = self._ask(_PRODUCE, version, body)
        at = 4 + 2 + len(topic.encode()) + 4 + 4
        error, offset = struct.unpack_from(">hq", answer, at)
        return Answer(error, offset)

    def fetch(self, topic: str, partition: int, offset: int, most: int = 16 * 1024 * 1024) -> bytes:
        """Return the batches from the one with ``offset`` on, as the log holds them."""
        body = struct.pack(">iiiib", -1, 1, 0, most, 0)
        body += struct.pack(">i", 1) + _string(topic) + struct.pack(">iiqi", 1, partition, offset, most)
        answer = self._ask(_FETCH, _FETCH_VERSION, body)
        at = 4 + 4 + 2 + len(topic.encode()) + 4
        _, error, _, _ = struct.unpack_from(">ihqq", answer, at)
        if error:
            raise ValueError(f"fetching {topic}/{partition} from {offset}: error {error}")
        at += 4 + 2 + 8 + 8
        aborted = max(0, struct.unpack_from(">i", answer, at)[0])
        at += 4 + 16 * aborted
        size = struct.unpack_from(">i", answer, at)[0]
        return answer[at + 4 : at + 4 + size]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, api: int, version: int, body: bytes) -> bytes:
        self._sent += 1
        request = struct.pack(">hhi", api, version, self._sent) + _string("raw") + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", self._read(4))[0]
        answer = self._read(size)
        if struct.unpack_from(">i", answer)[0] != self._sent:
            raise ConnectionError("the answer belongs to another request")
        return answer[4:]

    def _read(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            piece = self._socket.recv(min(1 << 20, size - len(out)))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            out += piece
        return bytes(out)


def _string(text: str | None) -> bytes:
    if text is None:
        return struct.pack(">h", -1)
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw
