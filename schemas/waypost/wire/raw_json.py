"""Where values stand in a valid JSON text, so that they can be kept byte for byte instead of written anew. Pure."""

import json
import re
from collections.abc import Callable
from typing import Final, cast

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.limits import has_long_number, nests_deeper

_whitespace: Final = re.compile(r"[ \t\n\r]*")
_value_end: Final = json.JSONDecoder().raw_decode


def members(raw: bytes) -> dict[str, str]:
    """The text of each member's value in a valid JSON object; a key that stands twice is refused."""
    text = raw.decode()
    members: dict[str, str] = {}
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        key, at = _value_end(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, end = _value_end(text, start)
        if key in members:
            raise InvalidCommandError("invalid-body", f"the key {key[:64]!r} stands twice: send it once")
        members[key] = text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def elements(text: str) -> list[str]:
    """The text of each element of a valid JSON array."""
    elements = []
    at = _skip(text, 1)
    while text[at] != "]":
        _, end = _value_end(text, at)
        elements.append(text[at:end])
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return elements


def _skip(text: str, at: int) -> int:
    return cast(re.Match[str], _whitespace.match(text, at)).end()


# Nearly all data keeps to the contract, and the worker needs only that answer, not Python objects. simdjson
# (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", VLDB Journal 28, 2019) gives it in a quarter of
# orjson's time. It rejects everything that orjson rejects, and integers beyond 64 bits as well. A "no" decides
# nothing: the caller then looks closely (waypost.model.limits.check_json).
# simdjson keeps about 14 bytes of memory for each byte of the longest text it has seen.
_LONGEST: Final = 64 * 1024


def is_plain_object(raw: bytes, levels: int) -> bool:
    """Whether ``raw`` certainly is a JSON object that nests no deeper than ``levels`` and holds no integer beyond 64
    bits.
    """
    look = _is_object if len(raw) <= _LONGEST else is_object_to_orjson
    return look(raw) and not nests_deeper(raw, levels)


def is_object_to_orjson(raw: bytes) -> bool:
    """The same for any depth, without simdjson."""
    try:
        return type(orjson.loads(raw)) is dict and not has_long_number(raw)
    except ValueError:
        return False


def _with_simdjson() -> Callable[[bytes], bool] | None:
    try:
        from simdjson import Parser
    except ImportError:
        return None
    parse = Parser().parse

    def is_object(raw: bytes) -> bool:
        try:
            parse(raw)
        # A parser refuses to start while another thread holds what it just made: that one looks closely, too.
        except (ValueError, RuntimeError, MemoryError):
            return False
        # A byte order mark, which simdjson passes over, is no JSON.
        return raw.startswith(b"{")

    return is_object


is_object_to_simdjson: Final = _with_simdjson()


_is_object: Final = is_object_to_simdjson or is_object_to_orjson
