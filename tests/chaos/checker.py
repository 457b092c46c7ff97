"""What must be true of a run, from its input and from what a reader of committed records sees. Pure.

The input tells what there must be: `truth`. Everything is then held against it, or against an independent fold over the
very log that the workers have written.
"""

import collections
import io
import pickle
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from learning import snapshots
from learning.backtest import backtest
from learning.learn import Learner
from learning.records import DriftEvent, Example, LogRecord, Prediction
from learning.snapshots import SnapshotError
from learning.watch import Watch
from pipelines.definition import Pipeline
from streaming.snapshots import Stored
from tests.folds import advance

SHOWN = 5  # cases of one kind of wrong that a verdict names


class Refused(NamedTuple):
    """A record that cannot be used: where it lies, and why."""

    topic: str
    partition: int
    offset: int
    reason: str


class Truth(msgspec.Struct, frozen=True):
    """What there must be.

    Attributes:
        vectors: the feature vector of each event that is to be predicted, by id.
        labels: the ids of the events whose label is to be learned.
        profiles: the profile of each entity after the last event, as it is saved.
        optional: ids of events whose label may be learned or not, since whether it still could be is a matter of when.
        refused: what is to be among the dead letters, and nothing else is.
    """

    vectors: dict[str, list[float]]
    labels: frozenset[str]
    profiles: dict[str, bytes]
    optional: frozenset[str] = frozenset()
    refused: frozenset[Refused] = frozenset()


class Seen(msgspec.Struct, frozen=True):
    """What there is, in offset order within each partition.

    Attributes:
        predictions: partition and prediction.
        log: offset and record of the training log.
        drifts: drift events.
        monitors: the newest saved state of the watch.
        profiles: the newest saved state of each entity.
        snapshots: saved models, the newest first.
        saved: whether the model is saved so often that the newest must be that of the whole log.
        dead_letters: headers and value of each.
    """

    predictions: list[tuple[int, Prediction]]
    log: list[tuple[int, LogRecord]]
    drifts: list[DriftEvent]
    monitors: bytes | None
    profiles: dict[str, bytes]
    snapshots: list[Stored]
    saved: bool
    dead_letters: list[tuple[dict[str, bytes], bytes | None]]

    def complete(self, pipeline: Pipeline) -> bool:
        """Whether the log has been watched, and the model saved, to the end of the log."""
        examples = [offset for offset, record in self.log if isinstance(record, Example)]
        if not examples:
            return True
        watched = self.monitors is not None and Watch.load(pipeline, self.monitors).offset >= examples[-1]
        return watched and (not self.saved or saved_to(self.snapshots) > examples[-1])


class Verdict(msgspec.Struct):
    """How much there is, and how much of it is wrong.

    Attributes:
        events: events to be predicted.
        labels: labels to be learned.
        models: saved models that were compared with a fold.
        lost: events without prediction.
        twice: predictions of an event beyond its first.
        labels_lost: labels that are in no example.
        learned_twice: examples of a label beyond its first.
        invented: predictions of no event, and examples of no label.
        decreasing: predictions of a partition by an older version than the one before.
        unreproducible: predictions that the log, folded to their version, does not make again to the last bit.
        unlike_backtest: predictions with another vector than a run without Kafka has.
        unlike_prediction: examples whose vector, prediction or version is not that of their prediction.
        profiles_unlike: entities whose saved profile is not, byte for byte, that of one pass over the events.
        models_unlike: saved models that are not, byte for byte, the fold at their version; and the last one missing.
        monitors_unlike: 1 where quality or its place in the log is not that of one pass over the log.
        drifts_unlike: drift events missing or too many.
        dead_letters: records refused that should not be, or refused twice, or not refused.
        misbehaved: what a scenario found wrong itself, such as a zombie that went on.
        cases: some of what is wrong, for people.
    """

    events: int = 0
    labels: int = 0
    models: int = 0
    lost: int = 0
    twice: int = 0
    labels_lost: int = 0
    learned_twice: int = 0
    invented: int = 0
    decreasing: int = 0
    unreproducible: int = 0
    unlike_backtest: int = 0
    unlike_prediction: int = 0
    profiles_unlike: int = 0
    models_unlike: int = 0
    monitors_unlike: int = 0
    drifts_unlike: int = 0
    dead_letters: int = 0
    misbehaved: int = 0
    cases: list[str] = msgspec.field(default_factory=list)

    def wrong(self, *, allowed: Collection[str] = ()) -> dict[str, int]:
        """The counts that are not 0 and should be. `allowed` names what the guarantee does not promise."""
        ignored = {"events", "labels", "models", "cases", *allowed}
        counts = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ignored}
        return {name: count for name, count in counts.items() if count}

    def found(self, what: str, cases: Iterable[Any]) -> None:
        """Count cases of something wrong."""
        listed = list(cases)
        setattr(self, what, getattr(self, what) + len(listed))
        self.cases += [f"{what}: {case}" for case in listed[:SHOWN]]


def truth(pipeline: Pipeline, items: Iterable[Any]) -> Truth:
    """What there must be of these events and labels, in the order in which they were written.

    The order matters within a key only, for the vectors, and for a label beside its event.
    """
    own = [own_item(pipeline, item) for item in items]
    vectors: dict[str, list[float]] = {}
    labels: set[str] = set()

    def learned(_: int, record: LogRecord) -> None:
        if isinstance(record, Example):
            labels.add(record.id)

    backtest(pipeline, own, on_prediction=lambda p: vectors.update({p.id: p.features}), on_record=learned)
    return Truth(vectors, frozenset(labels), profiles_of(pipeline, own))


def own_item(pipeline: Pipeline, item: Any) -> Any:
    """An item of the data set in the pipeline's own types."""
    own = (pipeline.events.struct, pipeline.labels.struct)
    if isinstance(item, own):
        return item
    is_event = isinstance(item, own[0].__mro__[1])
    return msgspec.convert(msgspec.to_builtins(item), own[0] if is_event else own[1], strict=False)


def profiles_of(pipeline: Pipeline, items: Iterable[Any]) -> dict[str, bytes]:
    """Every profile after one pass over the events, as it is saved."""
    events, features = pipeline.events, pipeline.feature_set
    profiles: dict[str, Any] = {}
    done: set[str | None] = set()
    for item in items:
        if isinstance(item, events.struct) and events.id_of(item) not in done:
            done.add(events.id_of(item))
            features.compute(item, events.key_of(item), events.time_of(item), profiles)
    return {name: features.dump(profile) for name, profile in profiles.items()}


def check(pipeline: Pipeline, expected: Truth, seen: Seen) -> Verdict:
    """The verdict on a run."""
    verdict = Verdict(events=len(expected.vectors), labels=len(expected.labels))
    _check_predictions(verdict, expected, seen)
    _check_examples(verdict, expected, seen)
    _check_reproducible(verdict, pipeline, seen)
    _check_profiles(verdict, expected, seen)
    _check_models(verdict, pipeline, seen)
    _check_watch(verdict, pipeline, seen)
    _check_dead_letters(verdict, expected, seen)
    return verdict


def _check_predictions(verdict: Verdict, expected: Truth, seen: Seen) -> None:
    counted = collections.Counter(p.id for _, p in seen.predictions)
    verdict.found("lost", expected.vectors.keys() - counted.keys())
    verdict.found("twice", [name for name, n in counted.items() for _ in range(n - 1)])
    verdict.found("invented", [f"prediction of {name}" for name in counted.keys() - expected.vectors.keys()])
    versions: dict[int, int] = {}
    for partition, p in seen.predictions:
        if p.version < versions.get(partition, 0):
            verdict.found("decreasing", [f"{p.id} of {p.version} after {versions[partition]}"])
        versions[partition] = p.version
    unlike = [p for _, p in seen.predictions if expected.vectors.get(p.id, p.features) != p.features]
    verdict.found("unlike_backtest", [f"{p.id}: {p.features}, not {expected.vectors[p.id]}" for p in unlike])


def _check_examples(verdict: Verdict, expected: Truth, seen: Seen) -> None:
    examples = [record for _, record in seen.log if isinstance(record, Example)]
    counted = collections.Counter(record.id for record in examples)
    verdict.found("labels_lost", expected.labels - counted.keys())
    verdict.found("learned_twice", [name for name, n in counted.items() for _ in range(n - 1)])
    known = expected.labels | expected.optional
    verdict.found("invented", [f"example of {name}" for name in counted.keys() - known])
    made = collections.defaultdict(list)
    for _, p in seen.predictions:
        made[p.id].append((p.features, p.prediction, p.version))
    unlike = [r for r in examples if not _is_of(r, made[r.id])]
    verdict.found("unlike_prediction", [r.id for r in unlike])


def _is_of(example: Example, made: Sequence[tuple[list[float], Any, int]]) -> bool:
    """Whether it has what one of the predictions of its id has; a negative that was not kept has no vector."""
    if example.kept:
        return (example.features, example.prediction, example.version) in made
    return not example.features and (example.prediction, example.version) in [said[1:] for said in made]


def _check_reproducible(verdict: Verdict, pipeline: Pipeline, seen: Seen) -> None:
    """Fold the log to each prediction's version and ask again: the same number, to the last bit."""
    folding = Folding(pipeline, seen.log)
    for p in sorted((p for _, p in seen.predictions), key=lambda p: p.version):
        again = folding.to(p.version).predict(p.features)
        if again != p.prediction:
            verdict.found("unreproducible", [f"{p.id} at version {p.version}: {p.prediction}, again {again}"])


def _check_profiles(verdict: Verdict, expected: Truth, seen: Seen) -> None:
    names = expected.profiles.keys() | seen.profiles.keys()
    verdict.found("profiles_unlike", [n for n in names if expected.profiles.get(n) != seen.profiles.get(n)])


def _check_models(verdict: Verdict, pipeline: Pipeline, seen: Seen) -> None:
    folding = Folding(pipeline, seen.log)
    loaded = []
    for stored in seen.snapshots:
        try:
            loaded.append(snapshots.load(stored.manifest, stored.chunks, pipeline))
        except SnapshotError as error:  # a writer that was ended between two chunks; the newest must be whole
            verdict.cases.append(f"a snapshot is not whole: {error}")
    for learner in sorted(loaded, key=lambda learner: learner.version):
        verdict.models += 1
        if bytes_of(learner) != bytes_of(folding.to(learner.version), at=learner.version):
            verdict.found("models_unlike", [f"the snapshot at version {learner.version}"])
    last = seen.log[-1][0] if seen.log else -1
    if seen.saved and (not loaded or max(learner.version for learner in loaded) <= last):
        verdict.found("models_unlike", [f"no snapshot is of version {last + 1}, the end of the log"])


def _check_watch(verdict: Verdict, pipeline: Pipeline, seen: Seen) -> None:
    """Drift events and quality are those of one pass over the log, each once, whoever owned it when."""
    watch, expected, folding = Watch(pipeline), list[DriftEvent](), Folding(pipeline, seen.log)
    for offset, record in seen.log:
        learner = folding.to(offset)
        asked = record.features if isinstance(record, Example) and learner.learns(record) else None
        frozen = None if asked is None else learner.predict_frozen(asked)
        expected += watch.observe(offset, record, frozen)
    saved = Watch(pipeline) if seen.monitors is None else Watch.load(pipeline, seen.monitors)
    if (saved.offset, saved.report()) != (watch.offset, watch.report()):
        verdict.found("monitors_unlike", [f"watched to {saved.offset}, expected {watch.offset}, or another quality"])
    verdict.found("drifts_unlike", [event for event in expected if event not in seen.drifts])
    verdict.found("drifts_unlike", [event for n, event in enumerate(seen.drifts) if event not in expected[: n + 1]])
    verdict.found("drifts_unlike", seen.drifts[len(expected) :])


def _check_dead_letters(verdict: Verdict, expected: Truth, seen: Seen) -> None:
    """Each refused record is there once, with the reason and where it came from."""
    counted = collections.Counter(
        Refused(h["topic"].decode(), int(h["partition"]), int(h["offset"]), h["reason"].decode())
        for h, _ in seen.dead_letters
    )
    verdict.found("dead_letters", [f"{one} is there {n} times" for one, n in counted.items() if n > 1])
    verdict.found("dead_letters", [f"{one} should not be there" for one in counted.keys() - expected.refused])
    verdict.found("dead_letters", [f"{one} is missing" for one in expected.refused - counted.keys()])


class Folding:
    """One fold over a log, asked for rising versions."""

    def __init__(self, pipeline: Pipeline, log: Sequence[tuple[int, LogRecord]]) -> None:
        self._pipeline = pipeline
        self._log = log
        self._at = 0
        self._learner = Learner(pipeline)

    def to(self, version: int) -> Learner:
        """The model at this version; it is the fold's own, so look and do not keep."""
        while self._at < len(self._log) and self._log[self._at][0] < version:
            advance(self._pipeline, self._learner, self._log, *self._log[self._at])
            self._at += 1
        return self._learner


def bytes_of(learner: Learner, *, at: int | None = None) -> bytes:
    """The model's bytes. `at`: as of a version that lies behind the last record, over offsets that hold none.

    Without pickle's memo: whether two equal strings of a model are one object is no part of what was learned.
    """
    state = learner.state()
    if at is not None:
        state = state._replace(version=at)
    out = io.BytesIO()
    pickler = pickle.Pickler(out, pickle.HIGHEST_PROTOCOL)
    pickler.fast = True
    pickler.dump(tuple(state))
    return out.getvalue()


def saved_to(found: Sequence[Stored]) -> int:
    """The version of the newest snapshot; -1 without any."""
    for stored in found:
        try:
            return snapshots.read_manifest(stored.manifest).version
        except SnapshotError:
            continue
    return -1
