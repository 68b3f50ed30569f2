"""Findings of checks: the one form in which checks of Kafka, Postgres and the deployment report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was checked. ``fix`` says what to do if it is not ``ok``.

    With ``unsafe``, no worker may run until it is fixed, because commands could be lost.
    """

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    fix: str = ""
    unsafe: bool = False


def verdict(findings: Sequence[Finding]) -> str:
    """Say how many checks there were, and how many of them found something."""
    levels = [found.level for found in findings]
    bad = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for word, count in (("error", levels.count("error")), ("warning", levels.count("warning")))
        if count
    ]
    return f"{len(levels)} checks: {' and '.join(bad) or 'all is well'}"
