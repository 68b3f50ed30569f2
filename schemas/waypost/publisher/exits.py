"""Callbacks for the normal end of this process, regardless of how it was started.

A child of multiprocessing (a Process, a worker of a Pool or of a ProcessPoolExecutor, forked or not) ends with
os._exit and runs no handler of atexit. It runs the finalizers of multiprocessing instead.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, Final

_FIRST: Final = (
    100  # finalizers of a high priority run before multiprocessing waits for this process's own children
)
_registered: dict[Callable[[], object], tuple[int, Any]] = {}


def at_exit(call: Callable[[], object]) -> None:
    """Have ``call`` called when this process ends; at least once, so it must be harmless to repeat."""
    if call in _registered and _registered[call][0] == os.getpid():
        return
    atexit.unregister(call)  # a copy of the parent's, where this process was forked
    atexit.register(call)
    # Loaded in every such child, and needed in no other process.
    util: Any = sys.modules.get("multiprocessing.util")
    finalizer = None if util is None else util.Finalize(None, call, exitpriority=_FIRST)
    _registered[call] = os.getpid(), finalizer


def not_at_exit(call: Callable[[], object]) -> None:
    """Undo :func:`at_exit`."""
    atexit.unregister(call)
    pid, finalizer = _registered.pop(call, (0, None))
    if finalizer is not None and pid == os.getpid():
        finalizer.cancel()
