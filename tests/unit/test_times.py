"""Moments: one text form out, every RFC 3339 form in, no naive datetimes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from waypost.errors import InvalidCommandError, NaiveDatetimeError, WaypostError
from waypost.model.times import format_micros, from_micros, parse_micros, taken_micros, to_micros

MOMENT = 1_795_508_699_500_000  # 2026-11-24T08:24:59.5Z


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T08:24:59.5Z",
        "2026-11-24T08:24:59.500000Z",
        "2026-11-24t08:24:59.5z",
        "2026-11-24t08:24:59.500000z",  # as long as the canonical form
        "2026-11-24T08:24:59.50000099Z",  # cut, not rounded
        "2026-11-24T08:24:59.500000999999999999Z",
        "2026-11-24T08:24:59.5+00:00",
        "2026-11-24T08:24:59.5-00:00",
        "2026-11-24T09:54:59.5+01:30",
        "2026-11-23T22:24:59.5-10:00",
        "2026-11-25T08:23:59.5+23:59",
    ],
)
def test_every_form_of_rfc_3339_is_read(text: str) -> None:
    assert parse_micros(text) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-24T08:24:59.5",  # no zone
        "2026-11-24 08:24:59.5Z",
        "2026-11-24T08:24:59,5Z",
        "2026-11-24T08:24:59.Z",
        "2026-11-24T08:24Z",
        "2026-11-24",
        "20261124T082459Z",
        "2026-W48-2T08:24:59Z",
        "2026-11-24T08:24:59.5+0100",
        "2026-11-24T08:24:59.5+24:00",
        "2026-11-24T08:24:59.5 Z",
        " 2026-11-24T08:24:59.5Z",
        "2026-11-24T08:24:59.5Z\n",
        "2026-11-24T24:00:00Z",
        "2026-11-24T23:59:60Z",  # leap seconds have no place in a count of microseconds
        "2026-02-29T00:00:00Z",
        "2026-00-10T00:00:00Z",
        "2026-11-24T08:24:59.123456\N{ARABIC-INDIC DIGIT ONE}Z",
        "\N{ARABIC-INDIC DIGIT TWO}026-11-24T08:24:59Z",
        "1795508699",
    ],
)
def test_everything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|years 1 to 9999"):
        parse_micros(text)


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59.999999-00:01",
        "9999-12-31T23:59:59.9999999-23:59",
    ],
)
def test_moments_outside_the_years_1_to_9999_in_utc_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        parse_micros(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_moment_are_allowed(text: str) -> None:
    assert format_micros(parse_micros(text)) == text
    assert taken_micros(from_micros(parse_micros(text))) == parse_micros(text)


def test_texts_are_utc_with_six_decimals() -> None:
    assert format_micros(0) == "1970-01-01T00:00:00.000000Z"
    assert format_micros(-1) == "1969-12-31T23:59:59.999999Z"
    assert format_micros(MOMENT) == "2026-11-24T08:24:59.500000Z"


def test_a_zone_is_taken_into_account() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert to_micros(datetime(2026, 11, 24, 17, 24, 59, 500_000, tzinfo=tokyo)) == MOMENT
    assert from_micros(MOMENT) == datetime(2026, 11, 24, 8, 24, 59, 500_000, tzinfo=UTC)


def test_naive_datetimes_are_rejected_with_what_to_do() -> None:
    for convert in (to_micros, taken_micros):
        with pytest.raises(NaiveDatetimeError, match=r"no time zone.*datetime\.now\(UTC\)") as caught:
            convert(datetime(2026, 11, 24))
        assert isinstance(caught.value, WaypostError)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(minutes=1))),
        datetime.max.replace(tzinfo=timezone(-timedelta(minutes=1))),
    ],
)
def test_a_timestamp_that_utc_cannot_write_may_be_compared_but_not_taken(moment: datetime) -> None:
    assert not taken_range_start() <= to_micros(moment) <= taken_range_end()
    with pytest.raises(InvalidCommandError, match="years 1 to 9999") as caught:
        taken_micros(moment)
    assert caught.value.code == "invalid-envelope"


def taken_range_start() -> int:
    return to_micros(datetime.min.replace(tzinfo=UTC))


def taken_range_end() -> int:
    return to_micros(datetime.max.replace(tzinfo=UTC))
