"""Requests of flexible versions (KIP-482) that aiokafka does not have, for its connection to send.

Owns how such requests and answers are framed, and their basic types. A connection calls a request's ``prepare``, and of
what that returns ``build_request_header``, ``encode``, ``parse_response_header`` and ``RESPONSE_TYPE.decode``.
"""

import struct
from abc import ABC, abstractmethod
from io import BytesIO
from typing import Any, ClassVar, Final, NamedTuple, Self

from aiokafka.errors import IncompatibleBrokerVersion

NO_TAGS: Final = b"\0"
_HEADER: Final = struct.Struct(">hhih")  # key, version, correlation id, length of the client id
_CORRELATION: Final = struct.Struct(">i")


class RequestHeader(NamedTuple):
    """A header that is packed already."""

    packed: bytes

    def encode(self) -> bytes:
        """Return its bytes."""
        return self.packed


class ResponseHeader(NamedTuple):
    """Which request is answered."""

    correlation_id: int


class FlexibleRequest(ABC):
    """A request in one version. It is sent only to brokers that know this version."""

    API_KEY: ClassVar[int]
    API_VERSION: ClassVar[int]
    #: Whether the header of the answer has tags, as that of all answers but one.
    RESPONSE_HAS_TAGS: ClassVar[bool] = True

    @abstractmethod
    def encode(self) -> bytes:
        """Return the body of the request."""

    @abstractmethod
    def unpack(self, raw: bytes, at: int) -> Any:
        """Return what the answer holds from ``at`` on. Raise struct.error or IndexError if it is cut off."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Self:
        """Return this request, given the versions that a broker knows.

        Raises:
            NotImplementedError, IncompatibleBrokerVersion: The broker does not know this version.
        """
        if self.API_KEY not in versions:
            raise IncompatibleBrokerVersion(f"the broker does not know the request {self.API_KEY}")
        low, high = versions[self.API_KEY]
        if not low <= self.API_VERSION <= high:
            raise NotImplementedError(f"the broker knows versions {low} to {high} of request {self.API_KEY}")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> RequestHeader:
        """Return the header of the request."""
        name = client_id.encode()
        head = _HEADER.pack(self.API_KEY, self.API_VERSION, correlation_id, len(name))
        return RequestHeader(head + name + NO_TAGS)

    def parse_response_header(self, buffer: BytesIO) -> ResponseHeader:
        """Read the header of the answer."""
        (correlation_id,) = _CORRELATION.unpack(buffer.read(_CORRELATION.size))
        if self.RESPONSE_HAS_TAGS:
            _, at = unpack_tags(buffer.getvalue(), buffer.tell())
            buffer.seek(at)
        return ResponseHeader(correlation_id)

    @property
    def RESPONSE_TYPE(self) -> Self:
        """This request, which decodes its answer."""
        return self

    def decode(self, buffer: BytesIO) -> Any:
        """Return what the rest of the answer holds."""
        return self.unpack(buffer.getvalue(), buffer.tell())


def pack_uvarint(value: int) -> bytes:
    """Return a number of any size, 7 bits a byte."""
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def unpack_uvarint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number, and the index after it."""
    value = shift = 0
    while (byte := raw[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def pack_string(text: str) -> bytes:
    """Return a compact string."""
    raw = text.encode()
    return pack_uvarint(len(raw) + 1) + raw


def unpack_string(raw: bytes, at: int) -> tuple[str | None, int]:
    """Return a compact string, and the index after it. Raise IndexError if it is cut off."""
    size, at = unpack_uvarint(raw, at)
    if size == 0:
        return None, at
    end = at + size - 1
    if end > len(raw):
        raise IndexError(end)
    return raw[at:end].decode(), end


def unpack_tags(raw: bytes, at: int) -> tuple[dict[int, bytes], int]:
    """Return tagged fields, and the index after them."""
    count, at = unpack_uvarint(raw, at)
    tags: dict[int, bytes] = {}
    for _ in range(count):
        tag, at = unpack_uvarint(raw, at)
        size, at = unpack_uvarint(raw, at)
        tags[tag] = raw[at : at + size]
        at += size
    return tags, at
