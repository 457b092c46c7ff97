"""Reports, incidents and predictions of the flights pipeline, from a run over its real data without Kafka.

Quality is what `learning.watch` says. The rest is measured here the plain way, over all that was kept: population
stability against the first four weeks, an alarm where it goes over 0.25, and quantiles of the delays.
"""

import itertools
import time
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
REFERENCE_MS = 28 * 24 * HOUR_MS
PSI_ALARM = 0.25  # the customary "major shift"
ROWS = 6_000  # events that the current window of the fields holds


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
    """The first of the flights and their arrivals; for a few, only the file's beginning is read: January."""
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
        self._above: set[str] = set()
        self._incident: Incident | None = None
        self._at = (time.monotonic(), 0)
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
        self._watch.observe(offset, record, frozen)
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

    def _watched(self, fields: list[FieldReport]) -> Iterator[tuple[str, float]]:
        """Share of the threshold by signal. What goes over it while an incident is open belongs to that."""
        for field in fields:
            signal = f"feature:{field.name}"
            yield signal, field.psi / PSI_ALARM
            if field.drifted and signal not in self._above:
                self._above.add(signal)
                self._raise(field, signal)
            elif not field.drifted:
                self._above.discard(signal)
        if self._incident is not None and not self._above:
            after = {"log_loss": self._watch.report()["rolling_log_loss"]}
            closed = msgspec.structs.replace(self._incident, state="closed", closed_wall_ms=wall_ms(), after=after)
            self.board.add_incident(closed)
            self._incident = None

    def _raise(self, field: FieldReport, signal: str) -> None:
        alarm = Alarm(
            id=f"{signal}@{self._watch.offset}",
            kind="feature",
            signal=signal,
            detector="PSI",
            time_ms=self._time,
            wall_ms=wall_ms(),
            version=self._version,
            offset=self._watch.offset,
            value=field.psi,
            threshold=PSI_ALARM,
            text=f"{field.name} is {field.mean:.4g} on average, {field.reference_mean:.4g} before.",
        )
        self._alarms.append(alarm)
        if self._incident is None:
            self._incident = Incident(
                id=alarm.id,
                pipeline=flights.name,
                state="open",
                opened_ms=alarm.time_ms,
                opened_wall_ms=alarm.wall_ms,
                since_ms=alarm.time_ms,
                cause="data",
                why="Fields have left their reference.",
                alarms=[alarm],
                before={"log_loss": self._watch.report()["rolling_log_loss"]},
            )
        else:
            alarms = [*self._incident.alarms, alarm]
            self._incident = msgspec.structs.replace(self._incident, alarms=alarms)
        self.board.add_incident(self._incident)

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
            wall_ms=wall_ms(),
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
            incidents=[] if self._incident is None else [self._incident.id],
            events_per_second=self._rate(),
            lag={flights.events.topic: 0, flights.labels.topic: 0},  # there is no broker to lag behind
        )
        self.reports.append(report)
        self.board.add_report(report)
        for name, value in quality.items():
            self.metrics.gauge("quality", value, metric=name)
        self.metrics.gauge("model_version", self._watch.offset + 1)
        self.metrics.gauge("model_lag", report.model_lag)

    def _rate(self) -> float:
        """Events a second since the last report."""
        at, events = self._at
        self._at = (time.monotonic(), self._predictions)
        return (self._predictions - events) / max(self._at[0] - at, 1e-3)


def wall_ms() -> int:
    """The clock on the wall."""
    return int(time.time() * 1000)


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
