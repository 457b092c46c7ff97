"""The vocabulary a pipeline is written in: `Event`, `Label`, `Pipeline` and drift monitors.

Everything is checked when the pipeline is built: a mistake is a DefinitionError that names the field and the remedy.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal, get_args

import msgspec
from river import base, drift

from features import FeatureDefinitionError, FeatureSet
from pipelines.errors import DefinitionError, nearest
from pipelines.models import (
    Task,
    check_seeds,
    checked_model,
    gives_probabilities,
    learning_rate_of,
    outcome_type,
    task_of,
)
from pipelines.streams import Event, Label, Message, Stream, annotations_of, shown

__all__ = [
    "DefinitionError",
    "Event",
    "Label",
    "Monitor",
    "Pipeline",
    "Reaction",
    "Stream",
    "Task",
    "boost",
    "on_feature",
    "on_loss",
    "on_prediction",
    "relearn",
    "reset",
]

Expired = Literal["drop", "negative"]
Corrected = Literal["log", "learn"]
Source = Callable[[], Iterator[Any]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # the longest derived topic adds 29 to it; Kafka takes 249
_FEATURE = "feature:"


class Monitor(msgspec.Struct, frozen=True):
    """One signal that is watched for drift.

    Attributes:
        signal: "loss", "prediction" or "feature:<name>".
        detector: makes a detector of `river.drift`; a class will do.
    """

    signal: str
    detector: Callable[[], Any]


def on_loss(detector: Callable[[], Any] | None = None) -> Monitor:
    """Watch what predictions cost; with one of `river.drift.binary`, whether they are wrong. ADWIN by default."""
    return Monitor("loss", drift.ADWIN if detector is None else detector)


def on_prediction(detector: Callable[[], Any] | None = None) -> Monitor:
    """Watch the predictions themselves, which change before labels can tell. ADWIN by default."""
    return Monitor("prediction", drift.ADWIN if detector is None else detector)


def on_feature(name: str, detector: Callable[[], Any] | None = None) -> Monitor:
    """Watch one feature, by its name in the vector. ADWIN by default."""
    return Monitor(_FEATURE + name, drift.ADWIN if detector is None else detector)


class Reaction(msgspec.Struct, frozen=True):
    """What is done to the model when its loss raises an alarm; a control record in the training log.

    Nothing while the model is frozen: then people have the word.

    Attributes:
        action: "relearn" or "boost".
        examples: how many of the newest ones a new model learns again, up to 63 more; or how many the boost is for.
        factor: what the learning rate is multiplied by, for a boost.
    """

    action: Literal["relearn", "boost"]
    examples: int = 0
    factor: float | None = None


def reset() -> Reaction:
    """Begin with a new model, which has learned nothing."""
    return Reaction("relearn")


def relearn(examples: int) -> Reaction:
    """Begin with a new model that learns the newest examples again."""
    return Reaction("relearn", examples)


def boost(factor: float, examples: int) -> Reaction:
    """Learn faster for a number of examples; for models whose optimizer has a constant learning rate."""
    return Reaction("boost", examples, factor)


class Pipeline:
    """Events, features, model and labels of one stream that learns and predicts.

    Args:
        name: prefix of the topics that belong to it.
        event: what is predicted for.
        label: what came of it; same key and id.
        horizon: how long after its event a label may come.
        features: the model's inputs, made by the constructors of `features`.
        model: makes a new River classifier, regressor or unsupervised anomaly detector; no lambdas inside.
        expired: an event without label within the horizon is dropped, or learned as False.
        corrected: a label that changes a known outcome goes to the training log only, or is learned too.
        negatives: the share of the examples with outcome False that is learned, above 0 and at most 1; predictions are
            corrected for it, and every example counts in quality. Which ones follows from the event's id.
        drift: signals to watch.
        react: what is done when the loss raises an alarm: nothing, or `reset()`, `relearn(...)` or `boost(...)`.
        budget: false alarms a day of event time that all alarms together are held to.
        cycle: the cycle that the data follow; what is compared are whole ones, since an hour of the night is no drift.
        threshold: predictions from here on count as True in accuracy and F1.
        window: how many of the last predictions the rolling metrics are over.
        span: how much of the latest event time the recent metrics are over.
        baseline_examples: the frozen copy that the model is compared with is what it was after that many examples.
        frozen_at: or what it was at that version, as predictions and `headwater status` tell versions.
        source: gives the events and labels of a data set, merged in time order.
        description: one line about it.

    Attributes:
        events: how to read the events.
        labels: how to read the labels.
        feature_set: the features, compiled.
        horizon_ms: the horizon in milliseconds.
        span_ms: the span in milliseconds.
        cycle_ms: the cycle in milliseconds.
        task: what the model does: "binary", "multiclass", "regression" or "anomaly".
        predictions_topic: predictions are written to it.
        training_log_topic: what is learned.
        drift_topic: drift events are written to it.
        snapshots_topic: snapshots of the model are kept in it.
        dead_letters_topic: records that cannot be used are written to it.
        summaries_topic: each unit says in it what went through.
        reports_topic: the owner of the training log says in it how all is.
        incidents_topic: what somebody should look at.

    Raises:
        DefinitionError: something in it cannot be meant so.
    """

    def __init__(
        self,
        *,
        name: str,
        event: type[Event],
        label: type[Label],
        horizon: timedelta,
        features: Sequence[Any],
        model: Callable[[], Any],
        expired: Expired = "drop",
        corrected: Corrected = "log",
        negatives: float = 1.0,
        drift: Sequence[Monitor] = (),
        react: Reaction | None = None,
        budget: float = 1 / 30,
        cycle: timedelta = timedelta(days=1),
        threshold: float = 0.5,
        window: int = 1000,
        span: timedelta = timedelta(days=1),
        baseline_examples: int = 5000,
        frozen_at: int | None = None,
        source: Source | None = None,
        description: str = "",
    ) -> None:
        self.name = _checked_name(name)
        place = self._place = f"pipeline {name}"
        self.events = Stream(_checked_struct(place, "event", event, Event))
        self.labels = Stream(_checked_struct(place, "label", label, Label))
        self.predictions_topic = f"{name}.predictions"
        self.training_log_topic = f"{name}.training-log"
        self.drift_topic = f"{name}.drift"
        self.snapshots_topic = f"{name}.snapshots"
        self.dead_letters_topic = f"{name}.dead-letters"
        self.summaries_topic = f"{name}.summaries"
        self.reports_topic = f"{name}.reports"
        self.incidents_topic = f"{name}.incidents"
        self._check_streams()
        self.horizon = horizon
        self.horizon_ms = _checked_duration(place, "horizon", horizon)
        self.feature_set = _feature_set(place, features, self.events)
        self.model = model
        outcome = outcome_type(label)
        made = checked_model(place, model)
        self.task: Task = task_of(place, made, outcome)
        check_seeds(place, made)
        self.expired: Expired = _checked_choice(place, "expired", expired, Expired)
        self.corrected: Corrected = _checked_choice(place, "corrected", corrected, Corrected)
        if expired == "negative" and outcome is not bool:
            message = (
                f"{place}: got expired='negative' for an outcome of type {outcome.__name__}, expected bool, since what"
                " is learned then is False; use expired='drop'"
            )
            raise DefinitionError(message)
        self.negatives = _checked_negatives(place, self.task, negatives, made)
        self.drift = tuple(self._checked_monitor(monitor) for monitor in _checked_list(place, "drift", drift))
        self.react = _checked_reaction(place, react, made)
        self.budget = _checked_budget(place, budget)
        self.cycle_ms = _checked_duration(place, "cycle", cycle)
        self.threshold = _checked_threshold(place, self.task, threshold)
        self.window = _checked_count(place, "window", window)
        self.span = span
        self.span_ms = _checked_duration(place, "span", span)
        self.baseline_examples = _checked_count(place, "baseline_examples", baseline_examples)
        self.frozen_at = None if frozen_at is None else _checked_count(place, "frozen_at", frozen_at)
        if source is not None and not callable(source):
            message = (
                f"{place}: got source {shown(type(source))}, expected a callable; pass the function, not its result"
            )
            raise DefinitionError(message)
        self.source = source
        self.description = description
        self._sealed = True

    def __setattr__(self, attribute: str, value: object) -> None:
        if getattr(self, "_sealed", False):
            message = f"{self._place} is frozen; got {attribute}={value!r}. Say it where the pipeline is built"
            raise AttributeError(message)
        super().__setattr__(attribute, value)

    def stream_of(self, item: Any) -> Stream:
        """That of the events or that of the labels, whichever an event or a label of this pipeline is in."""
        return self.events if isinstance(item, self.events.struct) else self.labels

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r})"

    def _check_streams(self) -> None:
        events, labels = self.events, self.labels
        if events.topic == labels.topic:
            message = f"{self._place}: got topic {events.topic!r} for events and labels, expected two; rename one"
            raise DefinitionError(message)
        derived = (
            self.predictions_topic,
            self.training_log_topic,
            self.drift_topic,
            self.snapshots_topic,
            self.dead_letters_topic,
            self.summaries_topic,
            self.reports_topic,
            self.incidents_topic,
        )
        for stream in (events, labels):
            if stream.topic in derived:
                message = (
                    f"{stream.struct.__name__}: got topic {stream.topic!r}, which {self._place} itself writes to,"
                    " expected another one; rename it or the pipeline"
                )
                raise DefinitionError(message)
        for role in ("key", "id"):
            ours, theirs = events.kinds(role), labels.kinds(role)
            if ours and ours != theirs:
                message = (
                    f"{labels.struct.__name__}.{getattr(labels, role)}: got {role} of type {_names(theirs)}, expected"
                    f" {_names(ours)} as in {events.struct.__name__}.{getattr(events, role)}, or they never meet;"
                    " give both the same type"
                )
                raise DefinitionError(message)

    def _checked_monitor(self, monitor: Monitor) -> Monitor:
        place = f"{self._place}: drift"
        if not isinstance(monitor, Monitor):
            message = (
                f"{place}: got {monitor!r}, expected a monitor; use on_loss(), on_prediction() or on_feature(name)"
            )
            raise DefinitionError(message)
        signal = monitor.signal
        if signal.startswith(_FEATURE):
            if (name := signal.removeprefix(_FEATURE)) not in self.feature_set.names:
                message = f"{place}: got unknown feature {name!r}; {nearest(name, self.feature_set.names)}"
                raise DefinitionError(message)
        elif signal not in ("loss", "prediction"):
            message = f"{place}: got signal {signal!r}, expected 'loss', 'prediction' or 'feature:<name>'; correct it"
            raise DefinitionError(message)
        self._check_detector(f"{place}: {signal}", monitor)
        return monitor

    def _check_detector(self, place: str, monitor: Monitor) -> None:
        if not callable(monitor.detector):
            got = shown(type(monitor.detector))
            message = f"{place}: got detector {got}, expected a callable that makes one; pass the class or lambda: ..."
            raise DefinitionError(message)
        try:
            detector = monitor.detector()
        except Exception as error:
            message = f"{place}: its detector raised {error!r}, expected one; it is called without arguments"
            raise DefinitionError(message) from error
        kind = type(detector)
        binary = isinstance(detector, base.BinaryDriftDetector)
        # Its state is saved as a pickle, and what reads that resolves River's own names only.
        if not (isinstance(detector, base.DriftDetector) or binary) or not kind.__module__.startswith("river.drift"):
            message = f"{place}: got detector {shown(kind)}, expected one of river.drift; ADWIN is the usual one"
            raise DefinitionError(message)
        if binary and (monitor.signal != "loss" or self.task == "regression"):
            message = (
                f"{place}: got detector {shown(kind)}, which reads right or wrong, expected one for numbers;"
                " take river.drift.ADWIN"
            )
            raise DefinitionError(message)


def _names(kinds: frozenset[Any]) -> str:
    return " or ".join(sorted(shown(kind) for kind in kinds)) or "none"


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        message = (
            f"pipeline: got name {name!r}, expected 1 to 200 of A-Z a-z 0-9 . _ -, a letter or digit first, as its"
            " topics begin with it; rename it"
        )
        raise DefinitionError(message)
    return name


def _checked_struct(place: str, role: str, struct: Any, base_: type[Message]) -> type[Message]:
    if not isinstance(struct, type) or not issubclass(struct, base_):
        got = shown(struct) if isinstance(struct, type) else repr(struct)
        name = base_.__name__
        message = f"{place}: got {role} {got}, expected a subclass of {name}; write class X({name}, topic=..., ...)"
        raise DefinitionError(message)
    return struct


def _checked_duration(place: str, role: str, value: Any) -> int:
    if not isinstance(value, timedelta) or value < timedelta(milliseconds=1):
        message = f"{place}: got {role} {value!r}, expected a positive timedelta; write timedelta(days=2)"
        raise DefinitionError(message)
    return value // timedelta(milliseconds=1)


def _checked_list(place: str, role: str, values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        message = f"{place}: got {role} {values!r}, expected a list; write {role}=[...]"
        raise DefinitionError(message)
    return values


def _feature_set(place: str, features: Any, events: Stream) -> FeatureSet:
    listed = _checked_list(place, "features", features)
    if not listed:
        message = f"{place}: got no features, expected at least one; write features=[field('...')]"
        raise DefinitionError(message)
    try:
        return FeatureSet(listed, annotations_of(events.struct), events.key, events.time)
    except FeatureDefinitionError as error:
        message = f"{place}: features: {error}"
        raise DefinitionError(message) from error


def _checked_choice(place: str, role: str, value: Any, choices: Any) -> Any:
    known: tuple[str, ...] = get_args(choices)
    if value not in known:
        message = f"{place}: got {role}={value!r}, expected one of {', '.join(map(repr, known))}; correct it"
        raise DefinitionError(message)
    return value


def _checked_reaction(place: str, reaction: Any, model: Any) -> Reaction | None:
    if reaction is None:
        return None
    if not isinstance(reaction, Reaction) or reaction.action not in ("relearn", "boost"):
        message = (
            f"{place}: got react={reaction!r}, expected None, reset(), relearn(examples) or boost(factor, examples)"
        )
        raise DefinitionError(message)
    least = 1 if reaction.action == "boost" else 0
    if not isinstance(reaction.examples, int) or isinstance(reaction.examples, bool) or reaction.examples < least:
        message = f"{place}: react: got {reaction.examples!r} examples, expected a whole number of at least {least}"
        raise DefinitionError(message)
    if reaction.action == "boost":
        factor = reaction.factor
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor <= 1000:
            message = f"{place}: react: got factor {factor!r}, expected a number above 0 and at most 1000; 4 is a start"
            raise DefinitionError(message)
        if learning_rate_of(model) is None:
            message = (
                f"{place}: react: got boost for a model without a constant learning rate, expected a last step whose"
                " optimizer has one, as linear_model.LogisticRegression has; relearn(examples) works with any model"
            )
            raise DefinitionError(message)
    return reaction


def _checked_negatives(place: str, task: Task, value: Any, model: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        message = (
            f"{place}: got negatives={value!r}, expected the share of them that is learned, above 0 and at most 1; 0.1"
            " learns one in ten"
        )
        raise DefinitionError(message)
    if value == 1:
        return 1.0
    if task != "binary":
        message = (
            f"{place}: got negatives={value!r} for the task {task}, expected 1 where outcomes are not learned as True"
            " and False; leave it out"
        )
        raise DefinitionError(message)
    if not gives_probabilities(model):
        message = (
            f"{place}: got negatives={value!r} for a model that says classes and no probabilities, expected one that"
            " has predict_proba_one, since it is probabilities that are corrected; change the model or leave it out"
        )
        raise DefinitionError(message)
    return float(value)


def _checked_budget(place: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    if not number:
        message = (
            f"{place}: got budget={value!r}, expected false alarms a day above 0 and at most 1; 1 / 30 is one a month"
        )
        raise DefinitionError(message)
    return float(value)


def _checked_threshold(place: str, task: Task, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (task == "binary" and not 0.0 <= value <= 1.0):
        expected = "a probability from 0 to 1" if task == "binary" else "a finite number"
        message = f"{place}: got threshold {value!r}, expected {expected}; 0.5 is the usual one"
        raise DefinitionError(message)
    return float(value)


def _checked_count(place: str, role: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        message = f"{place}: got {role}={value!r}, expected a whole number of at least 1; leave it out for the default"
        raise DefinitionError(message)
    return value
