"""What a run did not test, and why: a plugin of pytest that prints a summary at the end.

With pytest-xdist, every worker collects all tests and reports how many it deselected. The controller, which prints the
summary, collects none.
"""

from collections import Counter
from typing import Any

import pytest

_DESELECTED = pytest.StashKey[int]()
_OUTPUT = "waypost_deselected"


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        stash = items[0].config.stash
        stash[_DESELECTED] = stash.get(_DESELECTED, 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = session.config.stash.get(_DESELECTED, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # A worker that crashed has sent nothing.
    count = getattr(node, "workeroutput", {}).get(_OUTPUT, 0)
    node.config.stash[_DESELECTED] = max(node.config.stash.get(_DESELECTED, 0), count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("not tested")
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(_reason(report.longrepr) for report in skipped)
    found = [f"{count:5}  {reason}" for reason, count in reasons.most_common()]
    if deselected := config.stash.get(_DESELECTED, 0):
        found.append(f"{deselected:5}  deselected by {_options(config)}")
    for line in found or ["nothing: all tests ran"]:
        terminalreporter.write_line(line)


def _reason(longrepr: Any) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())


def _options(config: pytest.Config) -> str:
    given = {"-m": config.getoption("markexpr", ""), "-k": config.getoption("keyword", "")}
    return " and ".join(f"{flag} '{text}'" for flag, text in given.items() if text) or "the command line"
