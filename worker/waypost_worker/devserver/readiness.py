"""Asks brokers, in Kafka's own protocol over plain sockets, whether they can serve everything.

A listening port is not enough: for a moment after its start, a broker refuses group and transaction requests, because
the internal topics do not exist or are not loaded yet. Owns the five requests needed to find that out; synchronous, so
that no event loop is involved. Knows nothing about processes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Self

from waypost_worker.devserver.ports import HOST

REQUEST_SECONDS = 5.0

METADATA, FIND_COORDINATOR, HEARTBEAT, INIT_PRODUCER_ID = 3, 10, 12, 22
GROUP, TRANSACTION = 0, 1
UNKNOWN_MEMBER_ID = 25
ERROR_NAMES = {
    5: "LEADER_NOT_AVAILABLE",
    14: "COORDINATOR_LOAD_IN_PROGRESS",
    15: "COORDINATOR_NOT_AVAILABLE",
    16: "NOT_COORDINATOR",
    51: "CONCURRENT_TRANSACTIONS",
}


class Readiness:
    """Return what is still missing until a cluster can serve every group and every transactional id."""

    def __init__(self, ports: Mapping[int, int], group_partitions: int, transaction_partitions: int) -> None:
        """Check these brokers.

        Args:
            ports: node id -> port of each broker that should be there.
            group_partitions: number of partitions of __consumer_offsets.
            transaction_partitions: the same of __transaction_state.
        """
        self._ports = dict(ports)
        self._groups = keys_of_all_partitions("waypost-ready", group_partitions)
        self._transactional_ids = keys_of_all_partitions("waypost-ready", transaction_partitions)

    def missing(self) -> str | None:
        """The first thing that is not there yet, in words, or None where all is well."""
        try:
            for node, port in self._ports.items():
                if problem := self._membership(node, port):
                    return problem
            any_port = next(iter(self._ports.values()))
            for key in self._groups:
                if problem := _group_problem(any_port, key):
                    return problem
            for key in self._transactional_ids:
                if problem := _transaction_problem(any_port, key):
                    return problem
            # Those requests created the internal topics; are they replicated?
            return self._replication(any_port)
        except (OSError, struct.error) as error:
            return f"no answer ({error})"

    def _membership(self, node: int, port: int) -> str | None:
        known = _metadata(port).brokers
        absent = sorted(self._ports.keys() - known)
        return f"node {node} does not see nodes {absent} as live brokers" if absent else None

    def _replication(self, port: int) -> str | None:
        for name, partition, leader, replicas, in_sync in _metadata(port).partitions:
            if leader < 0:
                return f"{name}-{partition} has no leader"
            behind = (replicas & self._ports.keys()) - in_sync
            if behind:
                return f"{name}-{partition} is not in sync on nodes {sorted(behind)}"
        return None


def keys_of_all_partitions(prefix: str, partitions: int) -> list[str]:
    """One key for each partition of a coordinator's topic, which takes Java's String.hashCode."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        key = f"{prefix}-{number}"
        found.setdefault(abs(java_hash(key)) % partitions, key)
        number += 1
    return [found[partition] for partition in range(partitions)]


def java_hash(text: str) -> int:
    """Return the result of Java's String.hashCode (for text within the Basic Multilingual Plane)."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _group_problem(port: int, group: str) -> str | None:
    # A heartbeat from a member that a loaded coordinator doesn't know changes nothing.
    coordinator, problem = _coordinator(port, group, GROUP)
    if problem:
        return problem
    body = _string(group) + struct.pack(">i", 0) + _string("nobody")
    error = _call(coordinator, HEARTBEAT, 0, body).int16()
    return None if error == UNKNOWN_MEMBER_ID else f"group coordinator of {group}: {_error(error)}"


def _transaction_problem(port: int, transactional_id: str) -> str | None:
    coordinator, problem = _coordinator(port, transactional_id, TRANSACTION)
    if problem:
        return problem
    reply = _call(coordinator, INIT_PRODUCER_ID, 0, _string(transactional_id) + struct.pack(">i", 60_000))
    reply.int32()
    error = reply.int16()
    return None if error == 0 else f"transaction coordinator of {transactional_id}: {_error(error)}"


def _coordinator(port: int, key: str, kind: int) -> tuple[int, str | None]:
    """(port of the coordinator, None) or (0, why there is none)."""
    reply = _call(port, FIND_COORDINATOR, 1, _string(key) + struct.pack(">b", kind))
    reply.int32()
    error = reply.int16()
    if error:
        return 0, f"coordinator of {key}: {_error(error)}"
    reply.string()
    reply.int32()
    reply.string()
    return reply.int32(), None


class _Metadata:
    def __init__(self, reply: _Reader) -> None:
        self.brokers: set[int] = set()
        self.partitions: list[tuple[str, int, int, set[int], set[int]]] = []
        for _ in range(reply.int32()):
            self.brokers.add(reply.int32())
            reply.string()
            reply.int32()
            reply.string()
        reply.int32()
        for _ in range(reply.int32()):
            reply.int16()
            name = reply.string()
            reply.int8()
            for _ in range(reply.int32()):
                reply.int16()
                partition, leader = reply.int32(), reply.int32()
                replicas, in_sync = set(reply.int32s()), set(reply.int32s())
                self.partitions.append((name, partition, leader, replicas, in_sync))


def _metadata(port: int) -> _Metadata:
    return _Metadata(_call(port, METADATA, 1, struct.pack(">i", -1)))


def _error(code: int) -> str:
    return ERROR_NAMES.get(code, f"error {code}")


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _call(port: int, api: int, version: int, body: bytes) -> _Reader:
    message = struct.pack(">hhi", api, version, 1) + _string("waypost-devserver") + body
    with socket.create_connection((HOST, port), timeout=REQUEST_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(message)) + message)
        (length,) = struct.unpack(">i", _receive(connection, 4))
        return _Reader(_receive(connection, length)).skip(4)


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the broker closed the connection")
        data += part
    return bytes(data)


class _Reader:
    """Reads Kafka's big-endian primitives."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def skip(self, length: int) -> Self:
        self._at += length
        return self

    def int8(self) -> int:
        return self._number(">b", 1)

    def int16(self) -> int:
        return self._number(">h", 2)

    def int32(self) -> int:
        return self._number(">i", 4)

    def int32s(self) -> Sequence[int]:
        return [self.int32() for _ in range(self.int32())]

    def string(self) -> str:
        length = self.int16()
        if length < 0:
            return ""
        start = self._at
        self._at += length
        return self._data[start : self._at].decode()

    def _number(self, form: str, size: int) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += size
        return int(value)
