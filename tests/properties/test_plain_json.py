"""The quick look at JSON never says yes where orjson, whose word counts, says no; whatever the bytes are."""

import json

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.properties.json_texts import objects

from waypost.model.limits import has_long_number
from waypost.wire.plain_json import is_object_to_orjson, is_object_to_simdjson

if is_object_to_simdjson is None:
    pytest.skip("no simdjson for this Python yet", allow_module_level=True)

examples = settings(deadline=None, max_examples=1_000)


def agree(raw: bytes) -> None:
    assert is_object_to_simdjson is not None
    quick, slow = is_object_to_simdjson(raw), is_object_to_orjson(raw)
    event(f"simdjson {quick}, orjson {slow}")
    assert slow or not quick or has_long_number(raw)  # a long number may fit, which orjson's look leaves open
    if quick:
        json.loads(raw)


@examples
@given(objects)
def test_texts_that_confuse(text: str) -> None:
    agree(text.encode("utf-8", "surrogatepass"))


@examples
@given(objects, st.data())
def test_one_byte_changed_put_in_or_left_out(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    at = data.draw(st.integers(0, len(raw) - 1))
    new = data.draw(
        st.one_of(st.binary(max_size=2), st.sampled_from([b'"', b"\\", b"}", b"]", b",", b"0", b"e"]))
    )
    agree(raw[:at] + new + raw[at + data.draw(st.integers(0, 1)) :])


@examples
@given(st.binary(max_size=40))
def test_any_bytes(raw: bytes) -> None:
    agree(b'{"a":' + raw + b"}")
    agree(raw)
