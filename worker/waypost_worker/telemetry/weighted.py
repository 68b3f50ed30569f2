"""A histogram that takes many equal observations at once: a batch costs one call, not one per command."""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from waypost_worker.telemetry.catalogue import Metric


class WeightedHistogram(Collector):
    """Counts in the buckets of ``metric``, for one event loop: there is no lock."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        """Add ``value`` so many times."""
        self._counts[bisect_left(self._metric.buckets, value)] += times
        self._sum += value * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Called by the registry for each scrape."""
        total, buckets = 0, []
        for bound, count in zip((*self._metric.buckets, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(total)))
        yield HistogramMetricFamily(
            self._metric.name, self._metric.meaning, buckets=buckets, sum_value=self._sum
        )
