"""``python -m tests.model``: explore one configuration, and print the shortest way to a violation, if there is one."""

import argparse
import sys
import time

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
    parser.add_argument("--bug", choices=sorted(BUGS), help="take one guard away")
    given = parser.parse_args()
    began = time.monotonic()
    limits = Limits(
        given.commands, given.losses, given.forgets, given.new_ids, given.claims, given.restorable
    )
    outcome = explore(limits, given.bug)
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
