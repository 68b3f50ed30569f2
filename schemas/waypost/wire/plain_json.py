"""Tell whether a JSON text certainly keeps to the contract, without making Python objects of it. Pure.

Nearly all data does, and the worker needs only that answer. simdjson (Langdale and Lemire, "Parsing Gigabytes of JSON
per Second", VLDB Journal 28, 2019) gives it in a quarter of orjson's time, and in a twentieth if the text is all
brackets. It rejects everything that orjson rejects, and integers beyond 64 bits as well. A "no" decides nothing: the
caller then checks thoroughly (:func:`waypost.model.limits.check_json`). This is a separate module, because publishers
must not load simdjson.
"""

from collections.abc import Callable
from typing import Final

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.brackets import nests_deeper
from waypost.model.limits import MAX_NESTING, check_json, has_long_number, not_an_object, too_deep

_FRAME_BYTES: Final = 5
_COMPRESSED: Final = (
    "it is compressed ({}). Send it as it is, and let the Kafka client compress (compression.type)"
)
_UTF_16: Final = "it is UTF-16. Send UTF-8"
_UTF_32: Final = "it is UTF-32. Send UTF-8"
# Beginnings of what clients send instead. JSON in UTF-16 and UTF-32 begins with a bracket among zero bytes, if not with
# a byte order mark; UTF-32 comes first, because its mark begins with that of UTF-16.
_FOREIGN_FORMS: Final[tuple[tuple[bytes | tuple[bytes, ...], str], ...]] = (
    ((b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"{\0\0\0", b"\0\0\0{\0\0\0"), _UTF_32),
    ((b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{\0"), _UTF_16),
    (b"\xef\xbb\xbf", "it starts with a byte order mark. Leave that out"),
    (b"\x1f\x8b", _COMPRESSED.format("gzip")),
    (b"\x28\xb5\x2f\xfd", _COMPRESSED.format("zstd")),
    (b"\x04\x22\x4d\x18", _COMPRESSED.format("lz4")),
    ((b"\xff\x06\0\0sNaPpY", b"\x82SNAPPY\0"), _COMPRESSED.format("snappy")),
    ((b"\x78\x01", b"\x78\x9c", b"\x78\xda"), _COMPRESSED.format("zlib")),
)
# simdjson keeps about 14 bytes of memory for each byte of the longest text that a parser has seen.
_LONGEST: Final = 64 * 1024
#: Only a compressed batch holds a longer text, which must never become Python objects: 16 MB are 640 MB of them.
LARGE: Final = 1024 * 1024


def check_object(raw: bytes, what: str = "the body", around: int = 1) -> None:
    """Raise InvalidCommandError (``invalid-body``) unless ``raw`` is a JSON object within the limits of the contract.

    ``what`` names it in the message; ``around`` is as in :func:`waypost.model.limits.check_json`.
    """
    if looks_like_object(raw):
        if nests_deeper(raw, MAX_NESTING + around):
            raise too_deep()
        return
    if (form := foreign_form(raw)) is not None:
        raise InvalidCommandError("invalid-body", f"{what} is not JSON: {form}")
    if raw.lstrip(b" \t\n\r").startswith(b"["):
        raise not_an_object(what, [])  # which is sure without parsing all that is in it
    if len(raw) > LARGE:
        _check_large(raw, what, around)
        return
    value = check_json(raw, around)
    if not isinstance(value, dict):
        raise not_an_object(what, value)


def _check_large(raw: bytes, what: str, around: int) -> None:
    """Judge a large text that does not look like an object by simdjson alone, which does not say what is wrong."""
    if nests_deeper(raw, MAX_NESTING + around):
        raise too_deep()
    stripped = raw.lstrip(b" \t\n\r")
    if len(stripped) == len(raw) or not looks_like_object(stripped):
        raise InvalidCommandError(
            "invalid-body",
            f"{what} is not a JSON object, or holds an integer beyond 64 bits; it has {len(raw)} bytes, which is too "
            "much to tell where",
        )


def foreign_form(raw: bytes) -> str | None:
    """Return what bytes that are not JSON seem to be, and what to do about it; None if their beginning does not show
    it.
    """
    for beginnings, form in _FOREIGN_FORMS:
        if raw.startswith(beginnings):
            return form
    # A zero byte and a schema id of four bytes, in front of whatever the schema describes.
    if raw[:1] == b"\0" and len(raw) > _FRAME_BYTES:
        return (
            "it starts with a zero byte and four more, as schema registry serializers write it. Use a plain "
            "JSON serializer"
        )
    return None


def is_object_to_orjson(raw: bytes) -> bool:
    """Return what ``looks_like_object`` does, without simdjson."""
    try:
        return type(orjson.loads(raw)) is dict and not has_long_number(raw)
    except ValueError:
        return False


def _with_simdjson() -> Callable[[bytes], bool] | None:
    try:
        from simdjson import Parser
    except ImportError:
        return None
    parse_short = Parser().parse

    def is_object(raw: bytes) -> bool:
        parse = parse_short if len(raw) <= _LONGEST else Parser().parse
        try:
            parse(raw)
        # A parser refuses to start while another thread holds what it just made: that one looks closely, too.
        except (ValueError, RuntimeError):
            return False
        except MemoryError:
            if len(raw) > LARGE:
                raise  # for nobody looks closely
            return False
        # A byte order mark, which simdjson passes over, is not JSON.
        return raw.startswith(b"{")

    return is_object


is_object_to_simdjson: Final = _with_simdjson()


#: Whether a text certainly is a JSON object of any depth, with no integer beyond 64 bits.
looks_like_object: Final = is_object_to_simdjson or is_object_to_orjson
