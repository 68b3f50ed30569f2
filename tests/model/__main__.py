"""``python -m tests.model``: explore one configuration, and print the shortest way to a violation, if there is one."""

import argparse
import sys
import time

from tests.model.groups import GROUP_BUGS, explore_groups
from tests.model.protocol import BUGS, Limits, explore


def main() -> int:
    """Run one exploration; exit code 1 if a state is unsound."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.model",
        description="Explore every interleaving of the protocol's steps.",
        epilog="For example: python -m tests.model --losses 1 --bug tail-read-before-the-fence",
    )
    for name, default in (
        ("commands", 2),
        ("losses", 1),
        ("forgets", 0),
        ("new-ids", 0),
        ("claims", 3),
        ("restorable", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    parser.add_argument(
        "--grouped-with",
        nargs=2,
        type=int,
        metavar=("COMMANDS", "CLAIMS"),
        help="add a second partition with these limits, which shares requests with the first",
    )
    parser.add_argument("--bug", choices=sorted(BUGS | GROUP_BUGS), help="take one guard away")
    given = parser.parse_args()
    limits = Limits(
        given.commands, given.losses, given.forgets, given.new_ids, given.claims, given.restorable
    )
    if given.bug and (given.bug in GROUP_BUGS) != (given.grouped_with is not None):
        parser.error(f"--bug {given.bug}: bugs of groups need --grouped-with, and the others do not take it")
    began = time.monotonic()
    try:
        if given.grouped_with is None:
            outcome = explore(limits, given.bug)
        else:
            commands, claims = given.grouped_with
            outcome = explore_groups((limits, Limits(commands, claims=claims)), given.bug)
    except ValueError as error:
        parser.error(str(error))
    seconds = time.monotonic() - began
    if outcome.violation is None:
        print(f"sound: {outcome.states:,} states, all of them, in {seconds:.0f} s")
        return 0
    print(f"VIOLATED after {outcome.states:,} states: {outcome.violation}")
    for action in outcome.path:
        print(f"  {action}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
