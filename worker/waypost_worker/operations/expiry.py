"""Facts about expiry: how many sessions are idle for longer than they should be, and when it last ran."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from waypost.statements import load_statement
from waypost_worker.findings import Finding

#: Until an expiry has run for all sessions, these are long and many.
_IDLE: Final = timedelta(days=90)
_MANY: Final = 1000
#: It is meant to run once a day.
_OVERDUE: Final = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class ExpiryRun:
    """A complete run of ``waypost expire``, for sessions that begin with ``prefix``, so long ``ago``."""

    prefix: str
    idle: timedelta
    ago: timedelta
    expired: int
    removed: int


async def check_idle_sessions(connection: Any, schema: str) -> Finding:
    """Count idle sessions that hold checkpoints, by the age that the last expiry had, and say when that was."""
    rows = await connection.fetch(_sql("expiry_runs", schema))
    run = ExpiryRun(**rows[0]) if rows else None
    longest = run.idle if run is not None and run.prefix == "" else _IDLE
    return idle_finding(await connection.fetchval(_sql("idle", schema), _MANY, longest), run)


async def record_expiry(connection: Any, schema: str, run: ExpiryRun) -> None:
    """Note that an expiry has run. The errors are asyncpg's."""
    await connection.execute(_sql("expiry_ran", schema), run.prefix, run.idle, run.expired, run.removed)


def idle_finding(count: int, run: ExpiryRun | None) -> Finding:
    """Return what ``count`` idle sessions mean after that run; None if there was none. A count stops at 1,000."""
    whole = run is not None and run.prefix == ""
    longest = run.idle if run is not None and whole else _IDLE
    shown = f"{count:,}{' or more' if count >= _MANY else ''}"
    message = f"{shown} hold checkpoints and had no command for {_span(longest)}; {_last(run)}"
    if count < _MANY and not (run is not None and whole and count and run.ago > _OVERDUE):
        return Finding("ok", "sessions", message)
    flag = _flag(longest)
    fix = f"'waypost expire --idle {flag} --dry-run' lists them; run it without --dry-run once a day"
    return Finding("warning", "sessions", message, fix)


def _last(run: ExpiryRun | None) -> str:
    if run is None:
        return "'waypost expire' never ran"
    some = "" if run.prefix == "" else f" for those that begin with {run.prefix!r}"
    sessions = f"{run.expired:,} session{'' if run.expired == 1 else 's'}"
    return f"'waypost expire --idle {_flag(run.idle)}' ran {_span(run.ago)} ago{some} and expired {sessions}"


def _span(age: timedelta) -> str:
    """An age for people, in its largest unit of which there is one at least."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def _flag(age: timedelta) -> str:
    """An age as the command line takes it."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _sql(name: str, schema: str) -> str:
    return load_statement("waypost_worker.operations", name, schema)
