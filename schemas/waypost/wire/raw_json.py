"""Positions of values in a valid JSON text, so that they can be kept byte for byte instead of written again. Pure.

No value is turned into Python objects: a text of 1 MB would take 40 MB and tens of milliseconds. Small, flat values are
passed over by one match, anything else by its brackets alone, counted a piece at a time.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.brackets import heights, nesting_marks
from waypost.model.limits import MAX_NESTING

# Possessive quantifiers (++ and *+) never try again what has matched, so no text takes more than one pass.
_SPACE: Final = rb"[ \t\n\r]*+"
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR: Final = _STRING + rb"|[^ \t\n\r,\]}\"\[{:]++"
_LEVELS: Final = 8
_AROUND: Final = 4  # levels around the data in a structured event
_SMALL: Final = 2048  # bytes
_OPENING: Final = (b"[", b"{")
_FIRST_PIECE: Final = 256
_LARGEST_PIECE: Final = 64 * 1024
_SMALLEST_PIECE: Final = 32


def _value(levels: int) -> bytes:
    inner = _SCALAR
    for _ in range(levels):
        inner = _STRING + rb"|[\[{](?:[^\[\]{}\"]++|" + inner + rb")*+[\]}]"
    return inner + b"|" + _SCALAR


def _pattern(text: bytes) -> re.Pattern[bytes]:
    return re.compile(text, re.DOTALL)


_START: Final = _pattern(_SPACE + rb"[\[{]" + _SPACE + rb"([\]}])?+")
_LONG_SCALAR: Final = _pattern(_SCALAR)
_SMALL_VALUE: Final = _pattern(_value(_LEVELS))
_NEXT: Final = _pattern(_SPACE + rb"([,\]}])" + _SPACE)
_KEY_AND_COLON: Final = b"(" + _STRING + b")" + _SPACE + b":" + _SPACE
_KEY: Final = _pattern(_KEY_AND_COLON)
# With a small value and what follows it. Space that ends after a comma does not match, because the next value begins
# later.
_COMMA: Final = b"(,)" + _SPACE + rb"(?=[^ \t\n\r])"
_MEMBER: Final = _pattern(_KEY_AND_COLON + b"(" + _value(_LEVELS) + b")" + _SPACE + b"(?:" + _COMMA + b"|})")
_ELEMENT: Final = _pattern(b"(" + _value(_LEVELS) + b")" + _SPACE + b"(?:" + _COMMA + rb"|\])")


def members(raw: bytes) -> dict[str, bytes]:
    """Return the text of each member's value in a valid JSON object. Raise InvalidCommandError if a key is repeated."""
    found: dict[str, bytes] = {}
    for key, start, end in member_spans(raw):
        if key in found:
            raise repeated_key(key)
        found[key] = raw[start:end]
    return found


def repeated_key(key: str) -> InvalidCommandError:
    """Return the error for a key that an object has twice."""
    return InvalidCommandError("invalid-body", f"the key {key[:64]!r} appears twice: send it once")


def member_spans(raw: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield key, start and end of each member's value in a valid JSON object."""
    opening = _matched(_START, raw, 0)
    at, more = opening.end(), opening[1] is None
    while more:
        member = _MEMBER.match(raw, at, at + _SMALL)
        if member is not None:
            start, end = member.span(2)
            yield orjson.loads(member[1]), start, end
            at, more = member.end(), member[3] == b","
            continue
        key = _matched(_KEY, raw, at)
        end = value_end(raw, key.end())
        yield orjson.loads(key[1]), key.end(), end
        following = _matched(_NEXT, raw, end)
        at, more = following.end(), following[1] == b","


def elements(raw: bytes) -> list[bytes]:
    """Return the text of each element of a valid JSON array."""
    return [raw[start:end] for start, end in element_spans(raw)]


def element_spans(raw: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each element of a valid JSON array."""
    opening = _matched(_START, raw, 0)
    at, more = opening.end(), opening[1] is None
    while more:
        element = _ELEMENT.match(raw, at, at + _SMALL)
        if element is not None:
            yield element.span(1)
            at, more = element.end(), element[2] == b","
            continue
        end = value_end(raw, at)
        yield at, end
        following = _matched(_NEXT, raw, end)
        at, more = following.end(), following[1] == b","


def value_end(raw: bytes, at: int) -> int:
    """Return where the value that begins at ``at`` ends in a valid JSON text."""
    if raw[at : at + 1] not in _OPENING:
        return _matched(_LONG_SCALAR, raw, at).end()
    small = _SMALL_VALUE.match(raw, at, at + _SMALL) or _deep_value().match(raw, at, at + _SMALL)
    return small.end() if small is not None else _container_end(raw, at)


@cache
def _deep_value() -> re.Pattern[bytes]:
    # For all depths that the contract allows. Making it takes 10 ms, and few texts need it.
    return _pattern(_value(MAX_NESTING + _AROUND))


def _container_end(raw: bytes, at: int) -> int:
    size, depth, in_string = _FIRST_PIECE, 1, False
    at += 1
    while True:
        piece = _whole_escapes(raw, at, size)
        if not piece:
            raise _not_json()
        marks, ends_in_string = nesting_marks(piece, in_string)
        closing = marks.count(b"}")
        if closing >= depth and heights(marks)[0] + depth <= 0:
            # It ends in this piece: find out where.
            if len(piece) <= _SMALLEST_PIECE:
                return at + _end_in(piece, depth, in_string)
            size = max(len(piece) // 8, _SMALLEST_PIECE // 2)
            continue
        depth += len(marks) - 2 * closing
        at += len(piece)
        in_string = ends_in_string
        size = min(2 * size, _LARGEST_PIECE)


def _whole_escapes(raw: bytes, at: int, size: int) -> bytes:
    """Return the next ``size`` bytes, and one more if they would end within an escape."""
    piece = raw[at : at + size]
    if piece.endswith(b"\\") and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
        return raw[at : at + size + 1]
    return piece


def _end_in(piece: bytes, depth: int, in_string: bool) -> int:
    escaped = False
    for index, byte in enumerate(piece):
        if in_string:
            if escaped or byte == ord("\\"):
                escaped = not escaped
            elif byte == ord('"'):
                in_string = False
        elif byte == ord('"'):
            in_string = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
            if depth == 0:
                return index + 1
    raise _not_json()


def _matched(pattern: re.Pattern[bytes], raw: bytes, at: int) -> re.Match[bytes]:
    found = pattern.match(raw, at)
    if found is None:
        raise _not_json()
    return found


def _not_json() -> ValueError:
    return ValueError("the text is not valid JSON; validate it first")
