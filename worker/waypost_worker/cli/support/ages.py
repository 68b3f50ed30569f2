"""Ages on the command line: ``30d``, ``12h``."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from waypost_worker.cli.support.output import USAGE, CommandError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment_before(flag: str, age: str) -> datetime:
    """Return the moment so long ago; CommandError if ``age`` is not a number and one of s, m, h, d, w."""
    matched = re.fullmatch(r"(\d{1,6})([smhdw])", age)
    if matched is None:
        raise CommandError(f"{flag}: {age!r} is not an age, which looks like 30d, 12h or 90m", USAGE)
    seconds = int(matched[1]) * _SECONDS[matched[2]]
    try:
        return datetime.now(UTC) - timedelta(seconds=seconds)
    except OverflowError:
        raise CommandError(f"{flag}: {age} is longer than there is time", USAGE) from None
