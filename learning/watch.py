"""Watches the model: scores each recorded prediction against its outcome, and feeds the drift detectors.

One owner of the training log calls it, with many records at a time or one. Prequential: the prediction was made before
the outcome was known and by the version that made it, so nothing is ever scored by a model that has learned it.
"""

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from river import base

from learning import pickles, reports
from learning.baselines import BASELINES, Baselines
from learning.delays import Delays, exact_quantiles
from learning.quality import COARSE, Curve, Point, Points, Report, Tally, are_wrong, measured, point_of
from learning.records import DriftEvent, LogRecord, Outcome, Value
from learning.scored import Bools, Ints, Rows, Scored
from learning.vectors import Floats
from learning.windows import Cohorts, SpanTally

if TYPE_CHECKING:
    from pipelines.definition import Monitor, Pipeline

_LAYOUT = 3

# What the measures are over, by the prefix of their names; docs/metrics.md is made from it.
OVER = {
    "": "all examples so far",
    "rolling_": "the last examples, as many as the pipeline's `window`",
    "recent_": "those whose event lies in the last `span` of the pipeline, by event time",
    "mature_": "those whose event is older than the horizon, so that slow labels are there too",
    "frozen_": "what the frozen copy says, of all examples since there is one; where the pipeline learns a share of the"
    " negatives, of those with a vector, weighted so that they stand for all",
    "online_since_frozen_": "the same examples as `frozen_`, by the model that keeps learning",
    "base_rate_": "all examples, by a predictor that says how often each outcome has come, or the mean",
    "last_label_": "all examples, by one that says what came last, as a probability as far as outcomes persist",
    "rolling_base_rate_": "the last examples, by the first of these",
    "rolling_last_label_": "by the second",
}

_BATCH = 1024  # examples that are folded at once, which costs the less for each the more there are


class _Batch(NamedTuple):
    """What is counted of scored examples, a column for each thing, as `learning.scored.Scored` has them.

    Attributes:
        outcomes: what came.
        points: of the model.
        times: event times in ms.
        label_times: in ms.
        labelled: whether it came as a label.
        frozen: points of the frozen copy, no numbers where it says nothing.
    """

    outcomes: npt.NDArray[Any]
    points: Floats
    times: Ints
    label_times: Ints
    labelled: Bools
    frozen: Floats

    def cut(self, *at: int | None) -> "_Batch":
        """Those of a slice."""
        return _Batch._make(column[slice(*at)] for column in self)


class _Recent(NamedTuple):
    """The last examples, as many as the pipeline's `window`; columns as in `_Batch`.

    Attributes:
        outcomes: what came.
        said: points of the model, and of each baseline.
        delays: how long the label took in ms, 0 where it is none.
        labelled: whether it is one.
    """

    outcomes: npt.NDArray[Any]
    said: list[Floats]
    delays: Ints
    labelled: Bools

    def then(self, later: "_Recent") -> "_Recent":
        """These and those that came later."""
        said = [np.concatenate(each) for each in zip(self.said, later.said, strict=True)]
        outcomes, delays, labelled = (
            np.concatenate(each)
            for each in ((self.outcomes, later.outcomes), (self.delays, later.delays), (self.labelled, later.labelled))
        )
        return _Recent(outcomes, said, delays, labelled)

    def last(self, n: int) -> "_Recent":
        """The last of these."""
        return _Recent(self.outcomes[-n:], [said[-n:] for said in self.said], self.delays[-n:], self.labelled[-n:])


def by_metric(quality: Mapping[str, Report], baselines: Mapping[str, Report]) -> Report:
    """Measures by what they are over, as a `learning.reports.Report` has them, under the names of `OVER`."""
    found = dict(quality.get("total", {}))
    for over, measures in {**quality, **baselines}.items():
        if over != "total":
            prefix = "online_since_frozen" if over == "since_frozen" else over
            found |= {f"{prefix}_{name}": value for name, value in measures.items()}
    return found


class _Monitored:
    """One drift detector, the signal it is fed, and how often it has fired."""

    def __init__(self, pipeline: "Pipeline", monitor: "Monitor") -> None:
        self.signal: str = monitor.signal
        self.detector: Any = monitor.detector()
        self.detections = 0
        self._task = pipeline.task
        self._threshold = pipeline.threshold
        kind, _, feature = self.signal.partition(":")
        self._kind = kind
        self._index = list(pipeline.feature_set.names).index(feature) if kind == "feature" else -1
        self._errors_only = isinstance(self.detector, base.BinaryDriftDetector)

    def feed(self, scored: Scored) -> list[tuple[int, float, int]]:
        """Where the detector fired: the example's place, the signal there, and how often it has fired by then."""
        detector, fired = self.detector, []
        update = detector.update
        values, places = self._values(scored)
        for number, value in enumerate(values.tolist()):
            update(value)
            if detector.drift_detected:
                self.detections += 1
                fired.append((number if places is None else int(places[number]), float(value), self.detections))
        return fired

    def _values(self, scored: Scored) -> tuple[npt.NDArray[Any], Ints | None]:
        """The signal, and the places of the examples that have one, None where all do: features are of those kept."""
        if self._kind == "feature":
            signal = scored.vectors[:, self._index]
            return (signal, None) if scored.kept.all() else (signal[scored.kept], np.flatnonzero(scored.kept))
        if self._kind == "prediction":
            return scored.points[:, 1] if self._task == "multiclass" else scored.points, None
        if self._errors_only:  # River's detectors for error rates read right or wrong, not how much
            return are_wrong(self._task, scored.points, scored.outcomes, self._threshold), None
        return scored.costs, None


class _Quality:
    """All that is counted of scored examples, in fixed memory.

    Sums of floats depend on how they are grouped. So what is the same log must be folded in the same batches, wherever
    between them a watch was saved or asked.

    What the frozen copy says is known of examples with a vector only. So where a share of the negatives is learned,
    each of these stands for several. They are counted apart, to be weighted when somebody asks.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        make = partial(Tally, pipeline.task, pipeline.threshold)
        self._points = partial(Points, pipeline.task, pipeline.threshold)
        self._share: float = pipeline.negatives
        self.total, self.frozen, self.since = make(), make(), make()
        self._negatives = [make(), make()] if self._share < 1.0 else []  # of the frozen copy, and since there is one
        self.beside = [make(COARSE) for _ in BASELINES]
        self.span = SpanTally(partial(make, COARSE), pipeline.span_ms)
        self.cohorts = Cohorts(partial(make, COARSE), pipeline.horizon_ms)
        self.delays = Delays()
        self.baselines = Baselines(pipeline.task)
        self.recent: _Recent | None = None
        self._window: int = pipeline.window

    def fold(self, batch: _Batch) -> None:
        """Count these, one at least."""
        outcomes, times, label_times = batch.outcomes, batch.times, batch.label_times
        beside = self.baselines.go_through(outcomes)
        for tally, said in zip(self.beside, beside, strict=True):
            self._points(said, outcomes).to(tally)
        points = self._points(batch.points, outcomes)
        points.to(self.total)
        self.span.take_all(times, points)
        self.cohorts.take_all(times, label_times, batch.labelled, points)
        delays = np.where(batch.labelled, label_times - times, 0)
        self.delays.add_all(delays[batch.labelled])
        self._fold_frozen(points, batch.frozen, outcomes)
        self._remember(_Recent(outcomes, [batch.points, *beside], delays, batch.labelled))

    def _remember(self, later: _Recent) -> None:
        both = later if self.recent is None else self.recent.then(later)
        self.recent = both.last(self._window)

    def _fold_frozen(self, own: Points, frozen: Floats, outcomes: npt.NDArray[Any]) -> None:
        since = np.flatnonzero(_said(frozen))
        if not len(since):
            return
        if len(since) < len(frozen):
            own, frozen, outcomes = own.only(since), frozen[since], outcomes[since]
        said = self._points(frozen, outcomes)
        if not self._negatives:
            said.to(self.frozen)
            own.to(self.since)
            return
        for truth, tallies in ((True, (self.frozen, self.since)), (False, self._negatives)):
            at = np.flatnonzero(outcomes == truth)
            for points, tally in zip((said, own), tallies, strict=True):
                points.only(at).to(tally)

    def frozen_report(self) -> Report:
        """How good the frozen copy is."""
        return self._weighted(self.frozen, 0).report()

    def since_report(self) -> Report:
        """How good the model is over the same examples."""
        return self._weighted(self.since, 1).report()

    def _weighted(self, tally: Tally, which: int) -> Tally:
        """What it would have counted of all negatives, by inverse probability (Horvitz and Thompson, 1952)."""
        if not self._negatives:
            return tally
        whole = Tally(tally.task, tally.threshold)
        whole.merge(tally)
        whole.merge(self._negatives[which].times(1.0 / self._share))
        return whole

    def state(self) -> dict[str, Any]:
        """Everything in it, in plain containers that are its own."""
        return {
            "tallies": [tally.state() for tally in self._tallies()],
            "span": self.span.state(),
            "cohorts": self.cohorts.state(),
            "delays": dict(self.delays.bins),
            "baselines": self.baselines.state(),
            "recent": [] if self.recent is None else _saved(self.recent),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        for tally, saved in zip(self._tallies(), state["tallies"], strict=True):
            tally.restore(saved)
        self.span.restore(state["span"])
        self.cohorts.restore(state["cohorts"])
        self.delays.bins = dict(state["delays"])
        self.baselines.restore(state["baselines"])
        self.recent = _recent_of(state["recent"]) if state["recent"] else None

    def _tallies(self) -> list[Tally]:
        return [self.total, self.frozen, self.since, *self.beside, *self._negatives]


def _saved(recent: _Recent) -> list[tuple[Outcome, tuple[Point, ...], int | None]]:
    """The last examples in plain containers."""
    delays = [
        delay if labelled else None
        for delay, labelled in zip(recent.delays.tolist(), recent.labelled.tolist(), strict=True)
    ]
    said = zip(*map(_plain, recent.said), strict=True)
    return list(zip(recent.outcomes.tolist(), said, delays, strict=True))


def _recent_of(saved: Sequence[tuple[Outcome, tuple[Point, ...], int | None]]) -> _Recent:
    outcomes, said, delays = zip(*saved, strict=True)
    return _Recent(
        _outcomes_of(outcomes),
        [np.array(points, dtype=float) for points in zip(*said, strict=True)],
        np.array([delay or 0 for delay in delays]),
        np.array([delay is not None for delay in delays]),
    )


def _plain(points: Floats) -> list[Point]:
    """Points as `learning.quality.point_of` has them."""
    numbers: list[Any] = points.tolist()
    if points.ndim == 1:
        return numbers
    return [(of_outcome, top, bool(right), squares) for of_outcome, top, right, squares in numbers]


def _outcomes_of(values: Sequence[Outcome]) -> npt.NDArray[Any]:
    return np.array(values, dtype=object if isinstance(values[0], str) else type(values[0]))


def _joined(batches: Sequence[_Batch]) -> _Batch:
    return _Batch._make(np.concatenate(columns) for columns in zip(*batches, strict=True))


def _saved_batch(batch: _Batch) -> list[tuple[Any, ...]]:
    """Examples in plain containers, with None where the frozen copy says nothing."""
    said = _said(batch.frozen).tolist()
    frozen = [point if there else None for point, there in zip(_plain(batch.frozen), said, strict=True)]
    rest = (column.tolist() for column in (batch.times, batch.label_times, batch.labelled))
    return list(zip(batch.outcomes.tolist(), _plain(batch.points), *rest, frozen, strict=True))


def _said(frozen: Floats) -> Bools:
    """Where the frozen copy says something."""
    return ~np.isnan(frozen if frozen.ndim == 1 else frozen[:, 0])


def _batch_of(saved: Sequence[tuple[Any, ...]]) -> _Batch:
    outcomes, points, times, label_times, labelled, frozen = zip(*saved, strict=True)
    said = np.array(points, dtype=float)
    nothing = np.full(said.shape[1:], np.nan)
    return _Batch(
        _outcomes_of(outcomes),
        said,
        np.array(times),
        np.array(label_times),
        np.array(labelled),
        np.array([nothing if point is None else point for point in frozen], dtype=float),
    )


def frozen_points(said: Sequence[Value | None], scored: Scored) -> Floats:
    """What a frozen copy says of these examples, by `learning.quality.point_of`; no numbers where it says nothing."""
    if scored.points.ndim == 1:
        return np.array([np.nan if value is None else value for value in said], dtype=float)
    points = np.full(scored.points.shape, np.nan)
    for place, value in enumerate(said):
        if value is not None:
            points[place] = point_of(value, scored.outcomes[place])
    return points


class Watch:
    """Quality and drift of one model.

    Attributes:
        offset: offset of the last record observed; -1 before the first.
        label_ms: the latest label time observed; 0 before the first.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self._pipeline = pipeline
        self.offset = -1
        self.label_ms = 0
        self._quality = _Quality(pipeline)
        self._rows = Rows(pipeline)
        self._waiting: list[_Batch] = []  # not folded yet
        self._n_waiting = 0
        self._added: tuple[int, _Quality | None] = (-1, None)  # all as of an offset: one report asks several times
        self._monitored = [_Monitored(pipeline, monitor) for monitor in pipeline.drift]

    def observe(self, offset: int, record: LogRecord, learner_frozen_prediction: Value | None) -> list[DriftEvent]:
        """Take one record, as `observe_all` takes many."""
        scored = self._rows.of(offset, 0, record)
        frozen = frozen_points([learner_frozen_prediction] * len(scored.offsets), scored)
        return self.observe_all(scored, frozen, offset)

    def observe_all(self, scored: Scored, frozen: Floats, to: int) -> list[DriftEvent]:
        """Take examples of the log in order; what comes of them does not depend on how many come at once.

        One at or before the last offset is passed over.

        Args:
            scored: the examples that tell how good the model is.
            frozen: what the frozen copy says about each one's vector, as `frozen_points` has it.
            to: offset of the last record that was read, whatever it was.
        """
        fresh = scored.behind(self.offset)
        self.offset = max(self.offset, to)
        if not len(fresh.offsets):
            return []
        self._add(fresh, frozen[-len(fresh.offsets) :])
        return self._fired(fresh)

    def _add(self, scored: Scored, frozen: Floats) -> None:
        """Count these, and what the frozen copy says of each."""
        self.label_ms = max(self.label_ms, int(scored.label_times.max()))
        self._waiting.append(
            _Batch(scored.outcomes, scored.points, scored.times, scored.label_times, scored.labelled, frozen)
        )
        self._n_waiting += len(frozen)
        done = self._n_waiting // _BATCH * _BATCH
        if not done:
            return
        batch = _joined(self._waiting)
        for at in range(0, done, _BATCH):
            self._quality.fold(batch.cut(at, at + _BATCH))
        self._n_waiting -= done
        self._waiting = [batch.cut(done, None)] if self._n_waiting else []

    def _fired(self, scored: Scored) -> list[DriftEvent]:
        """Feed the detectors; an event for each time that one fired, by example and then by detector."""
        fired = [
            (place, number, value, times)
            for number, monitored in enumerate(self._monitored)
            for place, value, times in monitored.feed(scored)
        ]
        return [
            self._event(self._monitored[number], value, times, scored, place)
            for place, number, value, times in sorted(fired)
        ]

    def _so_far(self) -> _Quality:
        """What is counted, with what has not been folded yet; to be read only."""
        at, quality = self._added
        if quality is None or at != self.offset:
            quality = _Quality(self._pipeline)
            quality.restore(self._quality.state())
            if self._waiting:
                quality.fold(_joined(self._waiting))
            self._added = self.offset, quality
        return quality

    def report(self) -> Report:
        """Every measure that is defined by now, by `OVER` and `learning.quality.MEASURES`."""
        so_far = self._so_far()
        return by_metric(self._of_model(so_far), self._of_baselines(so_far))

    def fill(self, report: reports.Report) -> reports.Report:
        """The report, with what the log tells about quality in it."""
        so_far = self._so_far()
        calibration = self._rolling(so_far, 0)[1]
        return msgspec.structs.replace(
            report,
            task=self._pipeline.task,
            offset=self.offset,
            label_ms=self.label_ms,
            examples=int(so_far.total.n),
            quality={over: measures for over, measures in self._of_model(so_far).items() if measures},
            baselines={over: measures for over, measures in self._of_baselines(so_far).items() if measures},
            calibration=[reports.Bin(*bin_) for bin_ in calibration.bins()],
            calibration_error=calibration.error() or 0.0,
            label_delay=self._label_delay(so_far),
        )

    def labelled(self) -> dict[int, int]:
        """How many predictions got a label so far, by the start in ms of their cohort; see `Cohorts.labelled`."""
        return self._so_far().cohorts.labelled()

    def _of_model(self, so_far: _Quality) -> dict[str, Report]:
        return {
            "total": so_far.total.report(),
            "rolling": self._rolling(so_far, 0)[0],
            "recent": so_far.span.tally().report(),
            "mature": so_far.cohorts.mature.report(),
            "frozen": so_far.frozen_report(),
            "since_frozen": so_far.since_report(),
        }

    def _of_baselines(self, so_far: _Quality) -> dict[str, Report]:
        total = {name: tally.report() for name, tally in zip(BASELINES, so_far.beside, strict=True)}
        return total | {f"rolling_{name}": self._rolling(so_far, i)[0] for i, name in enumerate(BASELINES, 1)}

    def _rolling(self, so_far: _Quality, who: int) -> tuple[Report, Curve]:
        """Over the last examples, the model (0) or a baseline."""
        task, threshold, recent = self._pipeline.task, self._pipeline.threshold, so_far.recent
        if recent is None:
            return {}, Curve()
        return measured(task, threshold, recent.said[who], recent.outcomes)

    def _label_delay(self, so_far: _Quality) -> Report:
        total = {f"total_{name}": value for name, value in so_far.delays.quantiles().items()}
        recent = so_far.recent
        return ({} if recent is None else exact_quantiles(recent.delays[recent.labelled].tolist())) | total

    def dump(self) -> bytes:
        """Its whole state; `load` continues from it."""
        state = {
            "layout": _LAYOUT,
            "signals": self._signals(),
            "settings": self._settings(),
            "offset": self.offset,
            "label_ms": self.label_ms,
            "quality": self._quality.state(),
            "batch": [row for batch in self._waiting for row in _saved_batch(batch)],
            "detectors": [monitored.detector for monitored in self._monitored],
            "detections": [monitored.detections for monitored in self._monitored],
        }
        return pickle.dumps(state, pickle.HIGHEST_PROTOCOL)

    @classmethod
    def load(cls, pipeline: "Pipeline", data: bytes) -> "Watch":
        """The watch that `dump` was asked of. Raises `pickle.UnpicklingError`, or `ValueError` if it is another's."""
        state = pickles.loads(data)
        watch = cls(pipeline)
        if not isinstance(state, dict) or state.get("layout") != _LAYOUT:
            message = f"the watch state is not of layout {_LAYOUT}; rebuild it from the training log"
            raise ValueError(message)
        if state["signals"] != watch._signals():
            message = f"got monitors {state['signals']}, the pipeline has {watch._signals()}; rebuild from the log"
            raise ValueError(message)
        if state["settings"] != watch._settings():
            message = f"got settings {state['settings']}, the pipeline has {watch._settings()}; rebuild from the log"
            raise ValueError(message)
        watch._restore(state)
        return watch

    def _restore(self, state: dict[str, Any]) -> None:
        self.offset, self.label_ms = state["offset"], state["label_ms"]
        self._quality.restore(state["quality"])
        self._waiting, self._n_waiting = [_batch_of(state["batch"])] if state["batch"] else [], len(state["batch"])
        for monitored, detector, detections in zip(
            self._monitored, state["detectors"], state["detections"], strict=True
        ):
            monitored.detector, monitored.detections = detector, detections

    def _settings(self) -> dict[str, Any]:
        """What the tallies depend on: with another of these, old numbers and new ones do not add up."""
        pipeline = self._pipeline
        settings = {
            "task": pipeline.task,
            "threshold": pipeline.threshold,
            "horizon_ms": pipeline.horizon_ms,
            "span_ms": pipeline.span_ms,
            "frozen": [pipeline.baseline_examples, pipeline.frozen_at],
        }
        # Where all are learned nothing is said of it, as before there was a choice.
        return settings if pipeline.negatives >= 1.0 else {**settings, "negatives": pipeline.negatives}

    def _signals(self) -> list[list[str]]:
        return [[m.signal, type(m.detector).__name__] for m in self._monitored]

    def _event(self, monitored: _Monitored, value: float, times: int, scored: Scored, place: int) -> DriftEvent:
        return DriftEvent(
            pipeline=self._pipeline.name,
            signal=monitored.signal,
            detector=type(monitored.detector).__name__,
            time_ms=int(scored.label_times[place]),
            version=int(scored.versions[place]),
            offset=int(scored.offsets[place]),
            value=value,
            n_detections=times,
        )
