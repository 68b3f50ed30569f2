"""The real clock, behind the owner's Clock port."""

import asyncio
import time


class SystemClock:
    """CLOCK_BOOTTIME where the system has it (Linux): it also counts the time a machine is suspended."""

    def boottime(self) -> float:
        """Seconds since boot, suspended time included."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
