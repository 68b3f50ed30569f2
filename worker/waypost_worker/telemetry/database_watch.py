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
    """Until cancelled, ``tell`` of each of ``count`` databases whether ``check`` found it well in ``patience`` seconds.

    Each is asked by itself, so one that hangs holds up no other. Where ``unknown`` says that a check that failed says
    nothing of the database, what was told last stays. Asked every ``every`` seconds, more often while it is not well.
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
