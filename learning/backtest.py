"""Runs a pipeline over its own history without Kafka: the same score, join and learn steps, labels in time order.

`headwater backtest` shows the result, and it is the oracle that tests hold the Kafka path against.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from learning.baselines import BASELINES, Baselines
from learning.intake import Invalid, read_outcome
from learning.label import LATEST, PendingLabels, Resolution
from learning.learn import Learner, ModelError, copy_of
from learning.negatives import is_kept
from learning.quality import Point, Report, measured, point_of
from learning.records import Example, LogRecord, Outcome, Prediction
from learning.score import Duplicate, score

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

PROGRESS_EVERY = 1_000


class _Who(msgspec.Struct):
    """Points of one predictor: of all examples, and of those since there is a frozen copy."""

    total: list[Point] = []
    since: list[Point] = []


class BacktestResult(msgspec.Struct, frozen=True):
    """What became of every event and label, and how good the predictions were.

    Attributes:
        events: events read. Each is a prediction, a duplicate or a dead letter.
        predictions: predictions made.
        duplicate_events: events whose id was there before.
        late_events: events scored but too old for some window to count.
        labels: labels read. Each is matched, early, duplicate, corrected, late or a dead letter.
        examples: records the model learned.
        left_out: negatives it did not learn, as the pipeline's `negatives` says.
        matched: predictions that met their label, early labels included.
        early: labels that came before their event.
        duplicate: labels that said again what was known.
        corrected: labels that changed a known outcome.
        late: labels that came after their event's horizon.
        expired: predictions whose label did not come within the horizon.
        orphan: early labels whose event never came.
        waiting: predictions still without outcome at the end.
        dead_letters: events and labels that could not be used.
        model_errors: examples on which the model, or its frozen copy, raised.
        metrics: measures over all examples, by the model that kept learning; `since_frozen_...` over the
            predictions made at or after `freeze_at`, where that was given.
        frozen: the `since_frozen_...` measures of the copy that stopped learning then, on the same predictions.
        baselines: the same measures as `metrics`, over the same examples, of each of `learning.baselines.BASELINES`.
        calibration: reliability of the probabilities in ten bins: how many, their mean, the share that came true; empty
            where predictions are no probabilities.
    """

    events: int
    predictions: int
    duplicate_events: int
    late_events: int
    labels: int
    examples: int
    left_out: int
    matched: int
    early: int
    duplicate: int
    corrected: int
    late: int
    expired: int
    orphan: int
    waiting: int
    dead_letters: int
    model_errors: int
    metrics: Report
    frozen: Report | None
    baselines: dict[str, Report]
    calibration: list[tuple[int, float, float]]


def backtest(
    pipeline: "Pipeline",
    items: Iterable[Any],
    *,
    progress: Callable[[int], None] | None = None,
    freeze_at: int | None = None,
    on_prediction: Callable[[Prediction], None] | None = None,
    on_record: Callable[[int, LogRecord], None] | None = None,
    reset: Callable[[int], bool] | None = None,
) -> BacktestResult:
    """Run over events and labels that come merged in time order.

    Args:
        pipeline: the pipeline.
        items: its events and labels.
        progress: called with the number of items so far, every 1,000 items and at the end.
        freeze_at: time in ms from which on a copy of the model that stops learning is scored beside.
        on_prediction: called with each prediction.
        on_record: called with each record of the training log and its offset, before it is learned.
        reset: asked at each offset of the log, after `on_record`, whether the model begins anew with this record.
    """
    run = _Run(pipeline, freeze_at, on_prediction, on_record, reset)
    number = 0
    for number, item in enumerate(items, 1):  # read after the loop
        run.take(item)
        if progress is not None and number % PROGRESS_EVERY == 0:
            progress(number)
    if progress is not None:
        progress(number)
    return run.result()


class _Run:
    def __init__(
        self,
        pipeline: "Pipeline",
        freeze_at: int | None,
        on_prediction: Callable[[Prediction], None] | None,
        on_record: Callable[[int, LogRecord], None] | None,
        reset: Callable[[int], bool] | None,
    ) -> None:
        self._pipeline = pipeline
        self._learner = Learner(pipeline)
        self._profiles: dict[str, Any] = {}
        self._pending = PendingLabels(
            {},
            horizon_ms=pipeline.horizon_ms,
            expired=pipeline.expired,
            corrected=pipeline.corrected,
            negatives=pipeline.negatives,
        )
        # Here the vectors that the log does without are at hand, so the frozen copy is asked about every example.
        self._vectors: dict[str, list[float]] = {}
        self._freeze_at = freeze_at
        self._frozen: Any = None
        self._on_prediction = on_prediction
        self._on_record = on_record
        self._reset = reset
        self._offset = 0
        self._counts: Counter[str] = Counter()
        self._baselines = Baselines(pipeline.task)
        self._outcomes: list[Outcome] = []
        self._outcomes_since: list[Outcome] = []
        self._points = {name: _Who() for name in ("model", "frozen", *BASELINES)}

    def take(self, item: Any) -> None:
        """One event or label, then whatever its time makes expire."""
        is_event = isinstance(item, self._pipeline.events.struct)
        stream = self._pipeline.events if is_event else self._pipeline.labels
        time_ms = stream.time_of(item)
        if self._freeze_at is not None and self._frozen is None and time_ms >= self._freeze_at:
            self._frozen = copy_of(self._learner.model)
        try:
            if is_event:
                self._event(item, time_ms)
            else:
                self._label(item, time_ms)
        except Invalid:
            self._counts["dead_letters"] += 1
        for resolution in self._pending.expire(labels_to=LATEST, events_to=LATEST):
            self._resolved(resolution)

    def result(self) -> BacktestResult:
        """The counts and measures so far."""
        pipeline, counts = self._pipeline, self._counts
        metrics = {name: self._measures(who) for name, who in self._points.items()}
        frozen = metrics.pop("frozen")
        calibration = measured(pipeline.task, pipeline.threshold, self._points["model"].total, self._outcomes)[1].bins()
        own = {"examples", "waiting", "metrics", "frozen", "baselines", "calibration"}
        names = set(BacktestResult.__struct_fields__) - own
        return BacktestResult(
            **{name: counts[name] for name in names},
            examples=self._learner.examples,
            waiting=counts["predictions"] - counts["matched"] - counts["expired"],
            metrics=metrics.pop("model"),
            frozen=None if self._frozen is None else frozen,
            baselines=metrics,
            calibration=calibration,
        )

    def _event(self, event: Any, time_ms: int) -> None:
        stream = self._pipeline.events
        number = self._counts["events"]
        self._counts["events"] += 1
        name = stream.id_of(event) or f"{stream.topic}-0-{number}"
        scored = score(
            self._pipeline,
            self._learner,
            self._profiles,
            self._pending,
            event,
            stream.key_of(event),
            name,
            time_ms,
        )
        if isinstance(scored, Duplicate):
            self._counts["duplicate_events"] += 1
            return
        self._counts["predictions"] += 1
        self._counts["late_events"] += scored.late
        if self._on_prediction is not None:
            self._on_prediction(scored.prediction)
        if self._freeze_at is not None and not is_kept(name, self._pipeline.negatives):
            self._vectors[name] = scored.prediction.features
        if scored.resolution is not None:
            self._resolved(scored.resolution)

    def _label(self, label: Any, time_ms: int) -> None:
        stream = self._pipeline.labels
        self._counts["labels"] += 1
        outcome = read_outcome(self._pipeline, label)
        name = stream.id_of(label)
        if name is None:
            raise Invalid(reason="invalid", message="got a label without id, expected its event's id")
        self._resolved(self._pending.resolve(name, stream.key_of(label), outcome, time_ms))

    def _resolved(self, resolution: Resolution) -> None:
        self._counts[resolution.kind] += 1
        vector = self._vectors.pop(resolution.id, None) if resolution.kind in ("matched", "expired") else None
        record = resolution.record
        if record is None:
            return
        if self._on_record is not None:
            self._on_record(self._offset, record)
        if isinstance(record, Example):
            self._counts["left_out"] += not record.kept
            if record.source != "correction":
                self._scored(record, record.features if vector is None else vector)
        if self._reset is not None and self._reset(self._offset):
            self._learner.model = self._pipeline.model()
        try:
            self._learner.apply(self._offset, record)
        except ModelError:
            self._counts["model_errors"] += 1
        self._offset += 1

    def _scored(self, example: Example, vector: list[float]) -> None:
        said = {
            "model": example.prediction,
            "base_rate": self._baselines.base_rate(),
            "last_label": self._baselines.last_label(),
        }
        self._baselines.learn(example.outcome)
        points = {name: point_of(value, example.outcome) for name, value in said.items()}
        self._outcomes.append(example.outcome)
        for name, point in points.items():
            self._points[name].total.append(point)
        if self._frozen is None or self._freeze_at is None or example.time_ms < self._freeze_at:
            return
        try:
            frozen = self._learner.predict_with(self._frozen, vector)
        except ModelError:
            self._counts["model_errors"] += 1
            return
        self._outcomes_since.append(example.outcome)
        for name, point in (points | {"frozen": point_of(frozen, example.outcome)}).items():
            self._points[name].since.append(point)

    def _measures(self, who: _Who) -> Report:
        """Measures over all that it said, and `since_frozen_` ones."""
        task, threshold = self._pipeline.task, self._pipeline.threshold
        since = measured(task, threshold, who.since, self._outcomes_since)[0] if who.since else {}
        total = measured(task, threshold, who.total, self._outcomes)[0] if who.total else {}
        return total | {f"since_frozen_{name}": value for name, value in since.items()}
