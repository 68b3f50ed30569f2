"""Progress of long work on a known number of things: a bar on a terminal, a line for each tenth elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from waypost_worker.cli.support.output import note


class WorkProgress:
    """Reports how far work has come, its speed, and how long it will take. Use it with ``with``."""

    def __init__(self, doing: str, total: int, unit: str) -> None:
        self._doing = doing
        self._total = total
        self._unit = unit
        self._done = 0
        self._tenth = 0
        self._places: dict[int, tuple[int, int]] = {}
        self._began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "WorkProgress":
        if sys.stderr.isatty():
            self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advanced(self, partition: int, count: int, position: int = 0) -> None:
        """Count this many more as done in a partition, which continues at ``position``."""
        self._done += count
        before, _ = self._places.get(partition, (0, 0))
        self._places[partition] = (before + count, position)
        if self._bar is not None:
            rate = f"{self.rate:,.0f} {self._unit}/s"
            self._bar.update(self._task, completed=self._done, rate=rate)
        elif self._done * 10 // max(self._total, 1) != self._tenth:
            self._tenth = self._done * 10 // max(self._total, 1)
            left = max(0, self._total - self._done) / max(self.rate, 1e-9)
            note(
                f"{self._doing}: {self._done} of {self._total} {self._unit}, {self.rate:,.0f} a second, "
                f"{left:.0f} s left"
            )

    def grow(self, count: int) -> None:
        """Count this many more to do than was known."""
        self._total += count
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)

    @property
    def doing(self) -> str:
        """The name of the work."""
        return self._doing

    @property
    def total(self) -> int:
        """The total number."""
        return self._total

    @property
    def places(self) -> Mapping[int, tuple[int, int]]:
        """The number done and the next position, by partition."""
        return self._places

    @property
    def done(self) -> int:
        """The number done."""
        return self._done

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """The number done per second."""
        return self._done / max(self.seconds, 1e-6)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(self._doing, total=self._total, rate="")
