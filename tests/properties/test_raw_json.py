"""Spans of values in JSON texts, found by brackets, are those that Python's own decoder finds by parsing."""

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.properties.json_texts import objects, values

from waypost.errors import InvalidCommandError
from waypost.model.brackets import nests_deeper
from waypost.wire.raw_json import elements, members

examples = settings(deadline=None, max_examples=300)
few = settings(deadline=None, max_examples=60)
_decode = json.JSONDecoder(strict=True).raw_decode
_space = re.compile(r"[ \t\n\r]*")


def parsed_elements(text: str) -> list[bytes]:
    """The texts of an array's elements, each found by parsing it."""
    found, at = [], after_space(text, after_space(text, 0) + 1)
    while text[at] != "]":
        _, end = _decode(text, at)
        found.append(text[at:end].encode())
        at = after_space(text, end)
        at = after_space(text, at + (text[at] == ","))
    return found


def parsed_members(text: str) -> list[tuple[str, bytes]]:
    """The keys and texts of an object's members, each found by parsing it."""
    found, at = [], after_space(text, after_space(text, 0) + 1)
    while text[at] != "}":
        key, at = _decode(text, at)
        start = after_space(text, after_space(text, at) + 1)
        _, end = _decode(text, start)
        found.append((key, text[start:end].encode()))
        at = after_space(text, end)
        at = after_space(text, at + (text[at] == ","))
    return found


def after_space(text: str, at: int) -> int:
    matched = _space.match(text, at)
    assert matched is not None
    return matched.end()


def is_json(text: str) -> bool:
    try:
        orjson.loads(text.encode())
    except ValueError:  # also of a lone surrogate
        return False
    return True


def compare_members(text: str) -> None:
    wanted = parsed_members(text)
    if len(dict(wanted)) < len(wanted):
        with pytest.raises(InvalidCommandError, match="appears twice"):
            members(text.encode())
    else:
        assert list(members(text.encode()).items()) == wanted


@examples
@given(objects)
def test_members_of_small_objects(text: str) -> None:
    assume(is_json(text))
    compare_members(text)


@examples
@given(st.lists(values, max_size=5), st.sampled_from([",", " ,\n", "\t, "]))
def test_elements_of_small_arrays(texts: list[str], comma: str) -> None:
    array = f" [ {comma.join(texts)} ] "
    assume(is_json(array))
    assert elements(array.encode()) == parsed_elements(array)


good_values = values.filter(is_json)


@few
@given(st.lists(good_values, min_size=1, max_size=4), st.integers(1, 3_000), st.integers(0, 40), good_values)
@example(['"' + "\\\\" * 999 + '"'], 7, 0, "1")
@example(['"' + '\\"' * 500 + '}"', '["]"]'], 50, 12, "{}")
@example(['{"a":' * 60 + "1" + "}" * 60], 200, 30, "[]")
@example(["[]"], 20_000, 0, "[[]]")
def test_values_that_span_many_pieces(texts: list[str], times: int, levels: int, last: str) -> None:
    repeated = ",".join(texts * min(times, 200_000 // len(",".join(texts)) + 1))
    large = "[" * levels + f"[{repeated}]" + "]" * levels
    compare_members(f'{{"first":{large},"second" : {{"inner":{large}}} , "last":{last}}}')
    array = f"[{large}, {last} ,{large}]"
    assert elements(array.encode()) == parsed_elements(array)


@few
@given(st.lists(good_values, min_size=1, max_size=4), st.integers(1, 2_000), st.integers(1, 90))
@example(["[]", "[[[[[]]]]]"], 500, 3)
@example(['{"":[],"":0}'], 1, 1)
@example(["[" * 13 + "]" * 13], 500, 1)
def test_depth_of_large_texts(texts: list[str], times: int, levels: int) -> None:
    repeated = ",".join(texts * min(times, 100_000 // len(",".join(texts)) + 1))
    text = "[" * levels + repeated + "]" * levels
    # A key may stand twice, and each of its values counts.
    wanted = levels + max(depth(json.loads(each, object_pairs_hook=list)) for each in texts)
    assert not nests_deeper(text.encode(), wanted)
    assert nests_deeper(text.encode(), wanted - 1)


def depth(value: Any) -> int:
    """Levels of lists and objects; an object is a list of (key, value) tuples."""
    if isinstance(value, list):
        return 1 + max((depth(one[1] if isinstance(one, tuple) else one) for one in value), default=0)
    return 0


@pytest.mark.parametrize(
    "text", [b"", b"1", b"{", b'{"a"', b'{"a":', b'{"a":[', b'{"a":1', b"{1:2}", b'{"a":1 2}']
)
def test_what_is_not_valid_is_an_error_and_not_an_endless_search(text: bytes) -> None:
    with pytest.raises(ValueError, match="not valid JSON"):
        members(text)


@pytest.mark.parametrize("space", [" ", "\n    ", "\t" * 3000])
def test_space_after_a_comma_may_lie_anywhere(space: str) -> None:
    # What is passed over by one match ends somewhere, and it may be within the space before the next value.
    for length in range(2_000, 2_060):
        text = "x" * length
        assert elements(f'["{text}",{space}{{"a":1}}]'.encode()) == [f'"{text}"'.encode(), b'{"a":1}']
        assert members(f'{{"k":"{text}",{space}"z":1}}'.encode()) == {"k": f'"{text}"'.encode(), "z": b"1"}
