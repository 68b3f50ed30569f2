"""The quick look at a JSON text: a yes is always right, with simdjson and without it, and common data gets one."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from waypost.errors import InvalidCommandError
from waypost.model.brackets import nests_deeper
from waypost.model.limits import MAX_NESTING, check_json
from waypost.wire.plain_json import is_object_to_orjson, is_object_to_simdjson, looks_like_object

Look = Callable[[bytes], bool]


def is_plain_object(raw: bytes, levels: int) -> bool:
    return looks_like_object(raw) and not nests_deeper(raw, levels)


def simdjson_look(raw: bytes) -> bool:
    if is_object_to_simdjson is None:
        assert sys.version_info >= (3, 14), "the worker's extra has simdjson on this Python"
        pytest.skip("no simdjson for this Python yet")
    return is_object_to_simdjson(raw)


LOOKS = pytest.mark.parametrize("look", [simdjson_look, is_object_to_orjson])

PLAIN = [
    b"{}",
    b'{"step":1,"messages":[{"role":"user","content":"\\u00e9 \xc3\xa9 \\ud83d\\ude00"}],"ok":null}',
    b'{"at":1764000000000000000,"max":9223372036854775807,"min":-9223372036854775807}',
    b'{"a" : [ 1.5e3 , -0.0 , true ] } ',
    b'{"a":1,"a":2}',  # the contract leaves keys inside data alone
    b'{"text":"' + b"x" * 100_000 + b'"}',
]
# Each of them broken, no object, or with an integer that does not fit.
NOT_PLAIN = [
    b"",
    b"[]",
    b"1",
    b'"{}"',
    b"null",
    b"{",
    b"{}}",
    b"{} {}",
    b"{}\0",
    b"\xef\xbb\xbf{}",
    b'{"a":1,}',
    b'{"a":01}',
    b'{"a":+1}',
    b'{"a":.5}',
    b'{"a":1.}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":tru}',
    b"{'a':1}",
    b"{a:1}",
    b'{"a":"\n"}',
    b'{"a":"\\x"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00"}',
    b'{"a":"\\ud800\\ud800"}',
    b'{"\\ud800":1}',
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xc0\x80"}',
    b'{"a":18446744073709551616}',
    b'{"a":-9223372036854775809}',
    b'{"a":' + b"9" * 5_000 + b"}",
    b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
]


@LOOKS
@pytest.mark.parametrize("raw", PLAIN, ids=lambda raw: repr(raw[:30]))
def test_common_data_is_plain(look: Look, raw: bytes) -> None:
    assert look(raw)
    assert is_plain_object(raw, MAX_NESTING)
    check_json(raw)


@LOOKS
@pytest.mark.parametrize("raw", NOT_PLAIN, ids=lambda raw: repr(raw[:30]))
def test_what_is_wrong_is_looked_at_closely(look: Look, raw: bytes) -> None:
    assert not look(raw)
    assert not is_plain_object(raw, MAX_NESTING)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("levels", [1, 2, MAX_NESTING])
def test_depth_is_exact(levels: int) -> None:
    assert is_plain_object(nested(levels), levels)
    assert not is_plain_object(nested(levels + 1), levels)


def test_threads_may_look_in_parallel() -> None:
    plain, broken = PLAIN[1], b'{"a":"\\ud800"}'

    def look(_: int) -> None:
        for _ in range(2_000):
            is_plain_object(plain, MAX_NESTING)  # a yes, or a no that costs a closer look
            assert not is_plain_object(broken, MAX_NESTING)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(look, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert is_plain_object(plain, MAX_NESTING)
    with pytest.raises(InvalidCommandError):
        check_json(broken)
