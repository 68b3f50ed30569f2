"""The limits of texts and JSON, at their edges and one beyond."""

import math
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import orjson
import pytest

from waypost.errors import InvalidCommandError
from waypost.model.brackets import nests_deeper
from waypost.model.limits import (
    Default,
    canonical_metadata,
    check_json,
    checked_metadata,
    dump_object,
    has_long_number,
    text_problem,
)


class TestTexts:
    @pytest.mark.parametrize(
        "text", ["a", "x" * 200, "task started", "Prüfung 検査 🙂", "\u2028", "\u00a0", " "]
    )
    def test_one_to_200_characters_without_control_characters(self, text: str) -> None:
        assert text_problem(text, 200) is None

    def test_length_is_in_characters_not_bytes(self) -> None:
        assert text_problem("🙂" * 200, 200) is None
        assert text_problem("🙂" * 201, 200) == "has 201 characters, at most 200 are allowed"

    def test_empty(self) -> None:
        assert text_problem("", 200) == "is empty"

    @pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0))])
    def test_every_control_character_is_refused(self, character: str) -> None:
        assert text_problem(f"a{character}b", 200) == "contains a control character"

    def test_lone_surrogates_are_refused(self) -> None:
        for surrogate in ("\ud800", "\udfff"):
            assert "surrogate" in str(text_problem(f"a{surrogate}b", 200))


class TestIncomingJSON:
    @pytest.mark.parametrize("integer", [0, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**18, 10**19])
    def test_integers_within_64_bits_are_exact(self, integer: int) -> None:
        assert check_json(b'{"a":[%d]}' % integer) == {"a": [integer]}

    @pytest.mark.parametrize("integer", [2**64, -(2**63) - 1, 10**20, -(10**19), 10**30])
    def test_integers_beyond_are_refused(self, integer: int) -> None:
        with pytest.raises(InvalidCommandError, match="does not fit in 64 bits: send it as a string"):
            check_json(b'{"a":[%d]}' % integer)

    @pytest.mark.parametrize("digits", [21, 300, 400, 5_000, 100_000])
    def test_an_integer_of_any_length_is_refused(self, digits: int) -> None:
        with pytest.raises(InvalidCommandError, match=r"does not fit in 64 bits|number is infinity"):
            check_json(b'{"a":' + b"1" * digits + b"}")

    @pytest.mark.parametrize(
        "raw",
        [b"18446744073709551616.0", b"1e30", b"0.18446744073709551616", b'"18446744073709551616"', b"1e-99"],
    )
    def test_long_digits_that_are_not_an_integer_are_let_through(self, raw: bytes) -> None:
        check_json(b'{"a":' + raw + b"}")

    @pytest.mark.parametrize(
        "raw", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b'"\\ud800"', b"01"]
    )
    def test_what_no_json_number_or_string_is(self, raw: bytes) -> None:
        with pytest.raises(InvalidCommandError, match="the body is not JSON"):
            check_json(b'{"a":' + raw + b"}")

    def test_the_depth_around_data_is_on_top(self) -> None:
        deep = b"[" * 102 + b"]" * 102
        check_json(deep, around=2)
        with pytest.raises(InvalidCommandError, match="nests deeper than 100 levels"):
            check_json(deep, around=1)

    def test_absurd_depth_is_reported_as_such(self) -> None:
        with pytest.raises(InvalidCommandError, match="nests deeper than 100 levels"):
            check_json(b"[" * 100_000 + b"]" * 100_000)

    @pytest.mark.parametrize(
        ("raw", "depth"),
        [
            (b"1", 0),
            (b"{}", 1),
            (b"[[1],{}]", 2),
            (b'{"[[[{":"]]]"}', 1),
            (rb'{"a":"\"[[","b":["\\"]}', 2),
            (rb'["\\\"[","\\",[1]]', 2),
            (b'["{","}"]', 1),
        ],
    )
    def test_depth_counts_brackets_outside_strings(self, raw: bytes, depth: int) -> None:
        assert not nests_deeper(raw, depth)
        assert depth == 0 or nests_deeper(raw, depth - 1)

    @pytest.mark.parametrize("raw", [b"1764000000000000000", b"-9223372036854775807", b"123456789012345678"])
    def test_a_clock_in_nanoseconds_is_not_suspect(self, raw: bytes) -> None:
        assert not has_long_number(b'{"at":' + raw + b',"then":' + raw + b"}")

    @pytest.mark.parametrize("raw", [b"9223372036854775808", b"10000000000000000000"])
    def test_what_may_leave_64_bits_is(self, raw: bytes) -> None:
        assert has_long_number(b'{"at":1764000000000000000,"then":' + raw + b"}")
        assert has_long_number(raw)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Odd(Enum):
    NAN = math.nan
    WORD = "word"


class Text(str):
    __slots__ = ()


@dataclass
class Record:
    a: int = 1


Point = namedtuple("Point", "x y")


class TestOutgoingValues:
    @pytest.mark.parametrize(
        ("value", "raw"),
        [
            ({}, b"{}"),
            ({"a": None, "b": True, "c": "null"}, b'{"a":null,"b":true,"c":"null"}'),
            ({"a": (1, [2])}, b'{"a":[1,[2]]}'),
            (
                {"a": 2**64 - 1, "b": -(2**63), "c": 1.5},
                b'{"a":18446744073709551615,"b":-9223372036854775808,"c":1.5}',
            ),
            ({"ü": "🙂\0"}, '{"ü":"🙂\\u0000"}'.encode()),
            (OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
            (defaultdict(list, a=[1]), b'{"a":[1]}'),
            (
                {"a": Colour.RED, "b": Level.LOW, "c": Odd.WORD, "d": None},
                b'{"a":"red","b":1,"c":"word","d":null}',
            ),
            ({Colour.RED: {Text("key"): Text("value")}, "n": None}, b'{"red":{"key":"value"},"n":null}'),
            ({"a": Point(1, Point(2, 3))}, b'{"a":[1,[2,3]]}'),
            ({"a": UUID(int=1), "b": None}, b'{"a":"00000000-0000-0000-0000-000000000001","b":null}'),
        ],
    )
    def test_what_json_can_carry_is_written_compactly(self, value: dict[str, Any], raw: bytes) -> None:
        assert dump_object(value, "data") == raw

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ({"a": {"b": [1, math.nan]}}, "data.a.b[1]: nan is not a JSON number"),
            ({"a": math.inf}, "data.a: inf is not a JSON number"),
            ({"a": [{"b": -math.inf}]}, "data.a[0].b: -inf is not a JSON number"),
            ({"a": None, "b": Odd.NAN}, "data.b: nan is not a JSON number"),
            ({"a": Odd.NAN}, "data.a: nan is not a JSON number"),
            ({"a": 2**64}, "data.a: an integer of 65 bits lies outside -2**63 to 2**64-1"),
            ({"a": -(2**63) - 1}, "data.a: an integer of 64 bits lies outside"),
            ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "data.a: a datetime is not JSON: convert it"),
            ({"a": b"bytes"}, "data.a: a bytes is not JSON"),
            ({"a": {1, 2}}, "data.a: a set is not JSON"),
            ({"a": Decimal(1)}, "data.a: a Decimal is not JSON"),
            ({"a": Record()}, "data.a: a Record is not JSON"),
            ({"a": UUID(int=1), "b": object()}, "data.b: a object is not JSON"),
            ({"a": 10**10_000}, "data.a: an integer of 33220 bits lies outside"),
            ({10**10_000: 2}, "data: a key is a int, not a string"),
            ({"a": {None: 2}}, "data.a: a key is a NoneType, not a string"),
            ({"a": "\ud800"}, "data.a: contains a lone surrogate"),
            ({"\ud800": 1}, "contains a lone surrogate"),
            ({Text("\ud800"): 1}, "contains a lone surrogate"),
        ],
    )
    def test_what_it_cannot_is_named_with_its_path(self, value: Any, problem: str) -> None:
        with pytest.raises(InvalidCommandError) as caught:
            dump_object(value, "data")
        assert problem in caught.value.message
        assert caught.value.code == "invalid-body"

    def test_the_default_hook_converts_what_json_lacks_and_nothing_else(self) -> None:
        asked: list[Any] = []

        def default(value: Any) -> Any:
            asked.append(value)
            return {Decimal: str, set: sorted, Record: lambda record: {"is": record.a}}[type(value)](value)

        nested = {"a": Decimal("1.50"), "b": [Record({2, 1}), {"c": None}], "d": OrderedDict(e=Point(1, 2))}
        raw = dump_object(nested, "data", default)
        assert raw == b'{"a":"1.50","b":[{"is":[1,2]},{"c":null}],"d":{"e":[1,2]}}'
        assert asked == [Decimal("1.50"), Record({2, 1}), {1, 2}]
        assert dump_object({Text("k"): Decimal(2)}, "data", default) == b'{"k":"2"}'

    @pytest.mark.parametrize(
        ("default", "problem"),
        [
            (
                lambda value: value,
                "data.a[1]: a Record is not JSON, and neither is the Record that default= ret",
            ),
            (
                lambda value: 1 / 0,
                "data.a[1]: a Record is not JSON, and default= raised ZeroDivisionError: div",
            ),
            (lambda value: math.nan, "data.a[1]: nan is not a JSON number"),
            (lambda value: [None, {"b": math.inf}], "data.a[1][1].b: inf is not a JSON number"),
            (lambda value: 2**64, "data.a[1]: an integer of 65 bits"),
            (lambda value: {1: 2}, "data.a[1]: a key is a int"),
            (lambda value: "\ud800", "data.a[1]: contains a lone surrogate"),
        ],
    )
    def test_what_the_default_hook_returns_is_held_to_the_same_rules(
        self, default: Default, problem: str
    ) -> None:
        with pytest.raises(InvalidCommandError) as caught:
            dump_object({"a": [1, Record()]}, "data", default)
        assert problem in caught.value.message

    def test_the_error_without_a_default_hook_names_it_and_one_with_it_has_its_cause(self) -> None:
        with pytest.raises(InvalidCommandError, match="or give the publisher or manager default="):
            dump_object({"a": {1}}, "data")
        with pytest.raises(InvalidCommandError) as caught:
            dump_object({"a": {1}}, "data", lambda value: 1 / 0)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_an_interrupt_of_the_default_hook_is_not_swallowed(self) -> None:
        pressed = iter([KeyboardInterrupt()])

        def default(value: Any) -> Any:
            for interrupt in pressed:
                raise interrupt
            return "x"

        with pytest.raises(KeyboardInterrupt):
            dump_object({"a": {1}}, "data", default)

    def test_at_100_levels_the_default_hook_may_return_a_scalar_and_no_more(self) -> None:
        value: Any = {1}
        for _ in range(100):
            value = {"a": value}
        assert dump_object(value, "data", str).count(b"{") == 101
        with pytest.raises(InvalidCommandError, match="nests deeper than 100 levels"):
            dump_object(value, "data", list)

    @pytest.mark.parametrize(("value", "kind"), [([], "list"), (None, "NoneType"), ("{}", "str"), (1, "int")])
    def test_only_a_dict_will_do(self, value: Any, kind: str) -> None:
        with pytest.raises(InvalidCommandError, match=f"data must be a dict, not {kind}"):
            dump_object(value, "data")

    def test_100_levels_are_allowed_and_101_are_not(self) -> None:
        value: dict[str, Any] = {}
        for _ in range(99):
            value = {"a": value}
        assert dump_object(value, "data").count(b"{") == 100
        for too_deep in ({"a": value}, {"a": [value]}):
            with pytest.raises(InvalidCommandError, match="nests deeper than 100 levels"):
                dump_object(too_deep, "data")

    def test_what_contains_itself_is_too_deep(self) -> None:
        value: dict[str, Any] = {}
        value["a"] = [value, value]
        with pytest.raises(InvalidCommandError, match="nests deeper than 100 levels"):
            dump_object(value, "data")


class TestMetadata:
    @pytest.mark.parametrize(
        ("metadata", "raw"),
        [
            ({}, b"{}"),
            ({"b": 1, "a": {"d": 1, "c": 2}}, b'{"a":{"c":2,"d":1},"b":1}'),
            ({"a": -0.0}, b'{"a":0.0}'),
            (
                {"a": 1e16, "b": 2.0**63, "c": -(2.0**63)},
                b'{"a":10000000000000000,"b":9223372036854775808,"c":-9223372036854775808}',
            ),
            ({"a": 1e15, "b": 1.5, "c": 3.0}, b'{"a":1000000000000000.0,"b":1.5,"c":3.0}'),
        ],
    )
    def test_its_canonical_form_has_sorted_keys_and_numbers_as_jsonb_keeps_them(
        self, metadata: dict[str, Any], raw: bytes
    ) -> None:
        assert canonical_metadata(metadata) == raw

    def test_16_kb_are_allowed_and_one_byte_more_is_not(self) -> None:
        fits = {"a": "x" * (16 * 1024 - 8)}
        assert len(canonical_metadata(fits)) == 16 * 1024
        assert checked_metadata(fits, "metadata") == canonical_metadata(fits)
        beyond = {"a": "x" * (16 * 1024 - 7)}
        with pytest.raises(InvalidCommandError, match="metadata has 16385 bytes") as raised:
            checked_metadata(beyond, "metadata")
        assert raised.value.code == "too-large"

    def test_far_more_is_rejected_before_its_canonical_form_is_made(self) -> None:
        with pytest.raises(InvalidCommandError, match="metadata holds 200002 values or more") as raised:
            checked_metadata({"a": [[]] * 200_000 + [1]}, "metadata")
        assert raised.value.code == "too-large"

    def test_numbers_that_the_canonical_form_shortens_are_allowed(self) -> None:
        shorter = {"a": [-0.0] * 4090 + [1]}
        assert len(orjson.dumps(shorter)) > 16 * 1024 >= len(canonical_metadata(shorter))
        assert checked_metadata(shorter, "metadata") == canonical_metadata(shorter)

    @pytest.mark.parametrize("metadata", [{"a": "x\0"}, {"\0": 1}, {"a": [{"b": "\0"}]}, {"a": {"b\0": 1}}])
    def test_nul_is_refused_wherever_it_hides(self, metadata: dict[str, Any]) -> None:
        with pytest.raises(InvalidCommandError, match="metadata contains U\\+0000") as raised:
            checked_metadata(metadata, "metadata")
        assert raised.value.code == "invalid-body"

    def test_the_six_characters_of_its_escape_are_just_text(self) -> None:
        metadata = {"a": "\\u0000"}
        assert checked_metadata(metadata, "metadata") == canonical_metadata(metadata)
