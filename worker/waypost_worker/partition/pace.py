"""When to let commands gather before the next batch. Pure: it is told what happened when, and looks at no clock.

A batch has costs of its own, whatever is in it: a fetch, a commit and an append, each a request that wakes somebody
up, some milliseconds of CPU together. A thousand commands a second that go one or two at a time keep two cores busy
with that alone, and then wait for each other. Gathered for as long as the last batch took they wait a little longer
each, and less in all. Where commands are rarer than that, nothing is gained, and nobody waits.
"""

from math import exp
from typing import Final

_LONGEST: Final = 0.005
_REMEMBERED: Final = 0.25  # seconds that the rate looks back
# A batch of this size is worth its costs.
_LARGE: Final = 500


class Pace:
    """Of one term. All times in seconds, of a clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._rate = 0.0
        self._pause = 0.0

    def took(self, commands: int, fetched_at: float, seconds: float) -> None:
        """What a fetch brought was applied and committed in so many ``seconds``."""
        past = max(0.0, fetched_at - self._last)
        self._last = max(fetched_at, self._last)
        self._rate = self._rate * exp(-past / _REMEMBERED) + commands / _REMEMBERED
        gathering = min(seconds, _LONGEST)
        worth_it = commands < _LARGE and self._rate * gathering >= 1
        self._pause = gathering if worth_it else 0.0

    @property
    def pause(self) -> float:
        """How long to wait before the next fetch: 0 unless at least one command more is to be expected by then."""
        return self._pause
