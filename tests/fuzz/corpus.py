"""Everything that ever broke a worker, by name. What a run of ``make fuzz`` finds is added as files in ``found/``.

All batches that a broker accepts although no client writes them are in tests/support/batch_variants.py, and
tests/integration/test_admission.py sends those.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tests.fuzz.batches import blown_up
from tests.fuzz.commands import (
    HOME,
    PARTITIONS,
    SESSIONS,
    TIME,
    Command,
    Header,
    create,
    joined,
    valid_headers,
)
from tests.fuzz.inputs import Input, saved
from tests.support.expensive_bodies import LARGE_BODIES, large_body
from tests.support.hostile_batches import (
    GZIP,
    LZ4,
    NONE,
    SNAPPY,
    ZSTD,
    batch,
    empty_records,
    gzip_member,
    header,
    lz4_frame,
    record,
    varint,
)
from tests.support.variant import packed

from waypost.wire.topics import partition_of

_MB: Final = 1_000_000
_SESSION: Final = SESSIONS[0]
#: 64 KB of them.
ROLLBACKS: Final = 320
_GOOD: Final = b'{"name":"n","data":{}}'
Batches = Iterator[bytes]


def _one(kind: str, body: bytes, session: str | None = _SESSION, command_id: str = "c") -> Command:
    return None if session is None else session.encode(), body, valid_headers(command_id, f"waypost.{kind}")


def _sent(*commands: Command, codec: int = NONE) -> bytes:
    return batch(packed(codec, joined(commands)), len(commands), codec)


# Batches that a broker accepts.


def _bytes_behind_gzip() -> Batches:
    data = joined([create(_SESSION, "behind-gzip")])
    yield batch(gzip_member(data) + b"garbage", 1, GZIP)


def _wrong_lz4_checksum() -> Batches:
    data = joined([create(_SESSION, "lz4-checksum")])
    yield batch(lz4_frame(data, content_checksum=1), 1, LZ4)


def _segmentation_fault() -> Batches:
    # aiokafka's Python parser followed the key's size out of the batch. To Java it wraps to 0.
    data = record(key=b"", key_size=b"\x80\x80\x80\x80\x10", value=b"v")
    for codec in (GZIP, SNAPPY, LZ4, ZSTD):
        yield batch(packed(codec, data), 1, codec)


def _bomb(codec: int, size: int) -> Batches:
    before = record(value=b"", value_size=size, header_count=b"", size=0)[1:]
    before = varint(len(before) + size + 1) + before
    yield batch(blown_up(codec, before, size, b"\0"), 1, codec)


def _tiny_records() -> Batches:
    yield batch(packed(ZSTD, empty_records(300_000)), 300_000, ZSTD)


def _many_headers() -> Batches:
    many = 2_000_000
    yield batch(packed(ZSTD, record(headers=[bytes(2 * many)], header_count=many)), 1, ZSTD)
    many = 450_000
    yield batch(record(headers=[bytes(2 * many)], header_count=many), 1)


# Results that do not fit.


def _long_trace() -> Batches:
    for number, body in enumerate((_GOOD, b"{")):
        key, _, headers = create(_SESSION, f"trace-{number}")
        listed = [header(name, value) for name, value in [*headers, (b"traceparent", b"0" * 20 * _MB)]]
        yield batch(packed(ZSTD, record(0, key, body, listed)), 1, ZSTD)


def _long_key() -> Batches:
    yield batch(packed(ZSTD, joined([(b"k" * 20 * _MB, _GOOD, valid_headers("long-key", "x"))])), 1, ZSTD)


def _import(first: int, name: str, session: str) -> Command:
    item = '{"id":"%s%d","name":"n","timestamp":"%s","data":{}}'
    listed = ",".join(item % (name, first + number, TIME.decode()) for number in range(10_000))
    body = f'{{"checkpoints":[{listed}],"on_conflict":"replace"}}'.encode()
    return _one("session.import", body, session, f"import-{name}-{first}")


def _twenty_thousand_ids() -> Batches:
    yield _sent(
        _one("defaults.configure", b'{"max_checkpoints":10000,"compress_after":10000}', None, "raise")
    )
    yield _sent(_import(0, "a", _LONGEST_SESSION))
    yield _sent(_one("defaults.configure", b'{"max_checkpoints":2,"compress_after":1}', None, "lower"))
    yield _sent(_import(0, "b", _LONGEST_SESSION))
    yield _sent(_one("defaults.configure", b'{"max_checkpoints":100,"compress_after":50}', None, "reset"))


# The longest ids there are, but for three characters that choose the partition.
_LONGEST_SESSION: Final = next(
    name
    for name in ("\U0001f642" * 197 + f"{number:03}" for number in range(100))
    if partition_of(name, PARTITIONS) == HOME
)


# Bodies.


def _longest_ids() -> Batches:
    # 10 MB, of which the broker sees a hundredth.
    letter = "\U0001f642"
    item = '{"id":"%s","name":"n","timestamp":"%s","data":{}}'
    listed = ",".join(item % (letter * 251 + f"{number:05}", TIME.decode()) for number in range(10_000))
    body = f'{{"checkpoints":[{listed}]}}'.encode()
    yield _sent(_one("session.import", body, _LONGEST_SESSION, "longest"), codec=ZSTD)


def _empty_items() -> Batches:
    yield _sent(_one("session.import", b'{"checkpoints":[' + b",".join([b"{}"] * 345_000) + b"]}"))


def _wrong_items() -> Batches:
    yield _sent(_one("session.import", b'{"checkpoints":[' + b",".join([b'{"id":""}'] * 100_000) + b"]}"))


def _unknown_fields() -> Batches:
    body = b"{" + b",".join([b'"%x":0' % number for number in range(90_000)]) + b"}"
    for kind in (
        "checkpoint.create",
        "session.clear",
        "session.configure",
        "session.expire",
        "session.erase",
    ):
        yield _sent(_one(kind, body, command_id=kind))


def _deep() -> Batches:
    yield _sent(_one("session.import", b'{"checkpoints":[' + b"[" * 500_000 + b"]" * 500_000 + b"]}"))
    yield _sent(
        _one("checkpoint.create", b'{"name":"n","data":' + b'{"a":' * 145_000 + b"1" + b"}" * 145_001)
    )


def _rollbacks() -> Batches:
    yield _sent(_import_of_one())
    rollbacks = [
        _one("session.rollback", b'{"checkpoint_id":"large"}', command_id=f"r-{number}")
        for number in range(ROLLBACKS)
    ]
    yield _sent(*rollbacks)


def _import_of_one() -> Command:
    body = b'{"checkpoints":[{"id":"large","name":"n","timestamp":"%b","data":{"x":"%b"}}]}' % (
        TIME,
        b"x" * 200_000,
    )
    return _one("session.import", body, command_id="import-large")


def _growing_metadata() -> Batches:
    numbers = b",".join([b"1e308"] * 2_700)
    body = b'{"name":"n","data":{},"metadata":{"a":[%b]}}' % numbers
    yield _sent(*[_one("checkpoint.create", body, command_id=f"metadata-{number}") for number in range(20)])
    item = b'{"id":"meta","name":"n","timestamp":"%b","data":{},"metadata":{"a":[%b]}}' % (TIME, numbers)
    yield _sent(_one("session.import", b'{"checkpoints":[' + item + b"]}", command_id="import-meta"))
    yield _sent(
        *[
            _one("session.rollback", b'{"checkpoint_id":"meta"}', command_id=f"meta-{number}")
            for number in range(20)
        ]
    )


def _large_body(number: int) -> Batches:
    one = large_body(number, 15_900_000)
    yield _sent(_one(one.kind.removeprefix("waypost."), one.body, command_id=f"large-{number}"), codec=ZSTD)


def _large_event() -> Batches:
    objects = b"[" + b",".join([b'{"":0}'] * 2_200_000) + b"]"
    event = b'{"specversion":"1.0","source":"s","type":"t","id":' + objects + b"}"
    headers: list[Header] = [(b"content-type", b"application/cloudevents+json")]
    yield _sent((_SESSION.encode(), event, headers), codec=ZSTD)


def _import_of_growing_metadata() -> Batches:
    numbers = b",".join([b"1e308"] * 2_700)
    item = b'{"id":"grow-%d","name":"n","timestamp":"%b","data":{},"metadata":{"a":[%b]}}'
    items = b",".join([item % (number, TIME, numbers) for number in range(950)])
    session = SESSIONS[2]
    policy = b'{"max_checkpoints":1000,"compress_after":1000,"keep_recent":1000}'
    yield _sent(_one("session.configure", policy, session, "grow"))
    yield _sent(
        _one("session.import", b'{"checkpoints":[' + items + b"]}", session, "import-grow"), codec=ZSTD
    )


def _session_full_of_pins() -> Batches:
    session = SESSIONS[1]
    policy = b'{"max_checkpoints":10000,"compress_after":10000,"keep_recent":10000}'
    yield _sent(_one("session.configure", policy, session, "full"))
    yield _sent(_import(0, "p", session))
    for first in range(0, 9_998, 1_000):
        pins = range(first, min(first + 1_000, 9_998))
        yield _sent(
            *[_one("checkpoint.pin", b'{"checkpoint_id":"p%d"}' % one, session, f"pin-{one}") for one in pins]
        )
    yield _sent(*[create(session, f"pinned-{number}") for number in range(200)])


def _million_digits() -> Batches:
    yield _sent(_one("session.configure", b'{"max_age":1.' + b"0" * _MB + b"}"))


def _odd_texts() -> Batches:
    values = (
        b'"\\u0000"',
        b'"\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"1e400",
        b"NaN",
        b"-9223372036854775809",
    )
    yield _sent(
        *[
            _one(
                "checkpoint.create",
                b'{"name":"n","data":{},"metadata":{"a":%b}}' % one,
                command_id=f"odd-{at}",
            )
            for at, one in enumerate(values)
        ]
    )


_MADE: Final[dict[str, Callable[[], Batches]]] = {
    "gzip with bytes behind the stream": _bytes_behind_gzip,
    "LZ4 with a wrong content checksum": _wrong_lz4_checksum,
    "a key size that made the reader leave its memory": _segmentation_fault,
    "9,880 bytes of Zstandard that become 300 MB": lambda: _bomb(ZSTD, 300 * _MB),
    "500 MB in gzip": lambda: _bomb(GZIP, 500 * _MB),
    "200 MB in LZ4": lambda: _bomb(LZ4, 200 * _MB),
    "16 MB in Zstandard, just below the limit": lambda: _bomb(ZSTD, 16_700_000),
    "300,000 tiny records in one batch": _tiny_records,
    "millions of empty headers": _many_headers,
    "a trace of 20 MB in 915 bytes": _long_trace,
    "a key of 20 MB": _long_key,
    "imports and policies that list 20,000 of the longest ids": _twenty_thousand_ids,
    "an import of 10,000 items with the longest ids": _longest_ids,
    "an import of 345,000 empty items": _empty_items,
    "an import of 100,000 wrong items": _wrong_items,
    "90,000 unknown fields": _unknown_fields,
    "hundreds of thousands of brackets": _deep,
    "64 KB of rollbacks with large results": _rollbacks,
    "metadata that grows 27 times": _growing_metadata,
    **{
        f"16 MB in 2 KB: {kind.removeprefix('waypost.')}, {what}": partial(_large_body, number)
        for number, (kind, what, *_) in enumerate(LARGE_BODIES)
    },
    "a structured event whose id is 16 MB of objects": _large_event,
    "an import of 950 items whose metadata grows": _import_of_growing_metadata,
    "a session full of pins": _session_full_of_pins,
    "a number of a million digits": _million_digits,
    "texts that are no texts": _odd_texts,
}


def corpus() -> Iterator[Input]:
    """Yield all inputs, those that are made here first."""
    yield from map(named, _MADE)
    yield from saved()


def named(name: str) -> Input:
    """Return the input of this name that is made here."""
    return Input("corpus", name, tuple(_MADE[name]()), heavy=True)
