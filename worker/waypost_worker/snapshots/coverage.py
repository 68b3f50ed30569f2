"""Overlap of the log, the snapshots, the results and the outbox. Pure.

State can be rebuilt as long as the log reaches back to a snapshot's position, or to its own beginning. A worker can
continue as long as the log reaches back to Postgres's position and to the commands in the outbox, and the results topic
to the results position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from waypost_worker.kafka.topics import Finding

_DAY: Final = 86_400.0
LOG: Final = "log and snapshots"


@dataclass(frozen=True, slots=True)
class Coverage:
    """One partition. An offset is None if there is no position in Postgres, nothing in the outbox, or no snapshot.

    ``owed`` is the first command whose result Postgres does not know to be emitted. If results lie behind the
    results position, it has been since; an owner finds that out.
    """

    partition: int
    log_start: int
    results_start: int
    results_end: int
    position: int | None = None
    results_position: int | None = None
    owed: int | None = None
    snapshot: int | None = None
    snapshot_results: int | None = None


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest complete snapshot: its name, and its age in seconds."""

    name: str
    age: float


def findings(
    reaches: Sequence[Coverage], retention: float | None, latest: Latest | None, place: str | None
) -> list[Finding]:
    """Return the findings, worst first. ``retention`` of the command topic is in seconds, None for unlimited; ``place``
    is where snapshots are stored, None if that is not set.
    """
    found = [*_going_on(reaches), *_rebuilding(reaches, retention, latest, place)]
    order = {"error": 0, "warning": 1, "ok": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _going_on(reaches: Sequence[Coverage]) -> list[Finding]:
    """Check whether workers can continue from the state in Postgres."""
    found = []
    if bad := _where(reaches, lambda r: r.position is not None and r.position < r.log_start):
        found.append(
            Finding(
                "error",
                LOG,
                f"{bad}: retention removed commands before they were applied",
                "restore a snapshot that is newer than the beginning of the log, and raise retention.ms of "
                "the topic",
            )
        )
    if bad := _where(reaches, _owes_what_is_gone):
        found.append(
            Finding(
                "error",
                LOG,
                f"{bad}: retention removed commands whose results are not emitted yet",
                "start workers now, with the topic's retention.ms raised",
            )
        )
    if bad := _where(
        reaches, lambda r: r.results_position is not None and r.results_position < r.results_start
    ):
        found.append(
            Finding(
                "error",
                LOG,
                f"{bad}: retention removed results before they were compared with the applied commands",
                "start a worker with WAYPOST_ACCEPT_TRIMMED_RESULTS=true once: some results of that time "
                "may be missing or emitted twice. Raise retention.ms of the results topic",
            )
        )
    return found


def _owes_what_is_gone(reach: Coverage) -> bool:
    nothing_since = reach.results_position is None or reach.results_end <= reach.results_position
    return reach.owed is not None and reach.owed < reach.log_start and nothing_since


def _rebuilding(
    reaches: Sequence[Coverage], retention: float | None, latest: Latest | None, place: str | None
) -> list[Finding]:
    """Check whether Postgres could be rebuilt if it were lost."""
    whole = all(reach.log_start == 0 for reach in reaches)
    if whole and retention is None:
        return [Finding("ok", LOG, "the log is complete and kept indefinitely: everything can be replayed")]
    take = "take one: 'waypost snapshot create'"
    if place is None:
        how = "has already been trimmed" if not whole else f"is trimmed after {_span(retention)}"
        fix = "set WAYPOST_SNAPSHOTS to a directory or s3://bucket/path, and run 'waypost snapshot create' regularly"
        return [Finding("warning", LOG, f"the log {how}, and no place for snapshots is set", fix)]
    if latest is None:
        level = "warning" if whole else "error"
        message = "there is no complete snapshot" + (
            "" if whole else ": if Postgres is lost, so is its state"
        )
        return [Finding("error" if level == "error" else "warning", LOG, message, take)]
    if bad := _where(reaches, lambda r: (r.snapshot if r.snapshot is not None else 0) < r.log_start):
        message = (
            f"{bad}: the log begins after the newest snapshot ({latest.name}) ends, so it can't be restored"
        )
        return [Finding("error", LOG, message, take)]
    found = []
    if bad := _where(
        reaches, lambda r: r.snapshot_results is not None and r.snapshot_results < r.results_start
    ):
        message = f"{bad}: the results topic begins after the results position of {latest.name}"
        fix = f"{take}; a worker on the restored one would need WAYPOST_ACCEPT_TRIMMED_RESULTS=true"
        found.append(Finding("warning", LOG, message, fix))
    if retention is not None and latest.age > retention / 2:
        message = (
            f"the newest snapshot is {_span(latest.age)} old, and the log is trimmed after {_span(retention)}: the "
            "two will soon no longer overlap"
        )
        found.append(Finding("warning", LOG, message, f"{take}, at least every {_span(retention / 4)}"))
    if not found:
        found = [Finding("ok", LOG, f"{latest.name}, {_span(latest.age)} old, and the log overlap")]
    return found


def _where(reaches: Sequence[Coverage], bad: Callable[[Coverage], bool]) -> str:
    numbers = [str(reach.partition) for reach in reaches if bad(reach)]
    if not numbers:
        return ""
    named = ", ".join(numbers[:8]) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    return f"partition{'' if len(numbers) == 1 else 's'} {named}"


def _span(seconds: float | None) -> str:
    assert seconds is not None
    for size, unit in ((_DAY, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
