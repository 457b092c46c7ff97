"""What watching writes: a unit's summaries, the owner's reports, alarms and incidents. JSON on the wire.

    score, label --Summary--> <p>.summaries --> watch --Report--> <p>.reports --> every worker's page, `top`
                                                  |----Incident--> <p>.incidents

A summary tells what went through one unit between two of its checkpoints, in a form that can be added to others. A
report tells how things are now. Times are milliseconds since 1970 UTC; `wall` ones are of the writer's clock, others of
events.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from learning.records import Count, Outcome, Time, Value

AlarmKind = Literal["loss", "prediction", "feature", "quality", "data", "labels", "pipeline"]
Cause = Literal["data", "labels", "pipeline", "model", "unknown"]
Measures = dict[str, float]
BinNumber = Annotated[int, Meta(ge=-131_072, le=131_072)]
"""A bin's number (`learning.sketch.bin_of`): there are no others of doubles."""
Level = Annotated[int, Meta(ge=0, le=31)]


class Sketch(msgspec.Struct, array_like=True):
    """The distribution of a number in fixed bins of equal relative width; sketches of the same number add up.

    Attributes:
        n: finite values.
        missing: values that were none, NaN or infinite.
        total: sum of the finite values.
        low: the smallest, 0.0 where there is none.
        high: the largest.
        bins: how many values lie in each bin, by its number (`learning.sketch.bin_of`).
        level: how often neighbouring bins were merged by twos, so that there are not too many.
    """

    n: Count = 0
    missing: Count = 0
    total: float = 0.0
    low: float = 0.0
    high: float = 0.0
    bins: dict[BinNumber, Count] = {}
    level: Level = 0


class Categories(msgspec.Struct, array_like=True):
    """How often each value of a text or truth field came; beyond a number of different ones, only how many others."""

    n: Count = 0
    missing: Count = 0
    counts: dict[str, Count] = {}
    others: Count = 0


class Summary(msgspec.Struct, frozen=True):
    """What went through one unit between two of its checkpoints.

    Attributes:
        partition: the unit's.
        worker: who owned it, for people.
        opened: whether it is the first since that worker opened the unit: after a start or a rebalance.
        wall_ms: when it was made.
        events: predictions made. Duplicates and dead letters are not among them.
        since_ms: the earliest event time of them; 0 where there are none.
        until_ms: the latest.
        version: the newest model version among them.
        cohorts: predictions by event time: how many in each tile of the pipeline's horizon / 24, by the tile's start.
        labels: labels and expiries by what became of them (`learning.label.Kind`).
        dead_letters: by reason.
        duplicates: events whose id was there before.
        late: events too old for some window.
        lag: records of the unit's events and labels topics not read yet, by topic.
        model_lag: records of the training log that the worker had not learned.
        features: one sketch for each number of the vector, in the order of the feature names.
        prediction: of the probability of True, of the value or score, or of the best class's probability.
        numbers: sketches of the event's own fields that are numbers, by field.
        categories: of its fields that are texts or truths.
    """

    partition: Count
    worker: str
    wall_ms: Time
    opened: bool = False
    events: Count = 0
    since_ms: Time = 0
    until_ms: Time = 0
    version: Count = 0
    cohorts: dict[Time, Count] = {}
    labels: dict[str, Count] = {}
    dead_letters: dict[str, Count] = {}
    duplicates: Count = 0
    late: Count = 0
    lag: dict[str, Count] = {}
    model_lag: Count = 0
    features: list[Sketch] = []
    prediction: Sketch = msgspec.field(default_factory=Sketch)
    numbers: dict[str, Sketch] = {}
    categories: dict[str, Categories] = {}


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """One bin of the reliability curve: how many predictions, their mean, and how often the outcome was True."""

    n: int
    predicted: float
    observed: float


class FieldReport(msgspec.Struct, frozen=True):
    """How a number of the vector or a field of the event is now, beside the reference.

    Attributes:
        name: of the feature, or of the event's field.
        kind: which of them.
        n: values in the current window.
        missing: share of them that were missing.
        mean: of the numbers; 0.0 for a category.
        reference_mean: in the reference.
        psi: population stability index against the reference, in nats.
        ks: largest difference between the two distribution functions; for categories, half the sum of differences.
        constant: whether only one value came.
        outside: share of values outside the range, or among the categories, seen in the reference.
        new: categories never seen before, at most ten.
        drifted: whether an alarm on it stands.
    """

    name: str
    kind: Literal["feature", "field"]
    n: int
    missing: float = 0.0
    mean: float = 0.0
    reference_mean: float = 0.0
    psi: float = 0.0
    ks: float = 0.0
    constant: bool = False
    outside: float = 0.0
    new: list[str] = []
    drifted: bool = False


class Alarm(msgspec.Struct, frozen=True):
    """Something that somebody should look at; a burst of detections is one.

    Attributes:
        id: unique within the pipeline, and the same whoever raises it again after a crash.
        kind: what the signal is about.
        signal: "loss", "prediction", "feature:<name>", "field:<name>", "coverage", "dead_letters", ...
        detector: what fired.
        time_ms: event time at which it fired; of an alarm on the training log, label time.
        wall_ms: when.
        version: the model's version then.
        offset: place in the topic that made it fire.
        value: the statistic.
        threshold: what it went over.
        text: one sentence for people.
        since_ms: when its signal is likely to have changed, by the same clock as `time_ms`; -1 where nobody can tell.
    """

    id: str
    kind: AlarmKind
    signal: str
    detector: str
    time_ms: int
    wall_ms: int
    version: int
    offset: int
    value: float
    threshold: float
    text: str
    since_ms: int = -1


class Incident(msgspec.Struct, frozen=True):
    """What an alarm opened; later records of the same id replace earlier ones.

    Attributes:
        id: the first alarm's.
        state: open while its signals go on.
        opened_ms: event time of the first alarm.
        opened_wall_ms: when it was raised.
        since_ms: since when the first of its signals is likely to have changed, by the clock of that alarm's `time_ms`.
        closed_wall_ms: when it was closed; 0 while open.
        cause: where to look first.
        why: the rule that named the cause, as a sentence.
        alarms: all of it, the first first.
        before: measures before the change, by name.
        after: the same since.
        slices: the worst groups: feature or category, and measures of it; `headwater incident` adds them.
        events: control records, and which worker opened which partitions (after a start, a deploy or a rebalance), near
            it, as sentences with event times.
    """

    id: str
    pipeline: str
    state: Literal["open", "closed"]
    opened_ms: int
    opened_wall_ms: int
    since_ms: int
    cause: Cause
    why: str
    alarms: list[Alarm]
    closed_wall_ms: int = 0
    before: Measures = {}
    after: Measures = {}
    slices: list[tuple[str, Measures]] = []
    events: list[str] = []


class Report(msgspec.Struct, frozen=True):
    """How the pipeline is, as of one place in its training log and its summaries.

    Attributes:
        wall_ms: when it was made.
        time_ms: latest event time of a prediction.
        label_ms: latest label time that was learned from.
        offset: of the newest example watched.
        version: the newest version that predicted.
        examples: watched so far.
        quality: measures by what they are over: "total", "rolling" (the pipeline's window), "recent"
            (the last span of event time), "mature" (events older than the horizon), "frozen" and "since_frozen" (both
            over the examples since there is a frozen copy).
        baselines: the same measures, over the same examples as "total" and "rolling", of "base_rate" and "last_label",
            as "rolling_base_rate" and so on.
        calibration: reliability curve over the rolling window; empty where predictions are no probabilities.
        calibration_error: expected calibration error of it.
        label_delay: quantiles of label time less event time in seconds: "p50", "p90", "p99" over the rolling window,
            "total_p50" and so on over all; expiries are no labels.
        coverage: share of the predictions older than the horizon that got a label; -1.0 where there are none.
        fields: every feature and field.
        drift: for each signal that is watched for alarms, how much of its threshold it has reached (1.0 is an alarm).
        budget: false alarms per day that the thresholds are made for.
        alarms: the last twenty, newest last.
        incidents: ids of the open ones.
        events_per_second: by the units' own clocks, over the last minute.
        lag: records not read yet, by topic.
        model_lag: the largest of any worker.
        dead_letters: share of the records of the last minutes, by reason.
        units: owned partitions by worker.
    """

    pipeline: str
    wall_ms: int
    time_ms: int = 0
    label_ms: int = 0
    offset: int = -1
    version: int = 0
    examples: int = 0
    task: str = "binary"
    quality: dict[str, Measures] = {}
    baselines: dict[str, Measures] = {}
    calibration: list[Bin] = []
    calibration_error: float = 0.0
    label_delay: Measures = {}
    coverage: float = -1.0
    fields: list[FieldReport] = []
    drift: Measures = {}
    budget: float = 0.0
    alarms: list[Alarm] = []
    incidents: list[str] = []
    events_per_second: float = 0.0
    lag: dict[str, int] = {}
    model_lag: int = 0
    dead_letters: Measures = {}
    units: dict[str, list[int]] = {}


class Seen(msgspec.Struct, frozen=True):
    """A recent prediction on the page, with its outcome when it has come."""

    id: str
    key: str
    time_ms: int
    prediction: Value
    version: int
    outcome: Outcome | None = None
