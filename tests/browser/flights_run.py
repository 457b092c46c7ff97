"""Reports, incidents and predictions of the flights pipeline, from a run over its real data without Kafka.

Quality is what `learning.watch` says. The rest is measured here the plain way, over all that was kept: population
stability against the first two weeks, an alarm where it goes over 0.25, and quantiles of the delays.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import numpy.typing as npt

from app.live import Board
from app.metrics import PrometheusMetrics
from learning.backtest import backtest
from learning.learn import Learner, copy_of
from learning.quality import Tally
from learning.records import Example, LogRecord, Prediction
from learning.reports import Alarm, Bin, FieldReport, Incident, Measures, Report
from learning.watch import Watch
from pipelines import flights as data_set
from pipelines.flights import flights

JANUARY = 26_000  # its flights in the data set, a few hundred less
HOUR_MS = 3_600_000
REFERENCE_MS = 14 * 24 * HOUR_MS
PSI_ALARM = 0.25  # the customary "major shift"
ROWS = 2_000  # events that the current window of the fields holds
START = 1_760_000_000_000  # of the clock on the wall, which a run over stored data does not have
LABELS_TOPIC = flights.labels.topic


class Fields:
    """The vectors of the first weeks, and the latest ones beside them."""

    def __init__(self) -> None:
        self.names = list(flights.feature_set.names)
        self._reference: list[list[float]] = []
        self._recent: deque[list[float]] = deque(maxlen=ROWS)
        self._since = 0
        self._old: list[Old] = []

    def add(self, prediction: Prediction) -> None:
        self._since = self._since or prediction.time_ms
        self._recent.append(prediction.features)
        if prediction.time_ms < self._since + REFERENCE_MS:
            self._reference.append(prediction.features)
        elif not self._old:
            self._old = [Old(column) for column in np.array(self._reference).T]

    def report(self) -> list[FieldReport]:
        now = np.array(self._recent)
        return [_field(name, old, now[:, i]) for i, (name, old) in enumerate(zip(self.names, self._old, strict=False))]


class Old:
    """A number of the vector as it was: its range, and its share of each tenth."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        finite = values[np.isfinite(values)]
        self.mean, self.low, self.high = float(finite.mean()), finite.min(), finite.max()
        self._edges = np.unique(np.quantile(finite, np.linspace(0, 1, 11))[1:-1])
        self.shares = self.shares_of(finite)

    def shares_of(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        counts = np.bincount(np.searchsorted(self._edges, values, "right"), minlength=len(self._edges) + 1)
        return (counts + 0.5) / (len(values) + 1)


def _field(name: str, old: Old, now: npt.NDArray[np.float64]) -> FieldReport:
    new = now[np.isfinite(now)]
    shares = old.shares_of(new)
    psi = float(((shares - old.shares) * np.log(shares / old.shares)).sum())
    return FieldReport(
        name=name,
        kind="feature",
        n=len(now),
        missing=float(1 - len(new) / len(now)),
        mean=float(new.mean()),
        reference_mean=old.mean,
        psi=psi,
        ks=float(np.abs(np.cumsum(shares - old.shares)).max()),
        constant=bool(new.min() == new.max()),
        outside=float(((new < old.low) | (new > old.high)).mean()),
        drifted=psi > PSI_ALARM,
    )


def stream(events: int) -> Iterator[Any]:
    """The first of the flights and their arrivals; of a few, only the beginning of the file is read, which is January."""
    rows = itertools.islice(data_set.read_flights(), 2 * events if events < JANUARY // 2 else None)
    with mock.patch.object(data_set, "read_flights", return_value=list(rows)):
        yield from itertools.islice(data_set.history(), 2 * events)


class FlightsRun:
    """Plays the stream.

    Args:
        events: how many flights.
        every: examples between two reports.
        freeze_after: examples after which a copy of the model stops learning.

    Attributes:
        metrics: what the owner of the log would serve at `/metrics`.
        board: fed with everything.
        reports: all of them.
    """

    def __init__(self, events: int, *, every: int, freeze_after: int) -> None:
        self.metrics = PrometheusMetrics()
        self.board = Board(flights.name, flights.description)
        self.reports: list[Report] = []
        self._every, self._freeze_after = every, freeze_after
        self._watch, self._learner, self._frozen = Watch(flights), Learner(flights), None
        self._fields = Fields()
        self._rolling = {name: deque[tuple[float, bool]](maxlen=flights.window) for name in ("base_rate", "last_label")}
        self._pairs: deque[tuple[float, bool]] = deque(maxlen=flights.window)
        self._delays: deque[float] = deque(maxlen=flights.window)
        self._examples = self._positives = self._agreed = self._predictions = 0
        self._last = False
        self._time = self._label_time = self._version = 0
        self._due: deque[int] = deque()
        self._overdue = 0
        self._alarms: list[Alarm] = []
        self._open: dict[str, Incident] = {}
        backtest(flights, stream(events), on_prediction=self._predicted, on_record=self._recorded)
        self._report()

    def _predicted(self, prediction: Prediction) -> None:
        self._fields.add(prediction)
        self._time, self._version = prediction.time_ms, prediction.version
        self._predictions += 1
        self._due.append(prediction.time_ms)
        self.board.add_predictions([prediction])
        self.metrics.count("events_total")
        self.metrics.count("predictions_total")

    def _recorded(self, offset: int, record: LogRecord) -> None:
        assert isinstance(record, Example)
        assert isinstance(record.prediction, float)
        frozen = None
        if self._examples == self._freeze_after:
            self._frozen = copy_of(self._learner.model)
        if self._frozen is not None:
            frozen = self._learner.predict_with(self._frozen, record.features)
        for event in self._watch.observe(offset, record, frozen):
            if event.signal == "loss":
                text = f"The loss changed: {event.detector} saw {event.value:.2f}"
                self._raise("loss", "loss", event.detector, event.value, 0.0, text)
        outcome = bool(record.outcome)
        self._rolling["base_rate"].append(((self._positives + 1) / (self._examples + 2), outcome))
        same = (self._agreed + 1) / (self._examples + 2)
        self._rolling["last_label"].append((same if self._last else 1 - same, outcome))
        self._agreed += outcome == self._last
        self._last = outcome
        self._examples += 1
        self._positives += outcome
        self._pairs.append((record.prediction, outcome))
        self._delays.append((record.label_time_ms - record.time_ms) / 1000)
        self._label_time = record.label_time_ms
        self._learner.apply(offset, record)
        self.metrics.count("labels_total", outcome="matched")
        self.metrics.observe("label_delay_seconds", self._delays[-1])
        self.board.add_outcome(record)
        if self._examples % self._every == 0:
            self._report()

    def _raise(self, kind: Any, signal: str, detector: str, value: float, threshold: float, text: str) -> None:
        wall = START + 2_000 * len(self.reports)
        alarm = Alarm(
            id=f"{signal}@{self._watch.offset}",
            kind=kind,
            signal=signal,
            detector=detector,
            time_ms=self._label_time,
            wall_ms=wall,
            version=self._version,
            offset=self._watch.offset,
            value=value,
            threshold=threshold,
            text=text,
        )
        self._alarms.append(alarm)
        incident = Incident(
            id=alarm.id,
            pipeline=flights.name,
            state="open",
            opened_ms=alarm.time_ms,
            opened_wall_ms=wall,
            since_ms=alarm.time_ms,
            cause="data" if kind == "feature" else "model",
            why="A field left its reference before the loss did." if kind == "feature" else "No field changed before.",
            alarms=[alarm],
            before={"log_loss": self._watch.report()["log_loss"]},
        )
        self._open[signal] = incident
        self.board.add_incident(incident)

    def _watched(self, fields: list[FieldReport]) -> Iterator[tuple[str, float]]:
        for field in fields:
            signal, share = f"feature:{field.name}", field.psi / PSI_ALARM
            yield signal, share
            if share > 1 and signal not in self._open:
                text = f"{field.name} left its reference: PSI {field.psi:.2f}"
                self._raise("feature", signal, "PSI", field.psi, PSI_ALARM, text)
        calm = {f"feature:{field.name}" for field in fields if field.psi < PSI_ALARM} | {"loss"}
        wall = START + 2_000 * len(self.reports)
        for signal, incident in list(self._open.items()):
            if signal in calm and self._label_time > incident.opened_ms + 24 * HOUR_MS:
                after = {"log_loss": self._watch.report()["rolling_log_loss"]}
                closed = msgspec.structs.replace(incident, state="closed", closed_wall_ms=wall, after=after)
                self.board.add_incident(closed)
                del self._open[signal]

    def _report(self) -> None:
        quality = self._watch.report()
        fields = self._fields.report()
        drift = dict(self._watched(fields))
        while self._due and self._due[0] < self._time - flights.horizon_ms:
            self._due.popleft()
            self._overdue += 1
        calibration, error = _reliability(np.array(self._pairs))
        report = Report(
            pipeline=flights.name,
            wall_ms=START + 2_000 * len(self.reports),
            time_ms=self._time,
            label_ms=self._label_time,
            offset=self._watch.offset,
            version=self._version,
            examples=self._examples,
            task=flights.task,
            quality={
                "total": _chosen(quality, ""),
                "rolling": _chosen(quality, "rolling_"),
                "frozen": _chosen(quality, "frozen_"),
                "since_frozen": _chosen(quality, "online_since_frozen_"),
            },
            baselines={f"rolling_{name}": _tally(pairs) for name, pairs in self._rolling.items()},
            calibration=calibration,
            calibration_error=error,
            label_delay={f"p{q}": float(np.quantile(list(self._delays), q / 100)) for q in (50, 90, 99)},
            coverage=min(self._examples / self._overdue, 1.0) if self._overdue else -1.0,
            fields=fields,
            drift=drift,
            budget=1 / 30,
            alarms=self._alarms[-20:],
            incidents=[incident.id for incident in self._open.values()],
            events_per_second=self._every / 2.0,
            lag={flights.events.topic: self._predictions % 7, LABELS_TOPIC: self._examples % 5},
            model_lag=self._watch.offset % 3,
            units={"worker-1": [0, 1], "worker-2": [2, 3]},
        )
        self.reports.append(report)
        self.board.add_report(report)
        for name, value in quality.items():
            self.metrics.gauge("quality", value, metric=name)
        self.metrics.gauge("model_version", self._watch.offset + 1)
        self.metrics.gauge("model_lag", report.model_lag)


def _chosen(quality: Measures, prefix: str) -> Measures:
    """Measures under this prefix; without one, those that have none."""
    if prefix:
        return {k.removeprefix(prefix): v for k, v in quality.items() if k.startswith(prefix)}
    return {k: v for k, v in quality.items() if not k.startswith(("rolling_", "frozen_", "online_", "base_rate"))}


def _tally(pairs: "deque[tuple[float, bool]]") -> Measures:
    tally = Tally(flights.task, flights.threshold)
    for value, outcome in pairs:
        tally.add(value, outcome)
    return {name: value for name, value in tally.report().items() if not name.startswith("base_rate")}


def _reliability(pairs: npt.NDArray[np.float64]) -> tuple[list[Bin], float]:
    bins = np.minimum((pairs[:, 0] * 10).astype(int), 9)
    chosen = [pairs[bins == number] for number in range(10) if (bins == number).any()]
    curve = [Bin(len(part), float(part[:, 0].mean()), float(part[:, 1].mean())) for part in chosen]
    return curve, sum(b.n * abs(b.predicted - b.observed) for b in curve) / len(pairs)
