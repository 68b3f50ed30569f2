"""Stored data of adapters, shown as plain data: for programs that display sessions and must never build an object.

Nothing is imported, built or run here, whatever the stored data says: a type is only text. The MessagePack of
LangGraph is read by this module itself, so no agent framework is needed.
"""

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from waypost.adapters.allowed_types import shown
from waypost.adapters.loose_json import TEXT as LOOSE
from waypost.arguments import require_text, require_whole
from waypost.errors import InvalidArgumentError
from waypost.model.limits import MAX_INTEGER, MIN_INTEGER

__all__ = ["MAX_VALUES", "TypedValue", "plain_data", "plain_value"]

_KINDS: Final = frozenset({"null", "bytes", "bytearray", "json", "msgpack", "pickle"})
_MAX_DEPTH: Final = 100
MAX_VALUES: Final = 100_000

# LangGraph's kinds of MessagePack extensions, apart from those that name a type.
_NAMED: Final = range(6)
_ARRAY: Final = 6
_DELTA: Final = 7


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A value of a type that JSON lacks: the name of the type, "module:qualname", and what the value was made of.

    ``orjson.dumps`` takes it.
    """

    type: str
    value: Any


def plain_value(kind: str, raw: bytes, *, max_values: int = MAX_VALUES) -> Any:
    """Return a value that LangGraph's serializer wrote as plain data: JSON's types and :class:`TypedValue`.

    Bytes and whatever can't be looked into (pickles, encrypted values) come as base64.

    Raises:
        InvalidArgumentError: If the value is damaged, is nested more than 100 levels deep, or has more than
            ``max_values`` parts.
    """
    require_text("kind", kind)
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise InvalidArgumentError(f"raw must be bytes, not {type(raw).__name__}")
    with _reading(max_values) as reading:
        return reading.typed(kind, raw)


def plain_data(data: Any, *, max_values: int = MAX_VALUES) -> Any:
    """Return the data of an adapter's record, with every encoded value in it replaced by plain data.

    A damaged value becomes a :class:`TypedValue` whose type begins with "unreadable".

    Raises:
        InvalidArgumentError: If the data has more than ``max_values`` parts or is nested more than 100 levels deep.
    """
    with _reading(max_values) as reading:
        return reading.record(data, 0)


@contextmanager
def _reading(max_values: int) -> "Iterator[_Reading]":
    require_whole("max_values", max_values, 0)
    try:
        yield _Reading(max_values)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(str(error)) from error


_BYTES: Final = {"bytes": "builtins:bytes", "bytearray": "builtins:bytearray"}


def _text(raw: bytes | memoryview) -> str:
    return base64.b64encode(raw).decode()


def _float(text: str) -> TypedValue:
    return TypedValue("builtins:float", text)


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode())  # other encodings would import their codec
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None


class _TooMuchError(ValueError):
    """Looking further would take too long."""


class _Reading:
    """The reading of one value or one record, within bounds of size and depth."""

    def __init__(self, max_values: int) -> None:
        self._left = max_values
        self._raw = memoryview(b"")
        self._at = 0

    def record(self, data: Any, depth: int) -> Any:
        """Return parsed JSON of a record, with what is encoded in it."""
        self._count(depth)
        if isinstance(data, list):
            return [self.record(each, depth + 1) for each in data]
        if not isinstance(data, dict):
            return data
        kind, encoded = data.get("type"), data.get("base64")
        if isinstance(kind, str) and isinstance(encoded, str) and kind.partition("+")[0] in _KINDS:
            rest = {
                key: self.record(value, depth + 1)
                for key, value in data.items()
                if key not in ("type", "base64")
            }
            value = self._encoded(kind, encoded)
            return {**rest, "value": value} if rest else value
        if isinstance(data.get("__pickled__"), str) and isinstance(data.get("__type__"), str):
            return TypedValue(shown(data["__type__"]), TypedValue("pickle", data["__pickled__"]))
        found = {}
        for key, value in data.items():
            if depth == 0 and isinstance(value, str) and str(key).endswith(LOOSE):
                found[key.removesuffix(LOOSE)] = self._loose(value)
            else:
                found[key] = self.record(value, depth + 1)
        return found

    def _loose(self, text: str) -> Any:
        """Return what an adapter had to write with Python's json."""
        try:
            return self._carried(json.loads(text, parse_constant=_float), 0)
        except (ValueError, RecursionError) as error:
            if self._left < 0:
                raise
            return TypedValue("unreadable json", shown(str(error)))

    def _carried(self, value: Any, depth: int) -> Any:
        """Return parsed JSON in which each value that other JSON can't carry is a typed value."""
        self._count(depth)
        if isinstance(value, list):
            return [self._carried(each, depth + 1) for each in value]
        if isinstance(value, dict):
            return {_escaped(key): self._carried(each, depth + 1) for key, each in value.items()}
        if isinstance(value, str) and value != (escaped := _escaped(value)):
            return TypedValue("builtins:str", escaped)
        if isinstance(value, float) and not math.isfinite(value):  # 1e999
            return _float(str(value))
        if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            return TypedValue("builtins:int", str(value))
        return value

    def _encoded(self, kind: str, encoded: str) -> Any:
        try:
            return self.typed(kind, base64.b64decode(encoded, validate=True))
        except _TooMuchError:
            raise
        except ValueError as error:
            return TypedValue(f"unreadable {shown(kind)}", str(error))

    def typed(self, kind: str, raw: bytes) -> Any:
        """Return what LangGraph's serializer wrote."""
        if kind == "null":
            return None
        if kind == "json":
            return self.json(_parsed(raw), 0)
        if kind == "msgpack":
            return self._nested(memoryview(raw), 0)
        return TypedValue(_BYTES.get(kind, shown(kind)), _text(raw))

    def json(self, value: Any, depth: int) -> Any:
        """Return parsed JSON, with LangGraph's old way of naming classes as typed values."""
        self._count(depth)
        if isinstance(value, list):
            return [self.json(each, depth + 1) for each in value]
        if not isinstance(value, dict):
            return value
        inner = {key: self.json(each, depth + 1) for key, each in value.items()}
        if {"lc", "type", "id"} <= value.keys() and isinstance(value["id"], list):
            *module, name = map(str, value["id"] or [""])
            return TypedValue(shown(f"{'.'.join(module)}:{name}"), inner)
        return inner

    def _count(self, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError("the value has too many parts to be shown")
        if depth > _MAX_DEPTH:
            raise _TooMuchError("the value is nested too deeply to be shown")

    def _nested(self, raw: memoryview, depth: int) -> Any:
        outer = self._raw, self._at
        self._raw, self._at = raw, 0
        try:
            value = self._value(depth)
            if self._at != len(raw):
                raise ValueError(f"{len(raw) - self._at} bytes follow the value")
            return value
        finally:
            self._raw, self._at = outer

    def _take(self, size: int) -> memoryview:
        taken = self._raw[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("the value ends too early")
        self._at += size
        return taken

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _value(self, depth: int) -> Any:
        self._count(depth)
        first = self._number(">B")
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self._mapping(first & 0x0F, depth)
        if first < 0xA0:
            return self._list(first & 0x0F, depth)
        if first < 0xC0:
            return self._string(first & 0x1F)
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if first in _FIXED_EXTENSIONS:
            return self._extension(_FIXED_EXTENSIONS[first], depth)
        if first in _SIZED:
            form, read = _SIZED[first]
            return read(self, self._number(form), depth)
        raise ValueError(f"the value has the unknown mark {first:#x}")

    def _string(self, size: int, _: int = 0) -> str:
        return str(self._take(size), "utf-8", "replace")

    def _binary(self, size: int, _: int) -> TypedValue:
        return TypedValue("builtins:bytes", _text(self._take(size)))

    def _list(self, size: int, depth: int) -> list[Any]:
        return [self._value(depth + 1) for _ in range(size)]

    def _mapping(self, size: int, depth: int) -> Any:
        pairs = [[self._value(depth + 1), self._value(depth + 1)] for _ in range(size)]
        found = {key: value for key, value in pairs if isinstance(key, str)}
        # Keys that are not text, or that are the same as text, would get lost in an object.
        return found if len(found) == len(pairs) else TypedValue("builtins:dict", pairs)

    def _extension(self, size: int, depth: int) -> TypedValue:
        code = self._number(">b")
        raw = self._take(size)
        if code == _DELTA:
            return TypedValue("langgraph.checkpoint.serde.types:_DeltaSnapshot", self._nested(raw, depth + 1))
        if code in _NAMED or code == _ARRAY:
            parts = self._nested(raw, depth + 1)
            match parts:
                case [str(dtype), list(shape), str(order), TypedValue("builtins:bytes", data)] if (
                    code == _ARRAY
                ):
                    array = {"dtype": dtype, "shape": shape, "order": order, "data": data}
                    return TypedValue("numpy:ndarray", array)
                case _ if code == _ARRAY:
                    return TypedValue("numpy:ndarray", parts)
                case [str(module), str(name), payload, *_] if code in _NAMED:
                    return TypedValue(shown(f"{module}:{name}"), payload)
        return TypedValue(f"MessagePack extension {code}", _text(raw))


_CONSTANTS: Final[Mapping[int, Any]] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS: Final[Mapping[int, str]] = {
    0xCA + place: form
    for place, form in enumerate((">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"))
}
_FIXED_EXTENSIONS: Final[Mapping[int, int]] = {0xD4 + power: 2**power for power in range(5)}
_SIZES: Final = (">B", ">H", ">I")
_SIZED: Final[Mapping[int, tuple[str, Callable[[_Reading, int, int], Any]]]] = {
    first + place: (form, read)
    for first, forms, read in (
        (0xC4, _SIZES, _Reading._binary),
        (0xC7, _SIZES, _Reading._extension),
        (0xD9, _SIZES, _Reading._string),
        (0xDC, _SIZES[1:], _Reading._list),
        (0xDE, _SIZES[1:], _Reading._mapping),
    )
    for place, form in enumerate(forms)
}
