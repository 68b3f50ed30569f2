"""Filters that choose rejected commands for ``rejected retry`` and ``rejected purge``."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

from cyclopts import Parameter

from waypost.model.times import from_micros, parse_micros
from waypost_worker.cli.support.output import USAGE, CommandError
from waypost_worker.operations.rejected import RejectedFilters

_HIGHEST: Final = (2**31 - 1, 2**63 - 1)

PositionArgument = Annotated[str, Parameter(help="place of the command, partition/offset, as listed")]
SessionFlag = Annotated[str | None, Parameter(help="only commands of this session")]
CodeFlag = Annotated[str | None, Parameter(help="only commands with this code, such as invalid-body")]
SinceFlag = Annotated[str | None, Parameter(help="only commands rejected at or after this time, in RFC 3339")]
UntilFlag = Annotated[str | None, Parameter(help="only commands rejected before this time, in RFC 3339")]
AllFlag = Annotated[bool, Parameter(name="--all", help="all rejected commands")]


def chosen_filters(
    places: Sequence[str],
    session: str | None,
    code: str | None,
    since: str | None,
    until: str | None,
    every: bool,
) -> RejectedFilters:
    """Return what the flags choose; CommandError if that is nothing, or --all and something else."""
    filters = RejectedFilters(
        session,
        code,
        _moment("--since", since),
        _moment("--until", until),
        tuple(place_of(place) for place in places) or None,
    )
    if every == (filters != RejectedFilters()):
        raise CommandError("say which: PLACES, --code, --session, --since, --until, or --all alone", USAGE)
    return filters


def place_of(place: str) -> tuple[int, int]:
    """The partition and offset that ``2/1841`` stands for."""
    partition, _, offset = place.partition("/")
    if not (_is_at_most(partition, _HIGHEST[0]) and _is_at_most(offset, _HIGHEST[1])):
        raise CommandError(f"{place!r} is not a place, which looks like partition/offset: 2/1841", USAGE)
    return int(partition), int(offset)


def _moment(flag: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else from_micros(parse_micros(text))
    except ValueError as error:
        raise CommandError(f"{flag}: {error}", USAGE) from None


def _is_at_most(digits: str, highest: int) -> bool:
    return digits.isdecimal() and digits.isascii() and len(digits) < 20 and int(digits) <= highest
