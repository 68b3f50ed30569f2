"""What a process that tests fork does first."""

import gc
import signal


def begin() -> None:
    """Signals as a new process has them, and no look at what was inherited.

    A fork takes its parent's handlers along, and one in Python runs when the interpreter comes to it. ``Pool`` ends its
    processes with SIGTERM while it keeps the lock of their queue: one that is about to wait for the lock by then never
    comes to its handler, and ``Pool`` waits for it. Without a handler the kernel ends it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
