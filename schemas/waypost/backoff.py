"""Growing waits between attempts. Pure: the caller sleeps, and passes in the random numbers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random  # takes 3 ms to import, and a publisher does not need it


class Backoff:
    """Waits for a series of attempts: ``first``, then ``factor`` times the previous one, up to ``longest``.

    With ``random``, each wait is multiplied by a number from the range ``jitter``, so that clients that failed
    together do not return together. The jitter of one wait does not change the next.
    """

    __slots__ = ("_factor", "_first", "_jitter", "_longest", "_random", "_wait")

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        factor: float = 2,
        jitter: tuple[float, float] = (0.5, 1.5),
        random: "Random | None" = None,
    ) -> None:
        self._first = self._wait = first
        self._longest = longest
        self._factor = factor
        self._jitter = jitter
        self._random = random

    def next_wait(self) -> float:
        """Return the seconds to wait before the next attempt."""
        wait = self._wait
        self._wait = min(self._factor * wait, self._longest)
        return wait if self._random is None else wait * self._random.uniform(*self._jitter)

    def reset(self) -> None:
        """Start again at the first wait, after something worked."""
        self._wait = self._first
