"""The real clock, behind the owner's Clock port."""

import asyncio
import time

from typing_extensions import override

from waypost_worker.partition.ports import Clock


class SystemClock(Clock):
    """CLOCK_BOOTTIME where the system has it (Linux): it also counts the time a machine is suspended."""

    @override
    def boottime(self) -> float:
        """Return the seconds since boot, including suspended time."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    @override
    def walltime(self) -> float:
        """Seconds since 1970."""
        return time.time()

    @override
    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
