"""Prometheus backend of the metric catalogue; `create_app` makes one and passes it to every room that measures."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

from streaming.telemetry import CATALOGUE, PREFIX, CounterName, GaugeName, HistogramName, Metric, MetricName

CONTENT_TYPE = CONTENT_TYPE_LATEST

Labels = tuple[tuple[str, str], ...]


class _Observed:
    """How often which values were observed, by bucket."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

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
        self._counts: dict[MetricName, dict[Labels, float]] = {}
        self._observed: dict[MetricName, dict[Labels, _Observed]] = {}
        for name, metric in CATALOGUE.items():
            if metric.kind == "counter":
                self._counts[name] = {((metric.labels[0], value),): 0.0 for value in metric.known}
                if not metric.labels:
                    self._counts[name][()] = 0.0
            elif metric.kind == "histogram":
                self._observed[name] = {} if metric.labels else {(): _Observed(metric.buckets)}

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

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """All of them, as Prometheus' library has them."""
        for name, counts in self._counts.items():
            metric = CATALOGUE[name]
            counter = CounterMetricFamily(PREFIX + name, metric.help, labels=metric.labels)
            for labels, value in counts.items():
                counter.add_metric(_values(metric, labels), value)
            yield counter
        for name, observed in self._observed.items():
            metric = CATALOGUE[name]
            histogram = HistogramMetricFamily(PREFIX + name, metric.help, labels=metric.labels)
            for labels, one in observed.items():
                histogram.add_metric(_values(metric, labels), one.buckets(), one.sum)
            yield histogram


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
            name: Gauge(PREFIX + name, metric.help, metric.labels, registry=self._registry)
            for name, metric in CATALOGUE.items()
            if metric.kind == "gauge"
        }
        self._labelled: dict[tuple[object, ...], Gauge] = {}  # finding a labelled one costs more than setting it

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
