"""The most expensive bodies of each command type: those that cost a worker most for their size, as far as known.

Each was chosen against one way of reading JSON: many small containers, deep nesting, many keys, long digits, repeated
keys, strings that look like brackets, and what makes every item of an import take the slow way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from waypost.wire.event_types import EventType

#: What a topic takes by default, and the largest body that is decoded on the event loop.
WHOLE: Final = 1024 * 1024
AT_ONCE: Final = 256 * 1024
_DATA: Final = 900 * 1024
_TIME: Final = b'"timestamp":"2026-11-24T08:24:59Z"'


@dataclass(frozen=True)
class ExpensiveBody:
    """A body of a command and what is expensive about it."""

    kind: EventType
    what: str
    body: bytes


def expensive_bodies(size: int = WHOLE) -> Iterator[ExpensiveBody]:
    """Yield the bodies, each of at most ``size`` bytes and nearly that."""
    yield from _creates(size)
    yield from _imports(size)
    for kind in EventType.PIN, EventType.UNPIN, EventType.DELETE, EventType.ROLLBACK:
        yield ExpensiveBody(
            kind, "an id that is a list of lists", _filled(b'{"checkpoint_id":[', b"[]", b"]}", size)
        )
        yield ExpensiveBody(kind, "unknown fields", _counted(b"{", b'"%x":0', b"}", size))
        yield ExpensiveBody(kind, "one field repeated", _filled(b"{", b'"checkpoint_id":"a"', b"}", size))
        yield ExpensiveBody(kind, "white space", b'{"checkpoint_id":"a"' + b" " * (size - 21) + b"}")
    for kind in EventType.CLEAR, EventType.ERASE:
        yield ExpensiveBody(kind, "unknown fields", _counted(b"{", b'"%x":0', b"}", size))
        yield ExpensiveBody(kind, "a list of lists", _filled(b"[", b"[]", b"]", size))
    yield ExpensiveBody(EventType.EXPIRE, "unknown fields", _counted(b"{", b'"%x":0', b"}", size))
    yield ExpensiveBody(EventType.EXPIRE, "one field repeated", _filled(b"{", b'"pinned":true', b"}", size))
    yield ExpensiveBody(EventType.EXPIRE, "a time of digits", b'{"idle_since":"' + b"1" * (size - 17) + b'"}')
    yield ExpensiveBody(
        EventType.CONFIGURE_AUTHORITY, "unknown fields", _counted(b"{", b'"%x":0', b"}", size)
    )
    yield ExpensiveBody(EventType.CONFIGURE_AUTHORITY, "a long key", b'{"key":"' + b"A" * (size - 10) + b'"}')
    yield ExpensiveBody(EventType.SKIP, "unknown fields", _counted(b"{", b'"%x":0', b"}", size))
    head = b'{"offset":1,"record":"00000000000000000000000000000000","reason":"'
    yield ExpensiveBody(EventType.SKIP, "a long reason", head + b"a" * (size - len(head) - 2) + b'"}')
    for kind in EventType.CONFIGURE, EventType.CONFIGURE_DEFAULTS:
        yield ExpensiveBody(kind, "unknown fields", _counted(b"{", b'"%x":0', b"}", size))
        yield ExpensiveBody(kind, "one field repeated", _filled(b"{", b'"keep_recent":1', b"}", size))
        yield ExpensiveBody(
            kind, "a number of a million digits", b'{"max_age":1.' + b"0" * (size - 14) + b"}"
        )


_META: Final = b'{"name":"n","data":{},"metadata":{"a":['
_ITEM: Final = b'{"checkpoints":[{"id":"a","name":"n",' + _TIME + b',"data":{},"metadata":{"a":['
_ID: Final = b'{"checkpoint_id":['
_OBJECT: Final = b'{"":0}'
#: Bodies that only a compressed batch holds, and whose objects would not fit into memory: what, and how it begins, is
#: filled and ends. Each gets past another check that comes before a text is parsed.
LARGE_BODIES: Final[tuple[tuple[EventType, str, bytes, bytes, bytes], ...]] = (
    (EventType.CREATE, "metadata of lists", _META, b"[]", b"]}}"),
    (EventType.CREATE, "metadata of objects", _META, _OBJECT, b"]}}"),
    (EventType.CREATE, "metadata of keys that repeat", _META[:-4], b'"a":[]', b"}}"),
    (
        EventType.CREATE,
        "metadata before the data",
        b'{"name":"n","metadata":{"a":[',
        b"[]",
        b']},"data":{}}',
    ),
    (EventType.CREATE, "metadata behind white space", b" \n" + _META, _OBJECT, b"]}}"),
    (EventType.CREATE, "an integer that is too long", _META, _OBJECT, b'],"b":18446744073709551616}}'),
    (EventType.CREATE, "an integer that is too small", _META, _OBJECT, b'],"b":-9223372036854775809}}'),
    (EventType.CREATE, "garbage behind objects", _META, _OBJECT, b"]}}x"),
    (EventType.CREATE, "a byte order mark", b"\xef\xbb\xbf" + _META, _OBJECT, b"]}}"),
    (EventType.CREATE, "a surrogate behind objects", _META, _OBJECT, b'],"b":"\\ud800"}}'),
    (
        EventType.CREATE,
        "a field repeated",
        b'{"name":[',
        _OBJECT,
        b"]" + b',"name":"n"' * 100 + b',"data":{}}',
    ),
    (EventType.CREATE, "no braces", b"", _OBJECT, b""),
    (EventType.IMPORT, "an item with metadata", _ITEM, _OBJECT, b"]}}]}"),
    (EventType.IMPORT, "an item that is a list", b'{"checkpoints":[[', _OBJECT, b"]]}"),
    (EventType.PIN, "an id of objects", _ID, _OBJECT, b"]}"),
    (EventType.PIN, "an id repeated", _ID, _OBJECT, b"]" + b',"checkpoint_id":"a"' * 100 + b"}"),
    (EventType.ROLLBACK, "an id of objects", _ID, _OBJECT, b"]}"),
    (EventType.CONFIGURE, "a policy of objects", b'{"max_age":[', _OBJECT, b"]}"),
    (EventType.EXPIRE, "a time of objects", b'{"idle_since":[', _OBJECT, b"]}"),
    (EventType.CLEAR, "a field of objects", b'{"a":[', _OBJECT, b"]}"),
)


def large_body(number: int, size: int) -> ExpensiveBody:
    """Return the body of this number in :data:`LARGE_BODIES`, of about this size."""
    kind, what, head, unit, tail = LARGE_BODIES[number]
    return ExpensiveBody(kind, what, _filled(head, unit, tail, size))


def _creates(size: int) -> Iterator[ExpensiveBody]:
    # Data fills a create of 1 MiB to its limit of 900 KiB.
    room = min(size, _DATA)
    for what, unit in {
        "data of empty lists": b"[]",
        "data of small objects": b'{"":0}',
        "data that nests 97 levels deep, repeatedly": b"[" * 97 + b"]" * 97,
        "data that nests 13 levels deep, repeatedly": b"[" * 13 + b"]" * 13,
        "data of strings that look like brackets": b'"{",[]',
        "data of escapes": b'"\\n\\""',
        "data of clocks in nanoseconds": b"1700000000000000000",
        "data of fractions with many digits": b"0.1234567890123456789012",
    }.items():
        yield ExpensiveBody(EventType.CREATE, what, _filled(b'{"name":"n","data":{"a":[', unit, b"]}}", room))
        yield ExpensiveBody(
            EventType.CREATE,
            f"{what}, before the name",
            _filled(b'{"data":{"a":[', unit, b']},"name":"n"}', room),
        )
    yield ExpensiveBody(
        EventType.CREATE, "data of keys", _counted(b'{"data":{', b'"%x":0', b'},"name":"n"}', room)
    )
    yield ExpensiveBody(
        EventType.CREATE,
        "an integer that is too long, behind many that are not",
        _filled(b'{"name":"n","data":{"a":[', b"17000000000000000000", b",18446744073709551616]}}", room),
    )
    yield ExpensiveBody(EventType.CREATE, "unknown fields", _counted(b"{", b'"%x":0', b"}", size))
    for what, unit in {"lists": b"[]", "large numbers": b"1e308", "objects": b'{"":0}'}.items():
        head = b'{"name":"n","data":{},"metadata":{"a":['
        yield ExpensiveBody(EventType.CREATE, f"metadata of {what}", _filled(head, unit, b"]}}", size))
    yield ExpensiveBody(
        EventType.CREATE,
        "metadata of keys",
        _counted(b'{"name":"n","data":{},"metadata":{', b'"%x":0', b"}}", size),
    )
    yield ExpensiveBody(
        EventType.CREATE,
        "metadata of one key repeated",
        _filled(b'{"name":"n","data":{},"metadata":{', b'"a":{}', b"}}", size),
    )


def _imports(size: int) -> Iterator[ExpensiveBody]:
    head, tail = b'{"checkpoints":[', b"]}"
    yield ExpensiveBody(EventType.IMPORT, "empty items", _filled(head, b"{}", tail, size))
    wrong = b'{"id":"","name":"","timestamp":"","data":[]}'
    yield ExpensiveBody(EventType.IMPORT, "wrong items", _filled(head, wrong, tail, size))
    for what, item in {
        "items as an export has them": b'{"id":"s:%d","name":"n",' + _TIME + b',"data":{},"metadata":{}}',
        "items in another order, with escapes": (
            b'{"data":{},"metadata":{},' + _TIME + b',"name":"\\u0041%d","id":"s:1"}'
        ),
        "items with metadata": b'{"id":"s:%d","name":"n",'
        + _TIME
        + b',"data":{},"metadata":{"b":1e308,"a":[]}}',
        "items that nest": b'{"id":"s:%d","name":"n",' + _TIME + b',"data":{"a":[[[[[[[[[[[[[]]]]]]]]]]]]]}}',
        "foreign items": b'{"id":"%d","name":"n",' + _TIME + b',"data":{}}',
    }.items():
        items = (item % number for number in range(1, 10_001))
        yield ExpensiveBody(EventType.IMPORT, what, _joined(head, items, tail, size))
    one = b'{"checkpoints":[{"id":"a","name":"n",' + _TIME + b',"data":{"a":['
    yield ExpensiveBody(EventType.IMPORT, "one item of empty lists", _filled(one, b"[]", b"]}}]}", size))
    repeated = b'{"checkpoints":[{"name":"n",' + _TIME + b',"data":{},'
    yield ExpensiveBody(
        EventType.IMPORT, "one item with one field repeated", _filled(repeated, b'"id":"a"', b"}]}", size)
    )


def _filled(head: bytes, unit: bytes, tail: bytes, size: int) -> bytes:
    count = (size - len(head) - len(tail)) // (len(unit) + 1)
    return head + b",".join([unit] * count) + tail


def _counted(head: bytes, unit: bytes, tail: bytes, size: int) -> bytes:
    return _joined(head, (unit % number for number in range(size)), tail, size)


def _joined(head: bytes, units: Iterator[bytes], tail: bytes, size: int) -> bytes:
    taken: list[bytes] = []
    room = size - len(head) - len(tail)
    for unit in units:
        room -= len(unit) + 1
        if room < 0:
            break
        taken.append(unit)
    return head + b",".join(taken) + tail
