"""Retrying while Kafka or Postgres are temporarily unavailable."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from waypost.backoff import Backoff
from waypost_worker.partition.ports import UnavailableError

_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 5.0


async def patiently(
    attempt: Callable[[], Awaitable[None]],
    done: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]],
    patience: float,
) -> None:
    """``attempt`` until it succeeds, with growing waits; UnavailableError once ``patience`` seconds of waiting
    brought nothing. ``done`` counts what is finished: it is progress if that grows.
    """
    backoff, waited = Backoff(_FIRST_WAIT, _LONGEST_WAIT), 0.0
    while True:
        before = done()
        try:
            await attempt()
            return
        except UnavailableError:
            if done() > before:
                backoff.reset()
                waited = 0.0
            if waited > patience:
                raise
        wait = backoff.next_wait()
        await sleep(wait)
        waited += wait


class RecoveryProgress(Protocol):
    """Receives the progress of a replay. Must return immediately and never raise."""

    def advanced(self, partition: int, commands: int, next_offset: int) -> None:
        """Count this many more committed commands."""
        ...
