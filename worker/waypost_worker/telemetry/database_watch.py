"""Which databases a worker reaches: each is asked every few seconds, whether or not there is work for it."""

import asyncio
from collections.abc import Awaitable, Callable


async def watch_databases(
    count: int,
    check: Callable[[int], Awaitable[object]],
    unknown: Callable[[int], bool],
    tell: Callable[[int, bool], None],
    *,
    every: float,
    patience: float,
) -> None:
    """Until canceled, report for each of ``count`` databases whether ``check`` succeeded within ``patience`` seconds.

    Each database is checked separately, so one that hangs delays no other. If ``unknown`` says that a failed check says
    nothing about the database, the last report stays. Checks run every ``every`` seconds, and more often while a
    database is not well.
    """

    async def watch(number: int) -> None:
        while True:
            well = False
            try:
                async with asyncio.timeout(patience):
                    await check(number)
                well = True
            except Exception:  # why is in /readyz and in the log
                if unknown(number):
                    await asyncio.sleep(every / 10)
                    continue
            tell(number, well)
            await asyncio.sleep(every if well else every / 5)

    await asyncio.gather(*map(watch, range(count)))
