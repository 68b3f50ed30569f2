"""Limits of the contract for text: ids, names, and JSON. Pure; knows no command.

Incoming JSON is held to these rules by :func:`check_json`, outgoing Python values by :func:`dump_object`.
Both sides use the same limits, so what the publisher lets through the worker accepts.
"""

import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final
from uuid import UUID

import orjson

from waypost.arguments import require_text
from waypost.errors import InvalidArgumentError, InvalidCommandError, quoted
from waypost.model.brackets import nests_deeper

# Anything larger is rejected without being read. Operators may raise the topics' own limit, which 'waypost topics
# create' sets to 1 MiB. This one is part of what a command means, and therefore not a setting.
MAX_COMMAND_BYTES: Final = 16 * 1024 * 1024
MAX_HEADERS_BYTES: Final = 64 * 1024  # of names and values together
MAX_HEADERS: Final = 1000
MAX_SESSION_ID: Final = 200  # characters
MAX_NAME: Final = 200  # characters
MAX_COMMAND_ID: Final = 64  # characters
MAX_TYPE: Final = 256  # characters
MAX_SOURCE: Final = 2048  # characters
MAX_REASON: Final = 1000  # characters, why a command was skipped
MAX_CHECKPOINT_ID: Final = 256  # characters; own ids need at most 219
MAX_IMPORT_ITEMS: Final = 10_000  # checkpoints in one command
MAX_DATA_BYTES: Final = 900 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024  # in canonical form
# As it was written, with white space, escapes and repeated keys. Its Python objects take 40 times that.
MAX_METADATA_TEXT: Final = 1024 * 1024
MAX_NESTING: Final = 100
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1
# The largest number that an import may claim. A counter continues from there, so ids with larger numbers exist; it can
# never come near 10**18, let alone 2**63.
MAX_CLAIMED_NUMBER: Final = 10**15

# Unicode category Cc. NUL cannot be stored as text in Postgres, and CloudEvents forbids all of them.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_DIGITS_ONLY: Final = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_DIGITS: Final = b"0" * 19  # the shortest run of digits that can leave 64 bits
_LONG_RUNS: Final = re.compile(rb"[0-9]{19,}")
# A whole number, not the digits of a fraction or an exponent.
_LONG_INTEGERS: Final = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}+(?![.eE])")
#: Turns a value that JSON lacks into one that it has. Raises TypeError for what it does not know.
Default = Callable[[Any], Any]
_NEVER_NAN: Final = frozenset({str, int, bool, type(None)})
_LONGEST_PATH: Final = 120  # characters, in a message
_DUMP_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def text_problem(value: str, longest: int) -> str | None:
    """Return why ``value`` is not 1 to ``longest`` characters without control characters, or None."""
    if not value:
        return "is empty"
    if len(value) > longest:
        return f"has {len(value)} characters, at most {longest} are allowed"
    if not value.isprintable():
        if _CONTROL.search(value):
            return "contains a control character"
        if _SURROGATE.search(value):
            return "contains a lone surrogate, which UTF-8 cannot carry"
    return None


def require_sendable(what: str, text: str) -> None:
    """Raise InvalidArgumentError for what is not text, and for text that can't be sent: with a NUL or another control
    character, or half a character.
    """
    require_text(what, text)
    if (problem := text_problem(text or " ", len(text) + 1)) is not None:
        raise InvalidArgumentError(f"{what} {problem}, so nothing was sent: {quoted(text)}")


def require_sendable_options(options: Mapping[str, Any]) -> None:
    """Do the same for the options of a client, none of whose values is shown: one may be a password."""
    if not isinstance(options, Mapping):
        raise InvalidArgumentError(f"kafka_options must be a dict, not a {type(options).__name__}")
    for name, value in options.items():
        if isinstance(value, str) and (problem := text_problem(value or " ", len(value) + 1)) is not None:
            raise InvalidArgumentError(f"the option {quoted(name)} {problem}, so nothing was sent")


def check_json(raw: bytes, around: int = 1) -> Any:
    """Parse ``raw`` as JSON within the limits of the contract (nesting, 64-bit integers, no NaN).

    ``around`` is how many levels of the body stand around ``data``, which alone may nest 100 levels.
    Raises InvalidCommandError with code ``invalid-body``.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth" in str(error):
            raise too_deep() from None
        raise InvalidCommandError("invalid-body", f"the body is not JSON: {error}") from None
    if nests_deeper(raw, MAX_NESTING + around):
        raise too_deep()
    if has_long_number(raw):
        _check_integers(raw)
    return value


def has_long_number(raw: bytes) -> bool:
    """Return whether there is a row of digits that, as an integer, may not fit in 64 bits."""
    if raw.translate(_DIGITS_ONLY).find(_LONG_DIGITS) < 0:
        return False
    # Clocks in nanoseconds have 19 digits and fit; only what is larger is worth a second look.
    runs = _LONG_RUNS.findall(raw)
    return len(max(runs, key=len)) > 19 or max(runs) > b"%d" % (2**63 - 1)


def not_an_object(what: str, value: Any) -> InvalidCommandError:
    """Return the error for JSON that had to be an object; ``what`` names it."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    kind = names.get(type(value), "an array")
    return InvalidCommandError("invalid-body", f"{what} must be a JSON object, not {kind}: send {{...}}")


def too_deep() -> InvalidCommandError:
    """Return the error for JSON that nests deeper than the contract allows."""
    return InvalidCommandError(
        "invalid-body", f"the JSON nests deeper than {MAX_NESTING} levels: flatten it or store it as a string"
    )


def _check_integers(raw: bytes) -> None:
    # orjson reads an integer beyond 64 bits as a float, which would change it silently.
    suspects = [
        found
        for found in _LONG_INTEGERS.finditer(raw)
        if len(found[0]) > 21 or not MIN_INTEGER <= int(found[0]) <= MAX_INTEGER
    ]
    if not suspects:
        return
    # Digits in a string are text: an odd number of quotes then stands before them.
    quotes = raw.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in raw else raw
    at = count = 0
    for found in suspects:
        count += quotes.count(b'"', at, found.start())
        at = found.start()
        if count % 2 == 0:
            raise InvalidCommandError(
                "invalid-body",
                f"the integer {found[0][:24].decode()} does not fit in 64 bits: send it as a string",
            )


def canonical_metadata(metadata: dict[str, Any]) -> bytes:
    """Metadata as compact JSON with sorted keys, in a form that a trip through Postgres jsonb keeps.

    jsonb has no negative zero and no exponents: a whole float within 64 bits comes back as an integer.
    Taking that step here makes results the same whether they are made before or after the trip.
    """
    if not metadata:
        return b"{}"
    return orjson.dumps(_as_jsonb(metadata), option=orjson.OPT_SORT_KEYS)


def _as_jsonb(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_jsonb(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_jsonb(item) for item in value]
    if isinstance(value, float):
        if value == 0:
            return 0.0
        # orjson writes an exponent from 1e16 on, and jsonb turns that into plain digits.
        if abs(value) >= 1e16 and MIN_INTEGER <= value <= MAX_INTEGER:
            return int(value)
    return value


def checked_metadata(metadata: dict[str, Any], field: str) -> bytes:
    """Return metadata that is valid JSON in canonical form. Raise InvalidCommandError if it can't be stored."""
    # A value takes two bytes at least, with what separates it from the next one. Writing hundreds of thousands of
    # them only to count bytes would take time, and 50 MB for each MB.
    if (values := _count_values(metadata, MAX_METADATA_BYTES // 2)) > MAX_METADATA_BYTES // 2:
        raise InvalidCommandError(
            "too-large",
            f"{field} holds {values} values or more, which take more than the {MAX_METADATA_BYTES} bytes of JSON "
            "that are allowed: put the rest into data",
        )
    raw = canonical_metadata(metadata)
    if len(raw) > MAX_METADATA_BYTES:
        raise InvalidCommandError(
            "too-large",
            f"{field} has {len(raw)} bytes of JSON, at most {MAX_METADATA_BYTES} are allowed: put the rest into data",
        )
    # An escaped backslash before u0000 is harmless, so the cheap look comes first and the walk decides.
    if b"\\u0000" in raw and _has_nul(metadata):
        raise InvalidCommandError(
            "invalid-body",
            f"{field} contains U+0000, which a searchable field cannot hold: leave it out or put it into data",
        )
    return raw


def _count_values(value: dict[str, Any], enough: int) -> int:
    """Count the values in ``value``, up to ``enough`` and some more."""
    count = 0
    waiting: list[Any] = [value]
    while waiting and count <= enough:
        item = waiting.pop()
        count += len(item)
        if count <= enough:
            waiting += [
                child
                for child in (item.values() if isinstance(item, dict) else item)
                if isinstance(child, dict | list)
            ]
    return count


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_has_nul(item) for item in value)
    return False


def dump_object(value: Any, field: str, default: Default | None = None) -> bytes:
    """Compact JSON of a Python dict that an agent passed as ``field``; ``default`` converts what JSON lacks.

    Raises InvalidCommandError (``invalid-body``) that names the field: not a dict, a value that JSON cannot
    carry (NaN, a datetime, bytes, a key that is not a string, an integer beyond 64 bits), nested too deep.
    """
    if not isinstance(value, dict):
        raise InvalidCommandError("invalid-body", f"{field} must be a dict, not {type(value).__name__}")
    converted: list[Any] = []
    to_plain = _plain if default is None else partial(_converted, default, converted)
    try:
        raw = orjson.dumps(value, option=_DUMP_OPTIONS, default=to_plain)
    except TypeError as error:
        cause = error.__cause__  # what default raised
        if cause is not None and not isinstance(cause, Exception):
            raise cause from None  # an interrupt
        if found := find_problem(value, field, default=default):
            raise _at(*found) from cause
        raw = _dump_text_keys(value, field, to_plain)
    # orjson writes NaN and infinities as null without a word.
    if (
        b"null" in raw
        and not _all_finite([value, converted])
        and (found := find_problem(value, field, default=default))
    ):
        raise _at(*found)
    if nests_deeper(raw, MAX_NESTING):
        raise InvalidCommandError("invalid-body", f"{field} nests deeper than {MAX_NESTING} levels")
    return raw


def checked_default(default: Default | None) -> Default | None:
    """Return ``default``, or raise InvalidArgumentError if it can't be called, or would have to be awaited."""
    if default is not None and (not callable(default) or iscoroutinefunction(default)):
        raise InvalidArgumentError(
            "default must be a plain function: it is called with a value, and not awaited"
        )
    return default


def _at(path: str, problem: str) -> InvalidCommandError:
    if len(path) > _LONGEST_PATH:
        half = _LONGEST_PATH // 2
        path = f"{path[:half]} … {path[-half:]}"
    return InvalidCommandError("invalid-body", f"{path}: {problem}")


def _dump_text_keys(value: dict[str, Any], field: str, to_plain: Default) -> bytes:
    # A key of a subclass of str, such as a StrEnum, needs orjson's slower way. All keys are strings here.
    try:
        return orjson.dumps(value, option=_DUMP_OPTIONS | orjson.OPT_NON_STR_KEYS, default=to_plain)
    except TypeError as error:
        raise InvalidCommandError("invalid-body", f"{field}: {error}") from None


def _all_finite(values: list[Any]) -> bool:
    # A null is common and a NaN is rare, so the usual walk builds no paths and recurses nowhere.
    waiting: list[Any] = [values]
    while waiting:
        item = waiting.pop()
        for child in item.values() if isinstance(item, dict) else item:
            if type(child) in _NEVER_NAN:
                continue
            if isinstance(child, float):
                if not math.isfinite(child):
                    return False
            elif isinstance(child, dict | list | tuple):
                waiting.append(child)
            elif isinstance(child, Enum):
                waiting.append((child.value,))
    return True


def _plain(value: Any) -> Any:
    # Subclasses of the JSON types (an OrderedDict, a str enum) are what they look like.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _converted(default: Default, converted: list[Any], value: Any) -> Any:
    if isinstance(value, str | int | float | dict | list | tuple):
        return _plain(value)
    converted.append(default(value))
    return converted[-1]


def find_problem(
    value: Any, path: str, depth: int = 1, default: Default | None = None
) -> tuple[str, str] | None:
    """The path of the first value in ``value`` that JSON cannot carry, and why; None if there is none."""
    if value is None or isinstance(value, bool | UUID):
        return None
    if isinstance(value, Enum):
        return find_problem(value.value, path, depth, default)
    if isinstance(value, str):
        return (path, "contains a lone surrogate") if _SURROGATE.search(value) else None
    if isinstance(value, int):
        if MIN_INTEGER <= value <= MAX_INTEGER:
            return None
        # Python refuses to print integers of thousands of digits, so only the size is reported.
        size = value.bit_length()
        return path, f"an integer of {size} bits lies outside -2**63 to 2**64-1: pass it as a string"
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, f"{value} is not a JSON number")
    if not isinstance(value, dict | list | tuple):
        return _find_unconverted(value, path, depth, default)
    if depth > MAX_NESTING:
        return path, f"nests deeper than {MAX_NESTING} levels"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return path, f"a key is a {type(key).__name__}, not a string"
            if _SURROGATE.search(key):
                return path, f"the key {key[:64]!r} contains a lone surrogate"
            if found := find_problem(item, f"{path}.{key}", depth + 1, default):
                return found
        return None
    for index, item in enumerate(value):
        if found := find_problem(item, f"{path}[{index}]", depth + 1, default):
            return found
    return None


def _find_unconverted(value: Any, path: str, depth: int, default: Default | None) -> tuple[str, str] | None:
    kind = type(value).__name__
    if default is None:
        return path, (
            f"a {kind} is not JSON: convert it to a string, number, list or dict, or give the publisher or manager "
            "default=, which converts such values"
        )
    plain = value
    for _ in range(MAX_NESTING):  # it may return a value with which it must be called again
        try:
            plain = default(plain)
        except Exception as error:
            return path, f"a {kind} is not JSON, and default= raised {type(error).__name__}: {error}"
        if plain is None or isinstance(plain, bool | UUID | Enum | str | int | float | dict | list | tuple):
            return find_problem(plain, path, depth, default)
    return (
        path,
        f"a {kind} is not JSON, and neither is the {type(plain).__name__} that default= returned for it",
    )
