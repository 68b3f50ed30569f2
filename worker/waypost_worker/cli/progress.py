"""Progress of the first start of the dev server: a bar on a terminal, a few plain lines elsewhere."""

import sys
from typing import Any

from waypost_worker.cli.output import note


class DownloadProgress:
    """What the embedded servers are told to call while they fetch and prepare Kafka."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._tenth = -1

    def show(self, done: int, total: int, name: str) -> None:
        """``done`` of ``total`` steps; ``name`` is the file or the step."""
        if sys.stderr.isatty():
            self._draw(done, total, name)
        elif done * 10 // max(total, 1) != self._tenth:
            self._tenth = done * 10 // max(total, 1)
            note(f"  preparing Kafka, {done} of {total}: {name}")

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, name: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("  {task.description:<34}"), BarColumn(20), MofNCompleteColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total, description=name[:34])
