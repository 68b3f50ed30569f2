"""Wait, on one event loop, for a call that belongs to another one."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from waypost.errors import PublisherClosedError

_LOOK_SECONDS: Final = 1.0
_T = TypeVar("_T")


async def await_on(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, _T], stopped: str) -> _T:
    """Run a coroutine on another event loop, which is running, and wait for it here.

    Raises:
        PublisherClosedError: That loop stopped before the call was done. ``stopped`` is what to say then.
    """
    waited = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, loop))
    try:
        while not (await asyncio.wait({waited}, timeout=_LOOK_SECONDS))[0]:
            if not loop.is_running():
                raise PublisherClosedError(stopped)
    except BaseException:
        waited.cancel()
        raise
    return waited.result()
