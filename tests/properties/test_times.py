"""Moments and their texts: exact both ways, and texts sort as moments do."""

import re
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given, settings
from hypothesis import strategies as st

from waypost.model.times import clamp_micros, format_micros, from_micros, parse_micros, to_micros

FIRST = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
LAST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
moments = st.one_of(st.integers(FIRST, LAST), st.integers(-10, 10), st.sampled_from([FIRST, LAST]))
examples = settings(deadline=None, max_examples=200)


@examples
@given(moments)
def test_every_moment_survives_text_and_datetime(micros: int) -> None:
    text = format_micros(micros)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert parse_micros(text) == parse_micros(text.lower()) == micros
    assert to_micros(from_micros(micros)) == micros
    assert from_micros(micros).tzinfo is UTC


@examples
@given(moments, moments)
def test_texts_sort_like_moments(a: int, b: int) -> None:
    assert (format_micros(a) < format_micros(b)) == (a < b)


@examples
@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=12)),
    st.sampled_from("Tt"),
    st.one_of(st.sampled_from(["Z", "z", "-00:00"]), st.tuples(st.integers(-1439, 1439)).map(lambda t: t[0])),
)
@example(datetime(2026, 11, 24, 8, 24, 59), "123456", "t", "z")  # as long as the canonical form
def test_every_form_of_rfc_3339_is_read_exactly(
    local: datetime, fraction: str, separator: str, zone: str | int
) -> None:
    offset = zone if isinstance(zone, int) else 0
    if isinstance(zone, int):
        zone = f"{'-' if zone < 0 else '+'}{abs(zone) // 60:02}:{abs(zone) % 60:02}"
    text = f"{local.date()}{separator}{local.time()}{'.' + fraction if fraction else ''}{zone}"
    whole = (local - datetime(1970, 1, 1)) // timedelta(seconds=1) - offset * 60
    micros = int((fraction + "000000")[:6])  # cut, not rounded
    assert parse_micros(text) == whole * 1_000_000 + micros


zones = st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))])


@examples
@given(st.datetimes(timezones=zones))
def test_a_zone_changes_the_clock_face_not_the_moment(moment: datetime) -> None:
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert timedelta(microseconds=to_micros(moment)) == since_epoch


@examples
@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d*)?(Z|[+-]\d\d:?\d\d)?"))
def test_any_other_text_is_refused_with_a_value_error_or_is_a_moment(text: str) -> None:
    try:
        micros = parse_micros(text)
    except ValueError:
        return
    assert FIRST <= micros <= LAST
    assert parse_micros(format_micros(micros)) == micros


@examples
@given(st.integers())
def test_a_records_timestamp_is_moved_into_range_only_if_it_lies_outside(micros: int) -> None:
    clamped = clamp_micros(micros)
    assert FIRST <= clamped <= LAST
    assert (clamped == micros) == (FIRST <= micros <= LAST)
    format_micros(clamped)
