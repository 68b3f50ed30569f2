"""Many checkpoints in a result: a list of ids, or ranges of numbers if the ids would be too long.

The only place that knows this rule. It depends on the session id and the numbers alone, so every worker and every
replay writes the same bytes. Readers expand ranges with :func:`expand_ids`, so applications always see ids. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from waypost.model.checkpoint import own_number
from waypost.model.limits import MAX_IMPORT_ITEMS, MAX_SESSION_ID
from waypost.model.retention import MAX_CHECKPOINTS_BOUNDS
from waypost.wire.raw_json import members

MAX_LIST_BYTES: Final = 1024 * 1024  # of compact JSON in UTF-8, brackets included
#: Each list of ids in a result, and the field that has ranges in its place.
RANGES_OF: Final = {"ids": "id_ranges", "removed": "removed_ranges"}
# One import into a full session can remove this many checkpoints; no result names more.
MAX_LISTED: Final = MAX_CHECKPOINTS_BOUNDS[1] + MAX_IMPORT_ITEMS
_LONGEST_NUMBER: Final = 18  # digits, see own_number
_LONGEST_ID: Final = 4 * MAX_SESSION_ID + len('":",') + _LONGEST_NUMBER
# Lists up to this length fit whatever the ids are.
ALWAYS_FITTING: Final = MAX_LIST_BYTES // _LONGEST_ID

Ranges = list[tuple[int, int]]


def fits_in_full(session_id: bytes, numbers: Sequence[int]) -> bool:
    """Return whether the ids of these checkpoints take at most MAX_LIST_BYTES.

    ``session_id`` is the session id as JSON, with its quotes.
    """
    count = len(numbers)
    if count <= ALWAYS_FITTING:
        return True
    # Each id adds a colon and its number inside the quotes, and a comma; the last comma is a bracket instead.
    around = count * (len(session_id) + 2) + 1
    if around + count * _LONGEST_NUMBER <= MAX_LIST_BYTES:
        return True
    return around + sum(map(len, map(str, numbers))) <= MAX_LIST_BYTES


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Return the numbers in their order as [first, last] pairs, runs of consecutive numbers merged."""
    ranges: Ranges = []
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number != last + 1:
            ranges.append((first, last))
            first = number
        last = number
    if first is not None and last is not None:
        ranges.append((first, last))
    return ranges


def id_list_fields(name: str, session_id: str, numbers: Sequence[int]) -> dict[str, Any]:
    """Return the fields of a result body that name these checkpoints; ``name`` is ``ids`` or ``removed``."""
    if fits_in_full(orjson.dumps(session_id), numbers):
        return {name: [f"{session_id}:{number}" for number in numbers]}
    return {name: [], RANGES_OF[name]: ranges_of(numbers)}


def id_list_members(name: bytes, session_id: bytes, numbers: Sequence[int]) -> bytes:
    """Return the same fields as JSON text, ``"removed":[...]``; ``session_id`` is JSON, with its quotes."""
    if fits_in_full(session_id, numbers):
        opened = session_id[:-1]
        return b'"%b":[%b]' % (name, b",".join([b'%b:%d"' % (opened, number) for number in numbers]))
    ranges = orjson.dumps(ranges_of(numbers))
    return b'"%b":[],"%b":%b' % (name, RANGES_OF[name.decode()].encode(), ranges)


def expand_ids(body: dict[str, Any]) -> dict[str, Any]:
    """Replace the ranges of a result body by the ids that they stand for, and return the body.

    Raises:
        ValueError: If they are not ranges, or name more checkpoints than a result of Waypost ever does.
    """
    for name, ranges_name in RANGES_OF.items():
        if ranges_name in body:
            body[name] = _expanded(body.get("session_id"), body.pop(ranges_name))
    return body


def _expanded(session_id: object, ranges: Iterable[Sequence[int]]) -> list[str]:
    ids: list[str] = []
    try:
        if not isinstance(session_id, str):
            raise ValueError("there is no session id")
        for first, last in ranges:
            if not 0 <= last - first < MAX_LISTED - len(ids):
                raise ValueError(f"they name more than {MAX_LISTED} checkpoints, or one falls")
            ids += [f"{session_id}:{number}" for number in range(first, last + 1)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"the ranges of ids in a result can't be read: {error}") from None
    return ids


def as_written_today(body: bytes) -> bytes:
    """Return a result body as this version writes it: version 0.1 wrote every list in full, however long it was.

    Results of both versions can then be compared byte for byte. A body that is not a result is returned unchanged.
    """
    if len(body) <= MAX_LIST_BYTES:
        return body
    try:
        fields = members(body)
        session_id = orjson.loads(fields["session_id"])
        return b"{%b}" % b",".join([_field_today(name, raw, session_id) for name, raw in fields.items()])
    except (KeyError, TypeError, ValueError):
        return body


def _field_today(name: str, raw: bytes, session_id: str) -> bytes:
    if name in RANGES_OF and len(raw) > MAX_LIST_BYTES:
        numbers = [own_number(session_id, identifier) for identifier in orjson.loads(raw)]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):
            return id_list_members(name.encode(), orjson.dumps(session_id), known)
    return b"%b:%b" % (orjson.dumps(name), raw)
