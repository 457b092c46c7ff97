"""Prometheus backend of the metric catalogue; `create_app` makes one and passes it to every room that measures."""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

from streaming.telemetry import (
    CATALOGUE,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    PREFIX,
    CounterName,
    GaugeName,
    HistogramName,
    Metric,
    MetricName,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

Labels = tuple[tuple[str, str], ...]


class Said(msgspec.Struct, array_like=True):
    """What a process says of some metrics, for another one to show as well. Each value with its metric and labels.

    Attributes:
        counters: how much was counted.
        gauges: where they stand; none of one without labels that was never set.
        histograms: how many values lie in each bucket, and their sum.
    """

    counters: list[tuple[CounterName, Labels, float]] = []
    gauges: list[tuple[GaugeName, Labels, float]] = []
    histograms: list[tuple[HistogramName, Labels, list[int], float]] = []


class _Observed:
    """How often which values were observed, by bucket."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def with_(self, counts: Iterable[int], total: float) -> "_Observed":
        """A new one that has observed these as well."""
        both = _Observed(self.edges)
        both.counts = [mine + other for mine, other in zip(self.counts, counts, strict=True)]
        both.sum = self.sum + total
        return both

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1  # an edge belongs to its bucket
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper edges with how many values were no larger."""
        total, found = 0, []
        for edge, count in zip((*self.edges, INF), self.counts, strict=True):
            total += count
            found.append((floatToGoString(edge), float(total)))  # type: ignore[no-untyped-call]
        return found


class _Counts(Collector):
    """Counters and histograms in plain dictionaries, which become Prometheus' own when they are read.

    A worker adds to several of them with every event and is read a few times a minute. Prometheus' own counter has a
    lock and costs 3 us; this one costs less than half of one.
    """

    def __init__(self) -> None:
        self._counts: dict[CounterName, dict[Labels, float]] = {}
        self._observed: dict[HistogramName, dict[Labels, _Observed]] = {}
        self.heard = Said()  # what another process has counted and observed, to be added
        for counter in COUNTERS:
            metric = CATALOGUE[counter]
            self._counts[counter] = {((metric.labels[0], value),): 0.0 for value in metric.known}
            if not metric.labels:
                self._counts[counter][()] = 0.0
        for histogram in HISTOGRAMS:
            metric = CATALOGUE[histogram]
            self._observed[histogram] = {} if metric.labels else {(): _Observed(metric.buckets)}

    def count(self, name: CounterName, value: float, labels: Labels) -> None:
        counts = self._counts[name]
        try:
            counts[labels] += value
        except KeyError:
            counts[_checked(name, labels)] = value

    def adder(self, name: CounterName, labels: Labels) -> Callable[[], None]:
        counts = self._counts[name]
        counts.setdefault(_checked(name, labels), 0.0)

        def add() -> None:
            counts[labels] += 1.0

        return add

    def observed(self, name: HistogramName, labels: Labels) -> _Observed:
        found = self._observed[name].get(labels)
        if found is None:
            found = self._observed[name][_checked(name, labels)] = _Observed(CATALOGUE[name].buckets)
        return found

    def said(self, names: Container[MetricName]) -> Said:
        """Those of these names."""
        return Said(
            counters=[
                (name, *each) for name, counts in self._counts.items() if name in names for each in counts.items()
            ],
            histograms=[
                (name, labels, one.counts, one.sum)
                for name, observed in self._observed.items()
                if name in names
                for labels, one in observed.items()
            ],
        )

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """All of them, as Prometheus' library has them."""
        for name, counts in self._counts.items():
            metric = CATALOGUE[name]
            counter = CounterMetricFamily(PREFIX + name, metric.help, labels=metric.labels)
            for labels, value in self._all_counts(name, counts).items():
                counter.add_metric(_values(metric, labels), value)
            yield counter
        for histogram, observed in self._observed.items():
            metric = CATALOGUE[histogram]
            family = HistogramMetricFamily(PREFIX + histogram, metric.help, labels=metric.labels)
            for labels, one in self._all_observed(histogram, observed).items():
                family.add_metric(_values(metric, labels), one.buckets(), one.sum)
            yield family

    def _all_counts(self, name: CounterName, own: Mapping[Labels, float]) -> Mapping[Labels, float]:
        heard = {labels: value for of, labels, value in self.heard.counters if of == name}
        return {labels: own.get(labels, 0.0) + heard.get(labels, 0.0) for labels in {**own, **heard}}

    def _all_observed(self, name: HistogramName, own: Mapping[Labels, _Observed]) -> Mapping[Labels, _Observed]:
        nothing = _Observed(CATALOGUE[name].buckets)
        heard = {
            labels: own.get(labels, nothing).with_(counts, total)
            for of, labels, counts, total in self.heard.histograms
            if of == name
        }
        return {**own, **heard}


def _values(metric: Metric, labels: Labels) -> list[str]:
    found = dict(labels)
    return [found[name] for name in metric.labels]


def _checked(name: MetricName, labels: Labels) -> Labels:
    expected, got = CATALOGUE[name].labels, tuple(label for label, _ in labels)
    if got != expected:
        message = f"got labels {got} of the metric {name}, expected {expected}, in this order"
        raise ValueError(message)
    return labels


class PrometheusMetrics:
    """Holds one Prometheus metric per line of the catalogue, in a registry of its own.

    >>> metrics = PrometheusMetrics()
    >>> metrics.count("labels_total", outcome="matched")
    >>> [line for line in metrics.exposition().decode().splitlines() if line.endswith('{outcome="matched"} 1.0')]
    ['headwater_labels_total{outcome="matched"} 1.0']
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counts = _Counts()
        self._registry.register(self._counts)
        self._gauges = {
            name: Gauge(PREFIX + name, CATALOGUE[name].help, CATALOGUE[name].labels, registry=self._registry)
            for name in GAUGES
        }
        self._labelled: dict[tuple[object, ...], Gauge] = {}  # finding a labelled one costs more than setting it
        self._heard: set[tuple[GaugeName, Labels]] = set()

    def counter(self, name: CounterName, **labels: str) -> Callable[[], None]:
        """What adds one to a counter, which is 0 until then. Raises ValueError as `count` does."""
        return self._counts.adder(name, tuple(labels.items()))

    def histogram(self, name: HistogramName, **labels: str) -> Callable[[float], None]:
        """What adds one observation to a histogram. Raises ValueError as `count` does."""
        return self._counts.observed(name, tuple(labels.items())).add

    def count(self, name: CounterName, value: float = 1.0, **labels: str) -> None:
        """Add to a counter. Raises ValueError for labels that are not the catalogue's, in its order."""
        self._counts.count(name, value, tuple(labels.items()))

    def gauge(self, name: GaugeName, value: float, **labels: str) -> None:
        """Set a gauge."""
        if not labels:
            self._gauges[name].set(value)
            return
        key = (name, *labels.items())
        found = self._labelled.get(key)
        if found is None:
            found = self._labelled[key] = self._gauges[name].labels(**labels)
        found.set(value)

    def observe(self, name: HistogramName, value: float, **labels: str) -> None:
        """Add one observation to a histogram. Raises ValueError as `count` does."""
        self._counts.observed(name, tuple(labels.items())).add(value)

    def forget(self, name: GaugeName) -> None:
        """Say no more what a gauge with labels stood at."""
        self._gauges[name].clear()
        for key in [key for key in self._labelled if key[0] == name]:  # they would be set, and nobody told
            del self._labelled[key]

    def follow(self, name: GaugeName, value: Callable[[], float], **labels: str) -> None:
        """Have a gauge ask for its value whenever it is read."""
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set_function(value)

    def said(self, names: Container[MetricName]) -> Said:
        """What these metrics stand at, for another process to `hear`."""
        found = self._counts.said(names)
        found.gauges = [
            (name, tuple(sample.labels.items()), sample.value)
            for name, gauge in self._gauges.items()
            if name in names
            for family in gauge.collect()
            for sample in family.samples
            if sample.labels or sample.value  # without labels one is there from the start, at 0
        ]
        return found

    def hear(self, said: Said) -> None:
        """Show what another process says of itself: its counts are added to this one's, its gauges stand beside them.

        Whatever it said before and does not say now is gone.
        """
        self._counts.heard = said
        heard = {(name, labels) for name, labels, _ in said.gauges}
        for name, labels in self._heard - heard:
            if self._labelled.pop((name, *labels), None) is not None:
                self._gauges[name].remove(*dict(labels).values())
        self._heard = heard
        for name, labels, value in said.gauges:
            self.gauge(name, value, **dict(labels))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format, for `/metrics`."""
        return generate_latest(self._registry)


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
