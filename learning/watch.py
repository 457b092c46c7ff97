"""Watches the model: scores each recorded prediction against its outcome, and feeds the drift detectors.

One owner of the training log calls it, with many records at a time or one. Prequential: the prediction was made before
the outcome was known and by the version that made it, so nothing is ever scored by a model that has learned it.
"""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from river import base

from learning import pickles, reports
from learning.baselines import BASELINES, Baselines
from learning.costs import costs_of
from learning.delays import Delays, exact_quantiles
from learning.quality import COARSE, Curve, Point, Points, Report, Tally, is_wrong, measured, point_of
from learning.records import DriftEvent, Example, Outcome, Value
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


class _Scored(NamedTuple):
    """Scored examples, a list for each thing that is counted of them: many small objects would be the collector's work.

    Attributes:
        outcomes: what came.
        points: of the model.
        times: event times in ms.
        label_times: in ms.
        labelled: whether it came as a label.
        frozen: points of the frozen copy, None where it says nothing.
    """

    outcomes: list[Outcome]
    points: list[Point]
    times: list[int]
    label_times: list[int]
    labelled: list[bool]
    frozen: list[Point | None]

    def cut(self, *at: int | None) -> "_Scored":
        """Those of a slice."""
        return _Scored._make(column[slice(*at)] for column in self)


class _Recent(NamedTuple):
    """The last examples, as many as the pipeline's `window`; lists as in `_Scored`.

    Attributes:
        outcomes: what came.
        said: points of the model, and of each baseline.
        delays: how long the label took in ms, None where it is none.
    """

    outcomes: list[Outcome]
    said: list[list[Point]]
    delays: list[int | None]


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

    def feed(self, examples: Sequence[Example], costs: Sequence[float]) -> list[tuple[int, float, int]]:
        """Where the detector fired: the example's place, the signal there, and how often it has fired by then."""
        detector, fired = self.detector, []
        update = detector.update
        for place, value in self._values(examples, costs):
            update(value)
            if detector.drift_detected:
                self.detections += 1
                fired.append((place, float(value), self.detections))
        return fired

    def _values(self, examples: Sequence[Example], costs: Sequence[float]) -> Iterable[tuple[int, float]]:
        """The signal with the places of the examples that have one: a negative that was not kept has no features."""
        if self._kind == "feature":
            index = self._index
            return [(place, example.features[index]) for place, example in enumerate(examples) if example.kept]
        if self._kind == "prediction":
            values = [example.prediction for example in examples]
            return enumerate([max(v.values(), default=0.0) if isinstance(v, dict) else v for v in values])
        if self._errors_only:  # River's detectors for error rates read right or wrong, not how much
            return enumerate([is_wrong(self._task, e.prediction, e.outcome, self._threshold) for e in examples])
        return enumerate(costs)


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
        self.recent = _Recent([], [[] for _ in range(1 + len(BASELINES))], [])
        self._window: int = pipeline.window

    def fold(self, batch: _Scored) -> None:
        """Count these."""
        outcomes, own, labelled = batch.outcomes, batch.points, batch.labelled
        if not outcomes:
            return
        beside = [_points_of(said, outcomes) for said in self.baselines.go_through(outcomes)]
        for tally, said in zip(self.beside, beside, strict=True):
            self._points(said, outcomes).to(tally)
        points = self._points(own, outcomes)
        points.to(self.total)
        times, label_times = np.array(batch.times), np.array(batch.label_times)
        self.span.take_all(times, points)
        self.cohorts.take_all(times, label_times, np.array(labelled), points)
        delays = [
            delay if label else None for delay, label in zip((label_times - times).tolist(), labelled, strict=True)
        ]
        self.delays.add_all([delay for delay in delays if delay is not None])
        self._fold_frozen(points, batch.frozen, outcomes)
        self._remember(outcomes, [own, *beside], delays)

    def _remember(self, outcomes: list[Outcome], said: list[list[Point]], delays: list[int | None]) -> None:
        """Make these the last ones. Older ones go when there are twice as many, not each time."""
        lists: list[tuple[list[Any], list[Any]]] = [
            (self.recent.outcomes, outcomes),
            *zip(self.recent.said, said, strict=True),
            (self.recent.delays, delays),
        ]
        for kept, new in lists:
            kept.extend(new)
            if len(kept) > 2 * self._window:
                del kept[: -self._window]

    def last(self) -> _Recent:
        """The last examples."""
        outcomes, said, delays = self.recent
        last = slice(-self._window, None)
        return _Recent(outcomes[last], [points[last] for points in said], delays[last])

    def _fold_frozen(self, own: Points, frozen: Sequence[Point | None], outcomes: Sequence[Outcome]) -> None:
        since = [i for i, point in enumerate(frozen) if point is not None]
        if not since:
            return
        said = self._points([point for point in frozen if point is not None], [outcomes[i] for i in since])
        own = own if len(since) == len(frozen) else own.only(since)
        if not self._negatives:
            said.to(self.frozen)
            own.to(self.since)
            return
        for truth, tallies in ((True, (self.frozen, self.since)), (False, self._negatives)):
            at = [place for place, i in enumerate(since) if bool(outcomes[i]) is truth]
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
        recent = self.last()
        return {
            "tallies": [tally.state() for tally in self._tallies()],
            "span": self.span.state(),
            "cohorts": self.cohorts.state(),
            "delays": dict(self.delays.bins),
            "baselines": self.baselines.state(),
            "recent": list(zip(recent.outcomes, zip(*recent.said, strict=True), recent.delays, strict=True)),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        for tally, saved in zip(self._tallies(), state["tallies"], strict=True):
            tally.restore(saved)
        self.span.restore(state["span"])
        self.cohorts.restore(state["cohorts"])
        self.delays.bins = dict(state["delays"])
        self.baselines.restore(state["baselines"])
        recent = state["recent"]
        self._remember(
            [outcome for outcome, _, _ in recent],
            [[said[who] for _, said, _ in recent] for who in range(1 + len(BASELINES))],
            [delay for *_, delay in recent],
        )

    def _tallies(self) -> list[Tally]:
        return [self.total, self.frozen, self.since, *self.beside, *self._negatives]


def _points_of(said: Sequence[Value], outcomes: Sequence[Outcome]) -> list[Point]:
    return [
        point_of(value, outcome) if isinstance(value, dict) else value
        for value, outcome in zip(said, outcomes, strict=True)
    ]


def _nothing() -> _Scored:
    return _Scored([], [], [], [], [], [])


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
        self._batch = _nothing()  # not folded yet
        self._added: tuple[int, _Quality] | None = None  # all of it as of an offset: one report asks several times
        self._monitored = [_Monitored(pipeline, monitor) for monitor in pipeline.drift]

    def observe(self, offset: int, record: Example, learner_frozen_prediction: Value | None) -> list[DriftEvent]:
        """Take one example, as `observe_all` takes many."""
        costs = costs_of(self._pipeline, [record])
        return self.observe_all([(offset, record)], costs, [learner_frozen_prediction])

    def observe_all(
        self,
        entries: Sequence[tuple[int, Example]],
        costs: Sequence[float | None],
        frozen: Sequence[Value | None],
    ) -> list[DriftEvent]:
        """Take examples of the log in order; what comes of them does not depend on how many come at once.

        A record at or before the last offset is passed over. A correction is a second outcome of a prediction that
        has been scored, so it is not scored again; an example of another feature list is none of this model's.

        Args:
            entries: offset and example; offsets rise.
            costs: of each, as `learning.costs.costs_of` has them.
            frozen: what the frozen copy says about each one's vector; None where there is no copy, or the example is a
                negative that is not learned.
        """
        fresh = [i for i, (offset, _) in enumerate(entries) if costs[i] is not None and offset > self.offset]
        if entries:
            self.offset = max(self.offset, entries[-1][0])
        offsets, examples = [entries[i][0] for i in fresh], [entries[i][1] for i in fresh]
        if examples:
            self._add(examples, [frozen[i] for i in fresh])
        return self._fired(offsets, examples, [cost for i in fresh if (cost := costs[i]) is not None])

    def _add(self, examples: Sequence[Example], frozen: Sequence[Value | None]) -> None:
        """Count these, and what the frozen copy says of each."""
        batch, label_times = self._batch, [example.label_time_ms for example in examples]
        self.label_ms = max(self.label_ms, *label_times)
        outcomes = [example.outcome for example in examples]
        batch.outcomes.extend(outcomes)
        batch.points.extend(_points_of([example.prediction for example in examples], outcomes))
        batch.times.extend([example.time_ms for example in examples])
        batch.label_times.extend(label_times)
        batch.labelled.extend([example.source != "expiry" for example in examples])
        batch.frozen.extend(
            [None if said is None else point_of(said, outcome) for said, outcome in zip(frozen, outcomes, strict=True)]
        )
        done = len(batch.outcomes) // _BATCH * _BATCH
        for at in range(0, done, _BATCH):
            self._quality.fold(batch.cut(at, at + _BATCH))
        if done:
            self._batch = batch.cut(done, None)

    def _fired(self, offsets: Sequence[int], examples: Sequence[Example], costs: Sequence[float]) -> list[DriftEvent]:
        """Feed the detectors; an event for each time that one fired, by example and then by detector."""
        fired = [
            (place, number, value, times)
            for number, monitored in enumerate(self._monitored)
            for place, value, times in monitored.feed(examples, costs)
        ]
        return [
            self._event(self._monitored[number], value, times, offsets[place], examples[place])
            for place, number, value, times in sorted(fired)
        ]

    def _so_far(self) -> _Quality:
        """What is counted, with what has not been folded yet; to be read only."""
        if self._added is None or self._added[0] != self.offset:
            quality = _Quality(self._pipeline)
            quality.restore(self._quality.state())
            quality.fold(self._batch)
            self._added = self.offset, quality
        return self._added[1]

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
        recent = so_far.last()
        return measured(self._pipeline.task, self._pipeline.threshold, recent.said[who], recent.outcomes)

    def _label_delay(self, so_far: _Quality) -> Report:
        total = {f"total_{name}": value for name, value in so_far.delays.quantiles().items()}
        return exact_quantiles([delay for delay in so_far.last().delays if delay is not None]) | total

    def dump(self) -> bytes:
        """Its whole state; `load` continues from it."""
        state = {
            "layout": _LAYOUT,
            "signals": self._signals(),
            "settings": self._settings(),
            "offset": self.offset,
            "label_ms": self.label_ms,
            "quality": self._quality.state(),
            "batch": list(zip(*self._batch, strict=True)),
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
        self._batch = _Scored(*map(list, zip(*state["batch"], strict=True))) if state["batch"] else _nothing()
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

    def _event(self, monitored: _Monitored, value: float, times: int, offset: int, record: Example) -> DriftEvent:
        return DriftEvent(
            pipeline=self._pipeline.name,
            signal=monitored.signal,
            detector=type(monitored.detector).__name__,
            time_ms=record.label_time_ms,
            version=record.version,
            offset=offset,
            value=value,
            n_detections=times,
        )
