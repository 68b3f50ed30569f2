"""Whether a consumer still gets what is there for it. Pure: fed with seconds, positions and ends of logs.

aiokafka's consumers are known to stop without an error (its issues 625, 712, 718, 1017, 1145). Seen from outside
that is always the same: the log goes on, we ask, and nothing comes. What counts is time spent asking, so that
an application that takes its time with an event is never mistaken for a consumer that is stuck.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Generic, TypeVar

_P = TypeVar("_P")
_LONGEST_PATIENCE: Final = 600.0


class FetchProgress(Generic[_P]):
    """What each assigned partition has given lately. Seconds of asking; positions are next offsets."""

    def __init__(self, patience: float) -> None:
        self._first_patience = patience
        self._patience = patience
        self._asked: dict[_P, float] = {}
        self._positions: dict[_P, int] = {}
        self._suspected: dict[_P, int] = {}
        self._restarted_at: dict[_P, int] = {}

    @property
    def positions(self) -> dict[_P, int]:
        """The next offset of each partition."""
        return dict(self._positions)

    @property
    def patience(self) -> float:
        """How many seconds of asking in vain make a partition suspect."""
        return self._patience

    def begin(self, positions: Mapping[_P, int]) -> None:
        """These partitions are read from here on, and no others."""
        self._positions = dict(positions)
        self._asked = dict.fromkeys(positions, 0.0)
        self._suspected.clear()

    def came(self, partition: _P, next_offset: int) -> None:
        """Records came; the next one will have this offset."""
        self._positions[partition] = next_offset
        self._asked[partition] = 0.0
        self._suspected.pop(partition, None)
        if self._restarted_at.get(partition, next_offset) < next_offset:
            self._restarted_at.clear()
            self._patience = self._first_patience

    def asked(self, seconds: float, came: Collection[_P]) -> None:
        """A call of so many seconds has returned records of these partitions only."""
        for partition in self._asked.keys() - set(came):
            self._asked[partition] += seconds

    def hungry(self, asking_for: float = 0.0) -> list[_P]:
        """The partitions that gave nothing for long; ``asking_for`` is the age of a call under way."""
        return [
            partition for partition, seconds in self._asked.items() if seconds + asking_for >= self._patience
        ]

    def stuck(self, ends: Mapping[_P, int]) -> dict[_P, int]:
        """Which of the hungry partitions are stuck, and by how many records, given the ends of their logs.

        A record may have come in the moment of looking: stuck is what stands at the same place the second time.
        """
        behind = {
            partition: end - self._positions[partition]
            for partition, end in ends.items()
            if partition in self._positions and end > self._positions[partition]
        }
        found = {p: lag for p, lag in behind.items() if self._suspected.get(p) == self._positions[p]}
        for partition in ends.keys() - behind.keys():
            self._asked[partition] = 0.0  # at the end of its log: nothing was to come
        self._suspected = {partition: self._positions[partition] for partition in behind}
        return found

    def restarted(self, stuck: Iterable[_P]) -> None:
        """The consumer was made anew. What doesn't help where it stands is tried less and less often."""
        places = {p: self._positions[p] for p in stuck if p in self._positions}
        if any(self._restarted_at.get(partition) == at for partition, at in places.items()):
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
        self._restarted_at.update(places)
        self.begin({})
