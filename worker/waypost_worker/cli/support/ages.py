"""Ages on the command line: ``30d``, ``12h``."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from waypost_worker.cli.support.output import USAGE, CommandError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment_before(flag: str, age: str) -> datetime:
    """Return the time that long ago. Raise CommandError if ``age`` is not an age."""
    try:
        return datetime.now(UTC) - age_of(flag, age)
    except OverflowError:
        raise CommandError(f"{flag}: {age} is too long", USAGE) from None


def age_of(flag: str, age: str) -> timedelta:
    """Return an age. Raise CommandError if it is not a number and one of s, m, h, d, w."""
    matched = re.fullmatch(r"(\d{1,6})([smhdw])", age)
    if matched is None:
        raise CommandError(f"{flag}: {age!r} is not an age, which looks like 30d, 12h or 90m", USAGE)
    return timedelta(seconds=int(matched[1]) * _SECONDS[matched[2]])
