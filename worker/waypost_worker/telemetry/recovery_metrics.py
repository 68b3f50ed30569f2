"""Metrics of a recovery command while it works: read from its progress at each scrape, so they cost nothing else.

A separate registry, without ``waypost_build_info``: a replay is not a worker, and must not look like one to the alert
that counts them.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from waypost_worker.telemetry import catalog


class RecoveryCounts(Protocol):
    """The progress of a recovery command."""

    @property
    def doing(self) -> str:
        """The work: replay, rebuild or verify."""
        ...

    @property
    def total(self) -> int:
        """The total number of records."""
        ...

    @property
    def places(self) -> Mapping[int, tuple[int, int]]:
        """Return, by partition, the records done since it began and the offset at which it continues."""
        ...


class _Recovered(Collector):
    def __init__(self, progress: RecoveryCounts) -> None:
        self._progress = progress

    @override
    def collect(self) -> Iterable[Metric]:
        doing = self._progress.doing
        planned, done, offset = catalog.PLANNED, catalog.RECOVERED, catalog.RECOVERY_OFFSET
        total = GaugeMetricFamily(planned.name, planned.meaning, labels=planned.labels)
        total.add_metric((doing,), self._progress.total)
        counts = CounterMetricFamily(done.name, done.meaning, labels=done.labels)
        offsets = GaugeMetricFamily(offset.name, offset.meaning, labels=offset.labels)
        for partition, (count, position) in sorted(self._progress.places.items()):
            counts.add_metric((doing, str(partition)), count)
            offsets.add_metric((doing, str(partition)), position)
        return total, counts, offsets


def recovery_registry(progress: RecoveryCounts) -> CollectorRegistry:
    """Serve these metrics while ``progress`` continues."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Recovered(progress))
    ProcessCollector(registry=registry)
    return registry
