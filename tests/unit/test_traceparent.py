"""W3C Trace Context: what is valid is passed on in 55 bytes, what is not is ignored."""

import pytest

from waypost.wire.traceparent import valid_traceparent

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
GOOD = b"00-" + TRACE + b"-" + SPAN + b"-01"


@pytest.mark.parametrize("flags", [b"00", b"01", b"03", b"ff"])
def test_version_00_is_passed_on_as_it_is(flags: bytes) -> None:
    assert valid_traceparent(GOOD[:-2] + flags) == GOOD[:-2] + flags


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00",
        GOOD[:-1],
        GOOD + b"0",
        GOOD + b"-",
        GOOD + b"-more",  # of a later version only
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.upper(),
        GOOD.replace(b"a", b"A", 1),
        GOOD.replace(b"4", b"g", 1),
        GOOD.replace(b"-", b"_"),
        b"ff" + GOOD[2:],
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE[:-1] + b"-" + SPAN + b"-001",
        b"x" * 20_000_000,
        GOOD.decode().replace("4", "\uff14", 1).encode(),
    ],
)
def test_anything_else_is_ignored(header: bytes) -> None:
    assert valid_traceparent(header) is None


@pytest.mark.parametrize("more", [b"", b"-", b"-what-the-future-brings", b"-" + b"x" * 1_000_000])
@pytest.mark.parametrize(("flags", "kept"), [(b"01", b"01"), (b"ff", b"01"), (b"02", b"00"), (b"fe", b"00")])
def test_a_later_version_is_passed_on_as_the_known_one(more: bytes, flags: bytes, kept: bytes) -> None:
    assert valid_traceparent(b"01" + GOOD[2:-2] + flags + more) == GOOD[:-2] + kept
    assert valid_traceparent(b"fe" + GOOD[2:-2] + flags + more) == GOOD[:-2] + kept


@pytest.mark.parametrize("more", [b"0", b"0-", b" "])
def test_a_later_version_too_ends_its_flags_with_a_dash(more: bytes) -> None:
    assert valid_traceparent(b"01" + GOOD[2:] + more) is None
