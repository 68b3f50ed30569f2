"""Numbers, sizes and times as people read them. Pure: the caller passes the current time."""

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB")
_STEPS: Final = ((1, "s"), (60, "min"), (3600, "h"), (86_400, "d"))


def grouped(number: int) -> str:
    """Return a whole number with its thousands separated."""
    return f"{number:,}"


def size(count: int) -> str:
    """Return a number of bytes with a unit."""
    if count < 1000:
        return "1 byte" if count == 1 else f"{count} bytes"
    value, unit = float(count), 0
    while value >= 999.5 and unit + 1 < len(_UNITS):
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if value < 999.5 else f"{value:,.0f} {_UNITS[unit]}"


def span(seconds: float) -> str:
    """Return a length of time, to two digits."""
    seconds = abs(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    value, unit = next((seconds / step, unit) for step, unit in reversed(_STEPS) if seconds >= step)
    return f"{value:.1f} {unit}" if value < 10 and unit != "s" else f"{value:.0f} {unit}"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was; a moment ahead, by another machine's clock, is now."""
    seconds = (now - moment).total_seconds()
    return "now" if seconds < 1 else f"{span(seconds)} ago"


def clock(moment: datetime) -> str:
    """Return the time of day in UTC, with milliseconds."""
    return moment.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def full(moment: datetime) -> str:
    """Return date and time in UTC, with milliseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{grouped(number)} {one if number == 1 else many or one + 's'}"
