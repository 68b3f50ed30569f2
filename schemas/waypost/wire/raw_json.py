"""Where values stand in a valid JSON text, so that they can be kept byte for byte instead of written anew. Pure."""

import json
import re
from typing import Final, cast

from waypost.errors import InvalidCommandError

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
