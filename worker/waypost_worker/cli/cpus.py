"""How many cores this process may use: those of its affinity mask, and no more than its control group's quota."""

import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus(quota: Path = _QUOTA) -> int:
    """At least 1. A quota of one and a half cores counts as one: two processes would be held up by turns.

    ``quota`` is a control group's ``cpu.max`` (cgroup v2): microseconds and the period, or ``max``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, int(allowed) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return cores
