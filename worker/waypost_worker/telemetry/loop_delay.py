"""How long what is ready has to wait for the event loop, measured by sleeping."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

_EVERY: Final = 0.25
_SECONDS_KEPT: Final = 10.0


async def heartbeat(beat: Callable[[float], None]) -> None:
    """Call ``beat`` four times a second with the longest delay, in seconds, of the last ten; until cancelled."""
    loop = asyncio.get_running_loop()
    delays: deque[float] = deque(maxlen=int(_SECONDS_KEPT / _EVERY))
    while True:
        due = loop.time() + _EVERY
        await asyncio.sleep(_EVERY)
        delays.append(max(0.0, loop.time() - due))
        beat(max(delays))
