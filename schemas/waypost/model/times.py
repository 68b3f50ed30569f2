"""Moments as whole microseconds since the Unix epoch, and their one text form.

The model counts in these integers: they compare exactly, need no time zone and are what Postgres stores.
Text is RFC 3339 in UTC with six decimals and a ``Z``, always 27 characters, so that texts sort like times.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from waypost.errors import InvalidArgumentError, InvalidCommandError, NaiveDatetimeError, quoted

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# RFC 3339 section 5.6, T and Z in either case; fromisoformat alone takes week dates and more.
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_EARLIEST: Final = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LATEST: Final = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z


def to_micros(moment: datetime) -> int:
    """Microseconds since the Unix epoch of an aware datetime; naive ones raise NaiveDatetimeError."""
    if not isinstance(moment, datetime):
        raise InvalidArgumentError(
            f"a moment is a datetime with a time zone, not {type(moment).__name__}: {moment!r:.80}"
        )
    if moment.utcoffset() is None:
        raise NaiveDatetimeError(
            f"{quoted(moment)} has no time zone, so it names no moment: pass datetime.now(UTC), or "
            "moment.replace(tzinfo=UTC) if it was meant as UTC"
        )
    return (moment - EPOCH) // _MICROSECOND


def taken_micros(moment: datetime) -> int:
    """Convert like :func:`to_micros`, for a timestamp that will be stored: it must be in the years 1 to 9999 in UTC.

    Raises NaiveDatetimeError, or InvalidCommandError (``invalid-envelope``) where UTC has no such year.
    """
    if not isinstance(moment, datetime):
        raise InvalidCommandError(
            "invalid-envelope", f"timestamp must be a datetime with a time zone, not {type(moment).__name__}"
        )
    micros = to_micros(moment)
    if not _EARLIEST <= micros <= _LATEST:
        raise InvalidCommandError(
            "invalid-envelope", f"the timestamp {moment.isoformat()} lies outside the years 1 to 9999 in UTC"
        )
    return micros


def from_micros(micros: int) -> datetime:
    """The UTC datetime of microseconds since the Unix epoch."""
    return EPOCH + timedelta(microseconds=micros)


def format_micros(micros: int) -> str:
    """``2026-11-24T08:24:59.123456Z``."""
    if micros >= 1_000_000:
        # The digits as they stand: formatting a number with zeros in front costs as much as all the rest.
        return f"{_text_of_second(micros // 1_000_000)}.{str(micros)[-6:]}Z"
    second, rest = divmod(micros, 1_000_000)
    return f"{_text_of_second(second)}.{rest:06d}Z"


@lru_cache(maxsize=4096)
def _text_of_second(second: int) -> str:
    # Moments in one log are close together, so the same few seconds are converted repeatedly.
    return from_micros(second * 1_000_000).isoformat(timespec="seconds")[:19]


@lru_cache(maxsize=4096)
def _micros_of_second(text: str) -> int:
    return _parse(text + "Z")


def parse_micros(text: str) -> int:
    """Microseconds of an RFC 3339 text, cut (not rounded) below the microsecond.

    ValueError says what is wrong: no time zone, not RFC 3339, or outside the years 1 to 9999 in UTC.
    """
    # The form that format_micros writes.
    rest = text[20:26]
    if len(text) == 27 and text[19] == "." and text[26] == "Z" and rest.isdecimal() and rest.isascii():
        try:
            return _micros_of_second(text[:19]) + int(rest)
        except ValueError:
            return _parse(text)  # says what is wrong, with the whole text
    return _parse(text)


def _parse(text: str) -> int:
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!r} is not an RFC 3339 time with a zone, such as 2026-11-24T08:24:59.5Z")
    try:
        # Takes any number of decimals and cuts what is beyond six.
        micros = (datetime.fromisoformat(text.upper()) - EPOCH) // _MICROSECOND
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:64]!r} is not a moment of the years 1 to 9999: {error}") from None
    if not _EARLIEST <= micros <= _LATEST:
        raise ValueError(f"{text[:64]!r} lies outside the years 1 to 9999 in UTC")
    return micros


def clamp_micros(micros: int) -> int:
    """``micros`` moved into the years 1 to 9999 if a record's timestamp lies outside them."""
    if _EARLIEST <= micros <= _LATEST:
        return micros
    return _EARLIEST if micros < _EARLIEST else _LATEST
