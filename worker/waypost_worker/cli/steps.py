"""Progress of long work: a bar on a terminal, ten plain lines elsewhere; nothing if it is soon over."""

import sys
import time
from types import TracebackType
from typing import Any, Final, Self

from waypost_worker.cli.output import note

_SOON: Final = 2.0


class Steps:
    """``with Steps("partitions") as steps: steps.show(3, 12, "8 MB")``; leaves the terminal as it was."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._begun = time.monotonic()
        self._tenth = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int, more: str = "") -> None:
        """``done`` of ``total``."""
        if time.monotonic() - self._begun < _SOON:
            return
        if sys.stderr.isatty():
            self._draw(done, total, more)
        elif done * 10 // max(total, 1) > self._tenth:
            self._tenth = done * 10 // max(total, 1)
            note(f"  {done} of {total} {self._unit} {more}".rstrip())

    def _draw(self, done: int, total: int, more: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            text = TextColumn("{task.description}")
            columns = (BarColumn(20), MofNCompleteColumn(), text, TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total, description=f"{self._unit} {more}")
