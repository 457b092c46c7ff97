"""What Kafka holds about an incident: examples before and since, and the topics around it.

A bounded number of records is read, whatever the size of the topics.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np

from app import replay
from learning.delays import exact_quantiles
from learning.quality import loss_of, measure
from learning.records import Control, DriftEvent, Example, LogRecord, decoded
from learning.reports import Incident, Measures, Report
from learning.slices import Moved, Slice, moved, vectors_of, worst_slices
from learning.snapshots import SnapshotError, read_manifest
from learning.verdict import when
from pipelines.definition import Pipeline
from streaming.config import EngineConfig
from streaming.errors import StartupError

Bar = Callable[[str], replay.Progress]

EXAMPLES = 20_000
"""Examples that are compared at most, before and since."""
NEAR_MS = 3_600_000
"""Records of the other topics are read from an hour before the incident was opened until an hour after its end."""
MOST = 20_000
"""Records of each of these topics at most."""
CLOSE = 500
"""Offsets within which the search for a time goes through all of them."""
ROWS = 10
"""Groups of which each list shows so many."""
ON_LABELS = ("loss", "labels")
"""Kinds of alarms whose times are those of labels."""


class Opening(msgspec.Struct, frozen=True):
    """A worker opened a partition: a start, a deploy or a rebalance; when, by its clock."""

    wall_ms: int
    worker: str
    partition: int


class Side(msgspec.Struct, frozen=True):
    """What holds of the examples on one side of the change.

    Attributes:
        n: how many there are.
        quality: their measures, exactly.
        label_delay: quantiles in seconds of those that came as labels.
        expired: share of those that no label came for, where silence is an outcome.
        outcomes: share of each of the ten most frequent outcomes, where they are no numbers.
        since_ms: earliest event time.
        until_ms: latest.
    """

    n: int
    quality: Measures = {}
    label_delay: Measures = {}
    expired: float = 0.0
    outcomes: Measures = {}
    since_ms: int = 0
    until_ms: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """What the topics hold about an incident.

    Attributes:
        clock: whether before and since are told apart by event time or by label time.
        before: examples of the training log before the change, the newest of them.
        since: those since, the oldest of them.
        inputs: every feature, the one that moved most first; of examples with a vector, as the slices are.
        slices: groups whose loss grew most, the worst first.
        controls: control records among the examples read, with their offsets.
        snapshots: versions of the model that were saved near it, with when.
        openings: of partitions.
        dead_letters: by reason, in the summaries near it: before it was opened and after.
        lag: the largest of each topic in the reports near it.
        model_lag: the largest of any worker.
        drift: detections of the pipeline's own detectors near it, by signal and detector.
        missing: topics that are not there.
    """

    clock: str
    before: Side
    since: Side
    inputs: list[Moved] = []
    slices: list[Slice] = []
    controls: list[tuple[int, Control]] = []
    snapshots: list[tuple[int, int]] = []
    openings: list[Opening] = []
    dead_letters: list[dict[str, int]] = []
    lag: dict[str, int] = {}
    model_lag: int = 0
    drift: dict[str, int] = {}
    missing: list[str] = []


class _Brief(msgspec.Struct):
    """What is needed of a summary."""

    partition: int
    worker: str
    wall_ms: int
    opened: bool = False
    dead_letters: dict[str, int] = {}


async def gathered(pipeline: Pipeline, config: EngineConfig, incident: Incident, bar: Bar) -> Evidence:
    """All of it. Raises StartupError where there is no training log."""
    async with replay.opened(config, pipeline.training_log_topic) as log:
        evidence = await from_log(pipeline, log, incident, bar(f"reading {log.name} around {when(incident.since_ms)}"))
    return await from_topics(pipeline, config, incident, evidence, bar)


def on_labels(incident: Incident) -> bool:
    """Whether its `since_ms` is of labels: the alarm that changed first is one on the training log."""
    first = min(incident.alarms, key=lambda alarm: alarm.time_ms if alarm.since_ms < 0 else alarm.since_ms)
    return first.kind in ON_LABELS


async def from_log(
    pipeline: Pipeline, log: replay.Topic, incident: Incident, progress: replay.Progress = replay.nothing
) -> Evidence:
    """Examples before the change and since, compared; and the control records among them."""
    middle = await place_of(log, incident.since_ms)
    labelled = on_labels(incident)
    # Of offsets, some are markers, corrections and control records; of examples, some are of the other side.
    start, stop = max(middle - 2 * EXAMPLES, log.begin), middle + 3 * EXAMPLES
    before: list[Example] = []
    since: list[Example] = []
    controls: list[tuple[int, Control]] = []
    async with aclosing(replay.lessons(log, start, stop, progress)) as lessons:
        async for offset, record in lessons:
            if isinstance(record, Control):
                controls.append((offset, record))
            elif _counts(pipeline, record):
                assert isinstance(record, Example)
                time_ms = record.label_time_ms if labelled else record.time_ms
                (since if time_ms >= incident.since_ms else before).append(record)
    before, since = before[-EXAMPLES:], since[:EXAMPLES]
    names = pipeline.feature_set.names
    kept = [[example for example in side if example.kept] for side in (before, since)]  # others have no vector
    vectors = [vectors_of(side, len(names)) for side in kept]
    losses = [np.array([_loss(pipeline, e) for e in side], dtype=np.float64) for side in kept]
    return Evidence(
        clock="label time" if labelled else "event time",
        before=side_of(pipeline, before),
        since=side_of(pipeline, since),
        inputs=moved(names, *vectors),
        slices=worst_slices(names, vectors[0], losses[0], vectors[1], losses[1], most=ROWS),
        controls=controls,
    )


def _counts(pipeline: Pipeline, record: LogRecord) -> bool:
    """Whether it is a first outcome of a prediction from these features, as the watch counts them."""
    if not isinstance(record, Example):
        return False
    return record.source != "correction" and record.schema == pipeline.feature_set.schema


def _loss(pipeline: Pipeline, example: Example) -> float:
    return loss_of(pipeline.task, example.prediction, example.outcome)


async def place_of(log: replay.Topic, label_ms: int) -> int:
    """About where in the log labels of this time begin: by halving, since they come about in order of time."""
    low, high = log.begin, log.end
    while high - low > CLOSE:
        middle = (low + high) // 2
        found = await _first_example(log, middle, high)
        if found is None or found.label_time_ms >= label_ms:
            high = middle
        else:
            low = middle
    async with aclosing(replay.lessons(log, low, high)) as lessons:
        async for offset, record in lessons:
            if isinstance(record, Example) and record.label_time_ms >= label_ms:
                return offset
    return high


async def _first_example(log: replay.Topic, start: int, stop: int) -> Example | None:
    while start < stop:
        async with aclosing(replay.lessons(log, start, min(start + CLOSE, stop))) as lessons:
            async for _, record in lessons:
                if isinstance(record, Example):
                    return record
        start += CLOSE
    return None


def side_of(pipeline: Pipeline, examples: Sequence[Example]) -> Side:
    """What holds of these examples."""
    if not examples:
        return Side(0)
    pairs = [(example.prediction, example.outcome) for example in examples]
    delays = [e.label_time_ms - e.time_ms for e in examples if e.source == "label"]
    said = Counter(str(e.outcome) for e in examples if not isinstance(e.outcome, float))
    return Side(
        n=len(examples),
        quality=measure(pipeline.task, pipeline.threshold, pairs),
        label_delay=exact_quantiles(delays),
        expired=sum(example.source == "expiry" for example in examples) / len(examples),
        outcomes={name: n / len(examples) for name, n in sorted(said.most_common(ROWS))},
        since_ms=min(example.time_ms for example in examples),
        until_ms=max(example.time_ms for example in examples),
    )


async def from_topics(
    pipeline: Pipeline, config: EngineConfig, incident: Incident, evidence: Evidence, bar: Bar
) -> Evidence:
    """The same evidence with what summaries, reports, snapshots and drift events of about its time tell."""
    names = (pipeline.summaries_topic, pipeline.reports_topic, pipeline.snapshots_topic, pipeline.drift_topic)
    read: list[list[Any]] = []
    missing: list[str] = []
    for name in names:
        try:
            async with replay.opened(config, name) as topic:
                read.append(await around(topic, incident, bar(f"reading {name}")))
        except StartupError:  # evidence is worth having without one of them
            missing.append(name)
            read.append([])
    summaries, reports, snapshots, drifts = read
    briefs = list(_decoded(summaries, _Brief))
    told = list(_decoded(reports, Report))
    lags = Counter[str]()
    for report in told:
        lags |= Counter(report.lag)  # the larger of both
    fired = (f"{event.signal} by {event.detector}" for event in _decoded(drifts, DriftEvent))
    return msgspec.structs.replace(
        evidence,
        openings=[Opening(each.wall_ms, each.worker, each.partition) for each in briefs if each.opened],
        dead_letters=dead_letters(briefs, incident.opened_wall_ms),
        lag=dict(sorted(lags.items())),
        model_lag=max((report.model_lag for report in told), default=0),
        snapshots=list(_saved(snapshots)),
        drift=dict(sorted(Counter(fired).items())),
        missing=missing,
    )


async def around(topic: replay.Topic, incident: Incident, progress: replay.Progress = replay.nothing) -> list[Any]:
    """Records that were written near the incident by the clock, not more than `MOST` offsets from its opening."""
    last = max(alarm.wall_ms for alarm in incident.alarms)
    opened = await topic.first_after(incident.opened_wall_ms)
    start = max(await topic.first_after(incident.opened_wall_ms - NEAR_MS), opened - MOST)
    stop = min(await topic.first_after(max(last, incident.closed_wall_ms) + NEAR_MS), opened + MOST)
    async with aclosing(topic.records(start, stop, progress)) as records:
        return [record async for record in records]


def _decoded(records: Iterable[Any], struct: Any) -> Iterator[Any]:
    """What can be read of them."""
    decoder = msgspec.json.Decoder(struct)
    for record in records:
        try:
            yield decoded(decoder, record.value or b"")
        except msgspec.DecodeError:
            continue


def dead_letters(briefs: Sequence[_Brief], opened_wall_ms: int) -> list[dict[str, int]]:
    """By reason: those of summaries before a time by the clock, and those since."""
    sides: list[Counter[str]] = [Counter(), Counter()]
    for brief in briefs:
        sides[brief.wall_ms >= opened_wall_ms].update(brief.dead_letters)
    return [dict(sorted(side.items())) for side in sides]


def _saved(records: Iterable[Any]) -> Iterator[tuple[int, int]]:
    """Versions of snapshots and when they were made."""
    for record in records:
        if (record.key or b"").endswith(b"/manifest") and record.value:
            try:
                manifest = read_manifest(record.value)
            except SnapshotError:
                continue
            yield manifest.version, manifest.created_ms
