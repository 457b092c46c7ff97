"""Prometheus backend of the metric catalogue; `create_app` makes one and passes it to every room that measures."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from streaming.telemetry import CATALOGUE, PREFIX, CounterName, GaugeName, HistogramName

CONTENT_TYPE = CONTENT_TYPE_LATEST


class PrometheusMetrics:
    """Holds one Prometheus metric per line of the catalogue, in a registry of its own.

    >>> metrics = PrometheusMetrics()
    >>> metrics.count("labels_total", outcome="matched")
    >>> [line for line in metrics.exposition().decode().splitlines() if line.endswith('{outcome="matched"} 1.0')]
    ['headwater_labels_total{outcome="matched"} 1.0']
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._labelled: dict[tuple[object, ...], Any] = {}  # finding a labelled one costs more than adding to it
        for name, metric in CATALOGUE.items():
            full = PREFIX + name
            if metric.kind == "counter":
                self._counters[name] = Counter(full, metric.help, metric.labels, registry=self.registry)
            elif metric.kind == "gauge":
                self._gauges[name] = Gauge(full, metric.help, metric.labels, registry=self.registry)
            else:
                self._histograms[name] = Histogram(
                    full, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
                )
            for value in metric.known:
                self._counters[name].labels(value)

    def count(self, name: CounterName, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self._of(self._counters[name], labels).inc(value)

    def gauge(self, name: GaugeName, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._of(self._gauges[name], labels).set(value)

    def observe(self, name: HistogramName, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        self._of(self._histograms[name], labels).observe(value)

    def _of(self, metric: Any, labels: Mapping[str, str]) -> Any:
        """The one with these labels."""
        if not labels:
            return metric
        key = (metric, *labels.items())
        found = self._labelled.get(key)
        if found is None:
            found = self._labelled[key] = metric.labels(**labels)
        return found

    def forget(self, name: GaugeName) -> None:
        """Say no more what a gauge with labels stood at."""
        gauge = self._gauges[name]
        gauge.clear()
        for key in [key for key in self._labelled if key[0] is gauge]:  # it would be set, and nobody told
            del self._labelled[key]

    def follow(self, name: GaugeName, value: Callable[[], float], **labels: str) -> None:
        """Have a gauge ask for its value whenever it is read."""
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set_function(value)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format, for `/metrics`."""
        return generate_latest(self.registry)


def parse(text: str) -> Mapping[str, float]:
    r"""Samples of an exposition by `name{labels}`, without the prefix; what `status` and `demo` read.

    >>> parse('# HELP x y\nheadwater_model_version 7.0\nheadwater_quality{metric="f1"} 0.5')
    {'model_version': 7.0, 'quality{metric="f1"}': 0.5}
    """
    samples = {}
    for line in text.splitlines():
        if line.startswith(PREFIX):
            name, _, value = line.rpartition(" ")
            samples[name.removeprefix(PREFIX)] = float(value)
    return samples
