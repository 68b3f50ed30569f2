"""SIGTERM and Ctrl-C before a worker listens to them: it holds nothing yet, so it ends at once, with exit code 0.

Imports nothing that takes time: it is in force while everything else is imported. As the first process of a
container, a worker would otherwise not even notice: for that one the kernel drops signals without a handler.
"""

import os
import signal


def end_at_once_on_signals() -> None:
    """Until the worker's own handlers take their place."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(*_: object) -> None:
    # Not SystemExit: raised in the middle of an import, it may be caught.
    os._exit(0)
