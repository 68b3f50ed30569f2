"""``python -m tests.simulation``: many seeds over all cores, or one seed with a trace."""

import argparse
import os
import sys

from tests.simulation.plan import plan_of
from tests.simulation.run import replay_command, run_and_report, run_seed


def main() -> int:
    """Parse, run, report; 1 if any seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--seed", type=int, help="run this one seed only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.trace)
    report = run_and_report(arguments.first, arguments.seeds, arguments.jobs)
    print(
        f"{report.seeds} seeds from {report.first_seed}, {report.sharded} of them with several databases, "
        f"{report.commands} commands: {report.lost} lost, {report.doubled} doubled, "
        f"{report.out_of_order} out of order, {report.stuck} stuck; {report.seeds_per_minute:.0f} seeds a minute"
    )
    print(
        f"{report.terms} terms, {report.batches} batches, {report.reemitted} results finished from the outbox"
    )
    print(
        f"{report.replayed} commands replayed, {report.restored} of them behind a restored copy; {report.accepted} "
        f"through the publisher, {report.accepted_again} of them more than once in the log"
    )
    print(f"faults: {report.faults}")
    print(f"terms ended by: {report.terms_ended_by}")
    if report.failing_seeds:
        print(
            f"{len(report.failing_seeds)} seeds failed; replay the first: {replay_command(report.failing_seeds[0])}"
        )
    return 1 if report.failing_seeds else 0


def _one(seed: int, trace: bool) -> int:
    print(plan_of(seed))
    outcome = run_seed(seed, print if trace else None)
    print(outcome)
    for problem in outcome.verdict.problems:
        print(f"PROBLEM {problem}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
