"""Counts and levels that a batch changes, for one event loop: no lock, and no look-up of labels where it can be kept.

The client library's own collectors take a microsecond or more for each update, for threads and processes that a worker
does not have. A batch of one command updates ten of them, which would make telemetry expensive.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from waypost_worker.telemetry.catalog import Metric

_E = TypeVar("_E")


class Distribution:
    """The observations of one histogram's series."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add ``value``."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def observe_many(self, value: float, times: int) -> None:
        """Add ``value`` this many times."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.total += value * times


class Histograms(Collector):
    """The histogram ``metric``, by the values of its labels."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._series: dict[tuple[str, ...], Distribution] = {}
        if not metric.labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: object) -> Distribution:
        """Return the series of these values, to keep it: looking it up each time is expensive."""
        key = tuple(map(str, values))
        return self._series.setdefault(key, Distribution(self._metric.buckets))

    @override
    def collect(self) -> Iterator[HistogramMetricFamily]:
        metric = self._metric
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for values, series in self._series.items():
            total, buckets = 0, []
            for bound, count in zip((*metric.buckets, float("inf")), series.counts, strict=True):
                total += count
                buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(total)))
            family.add_metric(values, buckets, series.total)
        yield family


class PartitionGauge(Collector):
    """The gauge ``metric``, whose one label is a partition: ``values`` by partition, for everybody to write."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self.values: dict[int, float] = {}
        registry.register(self)

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._metric.name, self._metric.meaning, labels=self._metric.labels)
        for partition, value in self.values.items():
            family.add_metric([str(partition)], value)
        yield family


class Events(Collector, Generic[_E]):
    """The counter ``metric`` of events: ``seen`` counts them as they are, and a scrape asks what labels they have."""

    def __init__(
        self, metric: Metric, registry: CollectorRegistry, labels: Callable[[_E], tuple[str, ...]]
    ) -> None:
        self._metric = metric
        self._labels = labels
        self.seen: Counter[_E] = Counter()
        registry.register(self)

    @override
    def collect(self) -> Iterator[CounterMetricFamily]:
        totals: Counter[tuple[str, ...]] = Counter()
        for event, times in self.seen.items():
            totals[self._labels(event)] += times
        family = CounterMetricFamily(self._metric.name, self._metric.meaning, labels=self._metric.labels)
        for values, total in totals.items():
            family.add_metric(values, total)
        yield family
