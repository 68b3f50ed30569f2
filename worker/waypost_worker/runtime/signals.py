"""SIGTERM and Ctrl-C before a worker handles them: it holds nothing yet, so it ends immediately, with exit code 0.

Imports nothing that takes time, because it is in effect while everything else is imported. Without it, a worker that is
the first process of a container would not notice these signals, because the kernel drops signals without a handler
there.
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
