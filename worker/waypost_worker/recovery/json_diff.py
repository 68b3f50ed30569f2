"""The first difference between two JSON texts, described for a person at a terminal. Pure."""

from typing import Any, Final

import orjson

_LONGEST: Final = 120


def first_difference(left: bytes, right: bytes, left_name: str, right_name: str) -> str:
    """Return one line: the path, and the values on either side. Texts that are not JSON are compared as bytes."""
    try:
        found = _differing(orjson.loads(left), orjson.loads(right), "")
    except ValueError:
        found = None
    if found is not None:
        path, one, other = found
        return f"at {path or 'the top'}, {left_name} has {_short(one)} and {right_name} {_short(other)}"
    at = next((i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    if at is None and len(left) == len(right):
        return "they are the same"
    place = min(len(left), len(right)) if at is None else at
    begin = max(0, place - 20)
    return (
        f"from byte {place} on, {left_name} ({len(left)} bytes) has {_bytes(left[begin : begin + 60])} and "
        f"{right_name} ({len(right)} bytes) {_bytes(right[begin : begin + 60])}"
    )


class _Absent:
    """Stands for a member that is not there."""


def _differing(left: Any, right: Any, path: str) -> tuple[str, Any, Any] | None:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in [*left, *(name for name in right if name not in left)]:
            one, other = left.get(name, _Absent), right.get(name, _Absent)
            if found := _differing(one, other, f"{path}.{name}" if path else name):
                return found
        return None
    if isinstance(left, list) and isinstance(right, list):
        for at in range(max(len(left), len(right))):
            one = left[at] if at < len(left) else _Absent
            other = right[at] if at < len(right) else _Absent
            if found := _differing(one, other, f"{path}[{at}]"):
                return found
        return None
    return None if type(left) is type(right) and left == right else (path, left, right)


def _short(value: Any) -> str:
    if value is _Absent:
        return "nothing"
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _bytes(raw: bytes) -> str:
    return repr(raw.decode(errors="backslashreplace"))
