"""Watches the model: scores each recorded prediction against its outcome, and feeds the drift detectors.

One owner of the training log calls it, record by record. Prequential: the prediction was made before the outcome was
known and by the version that made it, so nothing is ever scored by a model that has learned it.
"""

import pickle
from collections import deque
from typing import TYPE_CHECKING, Any

from river import base

from learning import pickles
from learning.learn import unfit
from learning.quality import Report, Tally, is_wrong, loss_of, measure
from learning.records import DriftEvent, Example, Outcome, Value

if TYPE_CHECKING:
    from pipelines.definition import Monitor, Pipeline

_LAYOUT = 1


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

    def feed(self, example: Example) -> float | None:
        """The signal's value if the detector fired on it."""
        value = self._value(example)
        self.detector.update(value)
        if not self.detector.drift_detected:
            return None
        self.detections += 1
        return float(value)

    def _value(self, example: Example) -> float:
        if self._kind == "feature":
            return example.features[self._index]
        if self._kind == "prediction":
            value = example.prediction
            return max(value.values(), default=0.0) if isinstance(value, dict) else value
        if self._errors_only:  # River's detectors for error rates read right or wrong, not how much
            return is_wrong(self._task, example.prediction, example.outcome, self._threshold)
        return loss_of(self._task, example.prediction, example.outcome)


class Watch:
    """Quality and drift of one model.

    Attributes:
        offset: offset of the last record observed; -1 before the first.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self._pipeline = pipeline
        self.offset = -1
        self._total, self._frozen, self._since = (Tally(pipeline.task, pipeline.threshold) for _ in range(3))
        self._recent: deque[tuple[Value, Outcome]] = deque(maxlen=pipeline.window)
        self._monitored = [_Monitored(pipeline, monitor) for monitor in pipeline.drift]

    def observe(self, offset: int, record: Example, learner_frozen_prediction: Value | None) -> list[DriftEvent]:
        """Take the example at this offset of the log, and what the frozen copy says about its vector if there is one.

        A record at or before the last offset is passed over. A correction is a second outcome of a prediction that
        has been scored, so it is not scored again; an example of another feature list is none of this model's.
        """
        if offset <= self.offset:
            return []
        self.offset = offset
        feature_set, task = self._pipeline.feature_set, self._pipeline.task
        if record.source == "correction" or record.schema != feature_set.schema:
            return []
        if unfit(task, len(feature_set.names), record) is not None:  # nor of any; the learner says so
            return []
        if isinstance(record.prediction, dict) != (task == "multiclass"):  # no prediction of this task to be scored
            return []
        self._total.add(record.prediction, record.outcome)
        self._recent.append((record.prediction, record.outcome))
        if learner_frozen_prediction is not None:
            self._frozen.add(learner_frozen_prediction, record.outcome)
            self._since.add(record.prediction, record.outcome)
        fed = ((monitored, monitored.feed(record)) for monitored in self._monitored)
        return [self._event(m, value, offset, record) for m, value in fed if value is not None]

    def report(self) -> Report:
        """Every measure that is defined by now: all so far, `rolling_`, `frozen_` and `online_since_frozen_`.

        The last two are over the same examples: those resolved since there is a frozen copy.
        """
        pipeline = self._pipeline
        beside = {
            "rolling": measure(pipeline.task, pipeline.threshold, self._recent),
            "frozen": self._frozen.report(),
            "online_since_frozen": self._since.report(),
        }
        report = self._total.report()
        for prefix, measures in beside.items():
            report |= {f"{prefix}_{k}": v for k, v in measures.items() if k != "base_rate_log_loss"}
        return report

    def dump(self) -> bytes:
        """Its whole state; `load` continues from it."""
        state = {
            "layout": _LAYOUT,
            "signals": self._signals(),
            "offset": self.offset,
            "tallies": [tally.state() for tally in (self._total, self._frozen, self._since)],
            "recent": list(self._recent),
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
        watch.offset = state["offset"]
        for tally, saved in zip((watch._total, watch._frozen, watch._since), state["tallies"], strict=True):
            tally.restore(saved)
        watch._recent.extend(state["recent"])
        for monitored, detector, detections in zip(
            watch._monitored, state["detectors"], state["detections"], strict=True
        ):
            monitored.detector, monitored.detections = detector, detections
        return watch

    def _signals(self) -> list[list[str]]:
        return [[m.signal, type(m.detector).__name__] for m in self._monitored]

    def _event(self, monitored: _Monitored, value: float, offset: int, record: Example) -> DriftEvent:
        return DriftEvent(
            pipeline=self._pipeline.name,
            signal=monitored.signal,
            detector=type(monitored.detector).__name__,
            time_ms=record.label_time_ms,
            version=record.version,
            offset=offset,
            value=value,
            n_detections=monitored.detections,
        )
