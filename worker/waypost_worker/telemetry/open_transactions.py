"""Times how long each partition has waited at a client's open transaction. Pure: the caller passes the time."""

from waypost_worker.partition.ports import ReadProgress


class OpenTransactions:
    """Since when readers of committed records have waited at the last stable offset, with more behind it."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[int, float]] = {}

    def look(self, partition: int, progress: ReadProgress, now: float) -> float:
        """Return the seconds for which the partition has waited for the same transaction; 0 if it waits for none."""
        if not progress.held_back:
            self._since.pop(partition, None)
            return 0.0
        known = self._since.get(partition)
        if known is None or known[0] != progress.position:
            self._since[partition] = known = (progress.position, now)
        return now - known[1]

    def keep(self, partitions: frozenset[int]) -> None:
        """Forget all other partitions."""
        for gone in self._since.keys() - partitions:
            del self._since[gone]
