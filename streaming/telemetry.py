"""The catalogue of metrics, and the door through which every room counts.

A name that is not in a `Literal` here does not type-check, and docs/metrics.md is generated from `CATALOGUE`.
`app.metrics` sends them to Prometheus; tests use `RecordingMetrics`.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, get_args

import msgspec

from learning.intake import DeadLetterReason
from learning.label import Kind as Outcome
from learning.reports import AlarmKind
from learning.snapshots import Kind as Refusal

PREFIX = "headwater_"

CounterName = Literal[
    "events_total",
    "predictions_total",
    "labels_total",
    "duplicate_events_total",
    "late_events_total",
    "training_examples_total",
    "negatives_left_out_total",
    "model_errors_total",
    "drift_total",
    "alarms_total",
    "dead_letters_total",
    "snapshots_total",
    "snapshots_refused_total",
]
GaugeName = Literal[
    "model_version",
    "model_lag",
    "learning_frozen",
    "control_offset",
    "quality",
    "input",
    "drift_level",
    "label_coverage",
    "incidents_open",
    "consumer_lag",
    "ready",
    "recovery_seconds",
    "snapshot_version",
]
HistogramName = Literal["label_delay_seconds", "checkpoint_seconds", "snapshot_seconds"]
MetricName = CounterName | GaugeName | HistogramName

OWNERS_GAUGES: tuple[GaugeName, ...] = (
    "consumer_lag",
    "quality",
    "input",
    "drift_level",
    "label_coverage",
    "incidents_open",
)
"""What only the owner of a unit can say."""

OF_WHO_WATCHES: tuple[MetricName, ...] = (
    *OWNERS_GAUGES,
    "drift_total",
    "alarms_total",
    "dead_letters_total",
    "snapshots_total",
    "snapshots_refused_total",
    "snapshot_version",
    "checkpoint_seconds",
    "snapshot_seconds",
)
"""What a process that watches says for a worker of two. The rest is of the model, which the other one has as well."""

Kind = Literal["counter", "gauge", "histogram"]

SECONDS_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SECONDS_LONG = (
    1.0,
    10.0,
    60.0,
    600.0,
    3_600.0,
    10_800.0,
    21_600.0,
    43_200.0,
    86_400.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
)


class Metric(msgspec.Struct, frozen=True):
    """One line of the catalogue.

    Attributes:
        kind: counter, gauge or histogram.
        help: what it says, and what to do about it where there is something to do.
        labels: names of its labels.
        values: for each label, what bounds its set of values.
        buckets: upper bounds, for histograms.
        known: values of its one label that are known beforehand. These series are there from the start, at 0: one that
            appears with its first count has not risen, so no alert on a rate would see that count.
    """

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known: tuple[str, ...] = ()


CATALOGUE: Mapping[MetricName, Metric] = {
    "events_total": Metric("counter", "Event records read, whatever became of them."),
    "predictions_total": Metric("counter", "Predictions made."),
    "labels_total": Metric(
        "counter",
        "Labels and expiries by what became of them. Many `orphan`: labels come for events that never did, or"
        " the horizon is too short. Many `late`: the horizon is too short.",
        ("outcome",),
        ("matched, early, duplicate, corrected, late, expired, orphan",),
        known=get_args(Outcome),
    ),
    "duplicate_events_total": Metric("counter", "Events dropped because their id was already pending or resolved."),
    "late_events_total": Metric("counter", "Events scored but older than some window reaches, so not added to it."),
    "training_examples_total": Metric("counter", "Examples the model of this worker has learned."),
    "negatives_left_out_total": Metric(
        "counter", "Negatives that the model of this worker has passed over, as the pipeline's `negatives` says."
    ),
    "model_errors_total": Metric(
        "counter",
        "Examples on which the model raised, so they were passed over; each is a dead letter too. Should stay 0.",
    ),
    "drift_total": Metric("counter", "Drift detections.", ("signal",), ("the pipeline's monitors",)),
    "dead_letters_total": Metric(
        "counter",
        "Records that could not be used and went to the dead letters, by reason. Read them with"
        " `headwater tail dead-letters`.",
        ("reason",),
        ("learning.intake.DeadLetterReason",),
        known=get_args(DeadLetterReason),
    ),
    "alarms_total": Metric(
        "counter",
        "Alarms raised. Each is part of an incident: `headwater incident`.",
        ("kind",),
        ("learning.reports.AlarmKind",),
        known=get_args(AlarmKind),
    ),
    "input": Metric(
        "gauge",
        "How a feature or a field of the events is beside its reference: `psi`, `ks` and the share that is `missing`."
        " Only on the worker that owns the training log.",
        ("field", "statistic"),
        ("the pipeline's features and fields", "psi, ks, missing"),
    ),
    "drift_level": Metric(
        "gauge",
        "How much of its threshold a signal has reached; `data` is that of all inputs together, and 1 is an alarm. Only"
        " on the worker that owns the training log.",
        ("signal",),
        ("data, loss, label_delay, prediction, and the pipeline's features and fields",),
    ),
    "label_coverage": Metric(
        "gauge",
        "Share of predictions older than the horizon that got a label; -1 where there are none. Only on the worker that"
        " owns the training log.",
        ("pipeline",),
        ("one",),
    ),
    "incidents_open": Metric(
        "gauge",
        "Open incidents: `headwater incident`. Only on the worker that owns the training log.",
        ("pipeline",),
        ("one",),
    ),
    "model_version": Metric("gauge", "Version of the model that scores now: an offset in the training log."),
    "model_lag": Metric(
        "gauge",
        "Training-log records this worker has not learned yet. Growing: one core cannot learn that fast.",
    ),
    "learning_frozen": Metric("gauge", "1 while `headwater freeze` holds learning, 0 otherwise."),
    "control_offset": Metric(
        "gauge",
        "Offset in the training log of the last control record that this worker has followed; -1 where there is none.",
    ),
    "quality": Metric(
        "gauge",
        "Prequential quality (predicted before learned), only on the worker that owns the training log.",
        ("metric",),
        ("what it is over, then the measure, as below",),
    ),
    "consumer_lag": Metric(
        "gauge",
        "Records of a source partition not processed yet. Growing on all: add workers; on one: a hot key.",
        ("topic", "partition"),
        ("events, labels, training log and summaries topic", "partitions this worker owns"),
    ),
    "ready": Metric(
        "gauge",
        "1 while this worker predicts, 0 while it starts or recovers; as `/health/ready`.",
        ("pipeline",),
        ("one",),
    ),
    "snapshots_total": Metric("counter", "Snapshots of the model written by this worker."),
    "snapshots_refused_total": Metric(
        "counter",
        "Snapshots found at the start and not used, or not written, by what was wrong. The model comes from an older"
        " one, or from the training log.",
        ("kind",),
        ("learning.snapshots.Kind, write_failed",),
        known=(*get_args(Refusal), "write_failed"),
    ),
    "snapshot_version": Metric("gauge", "Version of the newest snapshot that this worker has written or started from."),
    "recovery_seconds": Metric("gauge", "How long the last recovery of assigned partitions took."),
    "label_delay_seconds": Metric(
        "histogram", "Event time of the label minus event time of its event.", buckets=SECONDS_LONG
    ),
    "snapshot_seconds": Metric(
        "histogram", "Time the model is not learning nor predicting while a snapshot is taken.", buckets=SECONDS_SHORT
    ),
    "checkpoint_seconds": Metric(
        "histogram", "Duration of a checkpoint, from its cut to its commit.", buckets=SECONDS_SHORT
    ),
}


class Metrics(Protocol):
    """Where measurements go. Calls never block, never raise and never await."""

    def counter(self, name: CounterName, **labels: str) -> Callable[[], None]:
        """What adds one to a counter, for whoever does so with every event: finding it costs more than adding."""

    def histogram(self, name: HistogramName, **labels: str) -> Callable[[float], None]:
        """What adds one observation to a histogram, likewise."""

    def count(self, name: CounterName, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""

    def gauge(self, name: GaugeName, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: HistogramName, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""

    def forget(self, name: GaugeName) -> None:
        """Say no more what a gauge with labels stood at; it is another worker's to say."""


class NullMetrics:
    """Metrics for whoever does not measure."""

    def counter(self, name: CounterName, **labels: str) -> Callable[[], None]:
        """What does nothing."""
        return lambda: None

    def histogram(self, name: HistogramName, **labels: str) -> Callable[[float], None]:
        """What does nothing."""
        return lambda _: None

    def count(self, name: CounterName, value: float = 1.0, **labels: str) -> None:
        """Do nothing."""

    def gauge(self, name: GaugeName, value: float, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: HistogramName, value: float, **labels: str) -> None:
        """Do nothing."""

    def forget(self, name: GaugeName) -> None:
        """Do nothing."""


Sample = tuple[str, tuple[tuple[str, str], ...]]


class RecordingMetrics:
    """A double that remembers everything and refuses what the catalogue does not know.

    >>> metrics = RecordingMetrics()
    >>> metrics.count("labels_total", outcome="matched")
    >>> metrics.count("labels_total", 2, outcome="matched")
    >>> metrics.value("labels_total", outcome="matched")
    3.0
    """

    def __init__(self) -> None:
        self.values: dict[Sample, float] = {}
        self.observations: dict[Sample, list[float]] = {}

    def counter(self, name: CounterName, **labels: str) -> Callable[[], None]:
        """What adds one to a counter."""
        self._sample(name, "counter", labels)
        return lambda: self.count(name, 1.0, **labels)

    def histogram(self, name: HistogramName, **labels: str) -> Callable[[float], None]:
        """What adds one observation to a histogram."""
        self._sample(name, "histogram", labels)
        return lambda value: self.observe(name, value, **labels)

    def count(self, name: CounterName, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        sample = self._sample(name, "counter", labels)
        self.values[sample] = self.values.get(sample, 0.0) + value

    def gauge(self, name: GaugeName, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.values[self._sample(name, "gauge", labels)] = value

    def observe(self, name: HistogramName, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        self.observations.setdefault(self._sample(name, "histogram", labels), []).append(value)

    def forget(self, name: GaugeName) -> None:
        """Remove every value of a gauge."""
        self.values = {sample: value for sample, value in self.values.items() if sample[0] != name}

    def value(self, name: CounterName | GaugeName, **labels: str) -> float:
        """What a counter or gauge stands at; 0.0 where nothing was recorded."""
        return self.values.get((name, tuple(sorted(labels.items()))), 0.0)

    def _sample(self, name: MetricName, kind: Kind, labels: Mapping[str, str]) -> Sample:
        metric = CATALOGUE[name]
        if metric.kind != kind or set(metric.labels) != set(labels):
            message = f"{name} is a {metric.kind} with labels {metric.labels}, got a {kind} with {tuple(labels)}"
            raise ValueError(message)
        return name, tuple(sorted(labels.items()))


COUNTERS: tuple[CounterName, ...] = get_args(CounterName)
GAUGES: tuple[GaugeName, ...] = get_args(GaugeName)
HISTOGRAMS: tuple[HistogramName, ...] = get_args(HistogramName)
