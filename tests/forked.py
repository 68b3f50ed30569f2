"""What a process that tests fork does first."""

import gc
import signal


def begin() -> None:
    """Signals as a new process has them, and no look at what was inherited.

    A fork takes its parent's handlers along, and a test's may swallow SIGTERM. ``Pool`` ends its processes with that
    one while it keeps the lock of their queue: one that is not ended by it waits for the lock, and ``Pool`` for it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
