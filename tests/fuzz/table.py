"""What a run tried, as text of at most 80 columns."""

from typing import Final

from tests.fuzz.inputs import KINDS
from tests.fuzz.leg import MIB, Tally

_ROW: Final = "{:26}{:>10}{:>10}{:>12}{:>12}{:>10}"


def table(tally: Tally) -> str:
    """Return the inputs by kind, and the verdict on the worker."""
    lines = [_ROW.format("kind", "tried", "accepted", "commands", "rejected", "slowest")]
    kinds = [*KINDS, *sorted(tally.tried.keys() - set(KINDS) - {"nothing"})]
    for kind in kinds:
        if tally.tried[kind]:
            lines.append(
                _row(
                    kind,
                    tally.tried[kind],
                    tally.accepted[kind],
                    tally.commands[kind],
                    tally.rejected[kind],
                    tally.slowest.get(kind, 0.0),
                )
            )
    tried = sum(tally.tried[kind] for kind in kinds)
    accepted = sum(tally.accepted[kind] for kind in kinds)
    slowest = max(tally.slowest.values(), default=0.0)
    total = sum(tally.commands.values()), sum(tally.rejected.values())
    lines.append(_row("all", tried, accepted, *total, slowest))
    lines += [
        "",
        "accepted: by the broker. commands: offsets, each with exactly one result.",
        "slowest: from the acknowledgment of the ordinary command behind an input to",
        "its result.",
        f"worker: at most {tally.resident / MIB:.0f} MiB resident, not ready {tally.not_ready} times",
        f"probes: silent for {tally.silent:.1f} s at most",
        f"logs: {tally.recovered} verified and replayed",
    ]
    return "\n".join(lines)


def _row(kind: str, tried: int, accepted: int, commands: int, rejected: int, slowest: float) -> str:
    return _ROW.format(
        kind, f"{tried:,}", f"{accepted:,}", f"{commands:,}", f"{rejected:,}", f"{slowest:.1f} s"
    )


def progress(elapsed: float, tally: Tally, findings: int) -> str:
    """Return one line on how far a run is."""
    slowest = max(tally.slowest.values(), default=0.0)
    return (
        f"{elapsed:5.0f} s  {tally.tried.total():,} inputs, {tally.commands.total():,} commands, "
        f"slowest {slowest:.1f} s, {tally.resident / MIB:.0f} MiB, found {findings}"
    )
