"""Tell whether a JSON text certainly keeps to the contract, without making Python objects of it. Pure.

Nearly all data does, and the worker needs only that answer. simdjson (Langdale and Lemire, "Parsing Gigabytes of
JSON per Second", VLDB Journal 28, 2019) gives it in a quarter of orjson's time. It rejects everything that orjson
rejects, and integers beyond 64 bits as well. A "no" decides nothing: the caller then looks closely
(:func:`waypost.model.limits.check_json`). A module of its own, because publishers must not load simdjson.
"""

from collections.abc import Callable
from typing import Final

import orjson

from waypost.model.limits import has_long_number, nests_deeper

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
