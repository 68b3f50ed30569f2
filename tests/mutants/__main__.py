"""``python -m tests.mutants``: hunt each mutant with the simulation until it is caught; a table and a report."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tests.mutants.catalogue import MUTANTS, named
from tests.mutants.hunting import Catch, UnfitTestsError, check_tests, hunt
from tests.mutants.mutant import Mutant, StaleEditError

REPORT = Path("build/mutants.json")


def main() -> int:
    """Parse, hunt, report; 1 if a mutant got away or a harmless one did harm."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these mutants")
    parser.add_argument("--seeds", type=int, default=3000, help="seeds until one counts as not caught")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--without-servers", action="store_true", help="leave out those that need servers")
    arguments = parser.parse_args()
    console = Console()
    chosen = [named(name) for name in arguments.names] or list(MUTANTS)
    if arguments.without_servers:
        chosen = [mutant for mutant in chosen if not mutant.tests]
    catches: list[Catch] = []
    try:
        with console.status("running the named tests without a mutant"):
            check_tests(chosen)
    except UnfitTestsError as error:
        console.print(str(error), markup=False)
        return 1
    with console.status(f"0 of {len(chosen)} hunted") as status:
        for catch in _hunt_all(chosen, arguments.seeds, arguments.jobs):
            catches.append(catch)
            status.update(f"{len(catches)} of {len(chosen)} hunted")
            console.print(_line(catch), highlight=False, markup=False, soft_wrap=True)
    return _report(catches, console)


def _hunt_all(mutants: Sequence[Mutant], seeds: int, jobs: int) -> Iterator[Catch]:
    """Hunt with seeds first, which take all processes for each mutant, and then as many with named tests side by side.

    In this order, no process is forked while threads run.
    """
    for mutant in mutants:
        if not mutant.tests:
            yield _hunted(mutant, seeds, jobs)
    with ThreadPoolExecutor(jobs) as threads:
        hunts = [threads.submit(_hunted, mutant, seeds, jobs) for mutant in mutants if mutant.tests]
        try:
            for hunt_with_tests in as_completed(hunts):
                yield hunt_with_tests.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _hunted(mutant: Mutant, seeds: int, jobs: int) -> Catch:
    """What became of it; one that does not fit the code, or whose tests can't run, counts as not caught."""
    try:
        return hunt(mutant, seeds, jobs)
    except (UnfitTestsError, StaleEditError) as error:
        return Catch(mutant.name, mutant.bug, None, str(error), None, 0, 0.0, None)


def _report(catches: list[Catch], console: Console) -> int:
    harmless = [catch for catch in catches if catch.harmless is not None]
    got_away = [catch.name for catch in catches if not catch.as_it_should]
    console.print(_table([catch for catch in catches if catch.harmless is None]))
    for catch in harmless:
        console.print(f"{catch.name} is harmless: {catch.bug}. {catch.harmless}", highlight=False)
    caught = sum(catch.by is not None for catch in catches)
    console.print(f"{len(catches)} mutants: {caught} caught, {len(harmless)} harmless")
    if got_away:
        console.print(f"not as they should: {', '.join(got_away)}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "mutants": len(catches),
        "caught": caught,
        "harmless": [catch.name for catch in harmless],
        "got_away": got_away,
        "table": [asdict(catch) for catch in catches],
    }
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if got_away else 0


def _line(catch: Catch) -> str:
    if catch.by is None:
        verdict = "did no harm" if catch.harmless else "GOT AWAY"
        why = f": {catch.evidence}" if catch.evidence else ""
        return f"{catch.name}: {verdict} in {catch.seeds} seeds, {catch.seconds} s{why}"
    seeds = f" after {catch.seeds} seeds" if catch.seeds else ""
    harm = "" if catch.harmless is None else ", BUT WAS THOUGHT HARMLESS"
    return f"{catch.name}: caught by '{catch.by}'{seeds}, {catch.seconds} s{harm}"


def _table(catches: list[Catch]) -> Table:
    table = Table(title="Mutants", show_lines=True)
    for column in ("mutant", "the bug", "caught by", "seeds", "seconds"):
        table.add_column(column, overflow="fold")
    for catch in catches:
        by = escape(catch.by) if catch.by else "[bold red]GOT AWAY"
        table.add_row(catch.name, catch.bug, by, str(catch.seeds or ""), str(catch.seconds))
    return table


if __name__ == "__main__":
    sys.exit(main())
