"""``make commits``: do the commit messages since BASE have the form that CONTRIBUTING.md asks for?

- The subject is at most 65 characters long and has the form ``area: what it does``.
- A blank line follows, then a body wrapped at 72 characters. A line that can't be wrapped, such as one with a long URL
  or a ``Co-authored-by:``, may be longer.

Commits up to BASE are older than this rule, and the messages of merges are generated, so both are exempt. If there is
no history (no git, a source archive, a shallow clone), that is reported and nothing is checked.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
# The last commit before the rule.
BASE: Final = "ca1a00abe89633e49b9ec0ea9b570da9aab1ff93"
SUBJECT: Final = 65
BODY: Final = 72
# One area or several: "kafka: ", "tests/faults: ", "reader, worker: ".
_FORM: Final = re.compile(r"[\w./-]+(?:, [\w./-]+)*: \S")
_TRAILER: Final = re.compile(r"[A-Z][A-Za-z-]*-[Bb]y: \S")
_MARK: Final = re.compile(r"^\s*(?:[-*>]\s+|\[?\d+\]?[.:]?\s+)*")


class NoHistoryError(Exception):
    """There are no commits that could be checked; the message says why."""


def git(*arguments: str) -> str:
    """Return what a git command prints. NoHistoryError if it fails."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607 - wherever git is
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise NoHistoryError(f"git can't be run ({error.strerror})") from None
    if done.returncode:
        raise NoHistoryError(done.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed")
    return done.stdout.decode(errors="replace")


def messages(base: str) -> Iterator[tuple[str, str]]:
    """Yield the abbreviated hash and the message of each commit after ``base``, oldest first. NoHistoryError."""
    if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != ROOT:
        raise NoHistoryError("this folder is not the root of a git checkout")
    try:
        git("merge-base", "--is-ancestor", base, "HEAD")
    except NoHistoryError:
        raise NoHistoryError(f"the history here lacks {base[:7]}, the last commit before the rule") from None
    log = git("log", "--no-merges", "--reverse", "--format=%h%n%B%x00", f"{base}..HEAD")
    for entry in filter(None, (part.strip("\n") for part in log.split("\0"))):
        commit, _, message = entry.partition("\n")
        yield commit, message


def problems(message: str) -> Iterator[str]:
    """Yield what is wrong with a message."""
    subject, *rest = message.rstrip("\n").split("\n")
    if len(subject) > SUBJECT:
        yield f"the subject has {len(subject)} characters, {SUBJECT} are allowed"
    if not _FORM.match(subject):
        yield "the subject does not have the form 'area: what it does'"
    if rest and rest[0]:
        yield "no blank line follows the subject"
    for line in rest:
        # The mark of a list or a quotation belongs to the first word.
        if len(line) > BODY and " " in _MARK.sub("", line, count=1).strip() and not _TRAILER.match(line):
            yield f"a line of the body has {len(line)} characters, wrap it at {BODY}: {line[:40]}…"


def main(arguments: Sequence[str]) -> int:
    """Check; return the exit code: 0 if all is well or there was nothing to check, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Check the form of commit messages.")
    parser.add_argument(
        "--base", default=BASE, help="check the commits after this one (default: %(default)s)"
    )
    base = parser.parse_args(arguments).base
    try:
        found = list(messages(base))
    except NoHistoryError as reason:
        sys.stdout.write(f"Commit messages were not checked: {reason}.\n")
        return 0
    bad = 0
    for commit, message in found:
        for problem in problems(message):
            bad += 1
            sys.stderr.write(f"{commit} {message.partition(chr(10))[0]}\n  {problem}\n")
    if bad:
        sys.stderr.write(
            f"Commit messages after {base[:7]}: {len(found)} checked, problems: {bad}; see CONTRIBUTING.md.\n"
        )
        return 1
    sys.stdout.write(f"Commit messages after {base[:7]}: {len(found)} checked, all well formed.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
