"""A pipeline that learns a share of its negatives, room by room; tests/laws/test_negatives.py has the laws."""

import math
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from river import drift as river_drift

from learning import snapshots
from learning.backtest import _Run, backtest
from learning.explain import KEPT, History, explain
from learning.label import LATEST, PendingLabels
from learning.learn import Learner, unfit
from learning.losses import LossAlarm
from learning.negatives import corrected, is_kept
from learning.quality import measure
from learning.records import Example, LogRecord, Prediction, decode_log, encode
from learning.scored import Rows
from learning.watch import Watch, frozen_points
from tests.doubles import HOUR, FixedModel, FixedProbabilities, Ping, Pong, TinyFeatures, monitor, tiny_pipeline
from tests.folds import columns_of, is_scorable

drift: Any = river_drift  # River's constructors carry no types
SHARE = 0.25
IDS = [f"e{number}" for number in range(400)]
KEPT_ID, LEFT_ID = (next(name for name in IDS if is_kept(name, SHARE) is kept) for kept in (True, False))
VECTOR = [1.0, 2.0]


def example(name: str, outcome: bool, *, value: float = 0.25, kept: bool = True, source: str = "label") -> Example:
    vector = VECTOR if kept else []
    return Example(name, "k", 0, HOUR, value, 3, vector, TinyFeatures.schema, outcome, source, kept)


def joined(name: str, **settings: Any) -> PendingLabels:
    """The label join, with one prediction that waits."""
    policy: dict[str, Any] = {"expired": "negative", "corrected": "log", "negatives": SHARE}
    join = PendingLabels({}, horizon_ms=HOUR, **{**policy, **settings})
    join.open(Prediction(name, "k", 0, 0.25, 3, VECTOR, TinyFeatures.schema))
    return join


# -- the record


def test_example_that_is_kept_has_the_bytes_that_it_had_before_there_was_a_choice() -> None:
    assert encode(example("a", outcome=False)) == (
        b'{"type":"example","id":"a","key":"k","time_ms":0,"label_time_ms":3600000,"prediction":0.25,"version":3,'
        b'"features":[1.0,2.0],"schema":"0123456789abcdef","outcome":false,"source":"label"}'
    )


def test_example_of_an_older_log_is_one_that_is_kept() -> None:
    record = decode_log(encode(example("a", outcome=False)))
    assert isinstance(record, Example)
    assert record.kept


def test_example_that_is_left_out_says_so_and_reads_back() -> None:
    left = example("a", outcome=False, kept=False)
    assert b'"features":[],' in encode(left)
    assert encode(left).endswith(b'"outcome":false,"source":"label","kept":false}')
    assert decode_log(encode(left)) == left


# -- the label join


@pytest.mark.parametrize(("name", "kept"), [(KEPT_ID, True), (LEFT_ID, False)])
def test_negative_has_its_vector_by_its_id_whether_labelled_or_expired(name: str, kept: bool) -> None:
    labelled = joined(name).resolve(name, "k", False, HOUR)
    assert labelled.record == example(name, outcome=False, kept=kept)
    join = joined(name)
    join.open(Prediction("later", "k", 3 * HOUR, 0.5, 3, VECTOR, TinyFeatures.schema))
    (expired,) = join.expire(labels_to=LATEST, events_to=LATEST)
    assert expired.record == example(name, outcome=False, kept=kept, source="expiry")


@pytest.mark.parametrize("name", [KEPT_ID, LEFT_ID])
def test_positive_always_has_its_vector(name: str) -> None:
    assert joined(name).resolve(name, "k", True, HOUR).record == example(name, outcome=True)


def test_outcome_that_is_zero_and_no_bool_is_no_negative() -> None:
    record = joined(LEFT_ID).resolve(LEFT_ID, "k", 0.0, HOUR).record
    assert isinstance(record, Example)
    assert record.kept


def test_negative_that_was_left_out_is_learned_when_it_turns_out_positive() -> None:
    """The entry remembers the vector that the log did without."""
    join = joined(LEFT_ID, corrected="learn")
    join.resolve(LEFT_ID, "k", False, HOUR)
    assert join.resolve(LEFT_ID, "k", True, HOUR).record == example(LEFT_ID, outcome=True, source="correction")
    assert join.resolve(LEFT_ID, "k", False, HOUR).record == example(
        LEFT_ID, outcome=False, kept=False, source="correction"
    )


# -- the learner


def test_example_that_is_left_out_moves_the_version_and_nothing_else() -> None:
    learner = Learner(tiny_pipeline(negatives=SHARE))
    learner.apply(0, example(KEPT_ID, outcome=True))
    before = learner.predict(VECTOR)
    learner.apply(1, example(LEFT_ID, outcome=False, kept=False))
    learner.apply(2, example(LEFT_ID, outcome=False))  # a log of a larger share: its vector is there
    assert (learner.version, learner.examples, learner.predict(VECTOR)) == (3, 1, before)
    learner.apply(3, example(KEPT_ID, outcome=False))
    assert learner.examples == 2
    assert learner.predict(VECTOR) != before


def test_what_the_log_left_out_is_not_learned_without_its_vector_when_the_share_has_grown() -> None:
    learner = Learner(tiny_pipeline())
    learner.apply(0, example(LEFT_ID, outcome=False, kept=False))
    assert (learner.version, learner.examples) == (1, 0)
    assert not learner.learns(example(LEFT_ID, outcome=False, kept=False))


@pytest.mark.parametrize(
    "model",
    [FixedProbabilities({}), FixedProbabilities({True: float("nan")}), FixedProbabilities({True: 0.5})],
    ids=["says nothing", "no number yet", "a half"],
)
def test_a_model_that_knows_nothing_says_what_a_half_is_of_all(model: Any) -> None:
    assert Learner(tiny_pipeline(negatives=SHARE, model=lambda: model)).predict(VECTOR) == corrected(0.5, SHARE) == 0.2


def test_a_class_without_probability_is_left_as_it_is() -> None:
    for answer in (True, False):
        learner = Learner(tiny_pipeline(negatives=SHARE, model=lambda answer=answer: FixedModel(answer)))
        assert learner.predict(VECTOR) == float(answer)


def test_example_that_is_left_out_counts_in_quality_and_fits_without_a_vector() -> None:
    left = example("a", outcome=False, kept=False)
    assert unfit("binary", 2, left) is None
    assert unfit("binary", 2, msgspec.structs.replace(left, kept=True)) == "got 0 features, expected 2"
    assert unfit("binary", 2, msgspec.structs.replace(left, outcome="no")) is not None
    pipeline = tiny_pipeline(negatives=SHARE)
    assert is_scorable(pipeline, left)
    assert not is_scorable(pipeline, msgspec.structs.replace(left, schema="another"))
    one, other = Rows(pipeline).of(0, 0, left), Rows(pipeline).of(0, 0, example("a", outcome=False))
    assert one.costs.tolist() == other.costs.tolist() != []


# -- the snapshot


def test_snapshot_of_another_share_is_refused_as_that_of_another_model() -> None:
    pipeline = tiny_pipeline(negatives=SHARE)
    manifest, chunks = snapshots.dump(Learner(pipeline), pipeline, created_ms=0)
    assert snapshots.load(manifest, chunks, pipeline).version == 0
    for share in (0.5, 1.0):
        with pytest.raises(snapshots.SnapshotError) as caught:
            snapshots.load(manifest, chunks, tiny_pipeline(negatives=share))
        assert caught.value.kind == "other_model"


# -- the watch


def stream(n: int, seed: int = 2) -> list[tuple[Example, float]]:
    """Examples with their vectors, and what a frozen copy says of each; one in ten is True."""
    chance = random.Random(seed)
    made = []
    for number in range(n):
        outcome = chance.random() < 0.1
        value, frozen = (min(max(chance.gauss(0.3 if outcome else 0.1, 0.1), 0.01), 0.99) for _ in range(2))
        record = example(f"e{number}", outcome, value=value)
        made.append((msgspec.structs.replace(record, features=[float(number), 0.0]), frozen))
    return made


def left_out(record: Example, share: float = SHARE) -> Example:
    kept = record.outcome is True or is_kept(record.id, share)
    return record if kept else msgspec.structs.replace(record, features=[], kept=False)


def watched(share: float, records: list[tuple[Example, float]], **overrides: Any) -> Watch:
    watch = Watch(tiny_pipeline(negatives=share, window=100, **overrides))
    scored = columns_of(watch._pipeline, [(offset, record) for offset, (record, _) in enumerate(records)])
    said = [frozen if record.kept else None for record, frozen in records]
    watch.observe_all(scored, frozen_points(said, scored), len(records) - 1)
    return watch


def test_every_example_counts_in_every_measure_but_those_beside_the_frozen_copy() -> None:
    records = stream(3_000)
    ours, all_of_them = (
        watched(share, [(left_out(r, share), frozen) for r, frozen in records]).report() for share in (SHARE, 1.0)
    )
    apart = {name for name in all_of_them if ours[name] != all_of_them[name]}
    assert {name.split("_")[0] for name in apart} == {"frozen", "online"}
    pairs = [(record.prediction, record.outcome) for record, _ in records]
    assert ours["log_loss"] == pytest.approx(measure("binary", 0.5, pairs)["log_loss"])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_frozen_copy_is_measured_as_if_all_negatives_were_there(seed: int) -> None:
    """Both beside each other to a few percent of what all say, where the sample alone is more than half off."""
    records = stream(20_000, seed)
    ours, all_of_them = (
        watched(share, [(left_out(r, share), frozen) for r, frozen in records]).report() for share in (SHARE, 1.0)
    )
    for side in ("frozen", "online_since_frozen"):
        for name in ("log_loss", "brier", "accuracy", "roc_auc"):
            assert ours[f"{side}_{name}"] == pytest.approx(all_of_them[f"{side}_{name}"], rel=0.03)
    assert ours["online_since_frozen_log_loss"] == pytest.approx(ours["log_loss"], rel=0.03)
    sample = [(frozen, record.outcome) for record, frozen in records if left_out(record).kept]
    assert measure("binary", 0.5, sample)["log_loss"] > 1.5 * all_of_them["frozen_log_loss"]


def test_detectors_of_features_get_those_with_a_vector_and_others_all() -> None:
    class Counting(drift.DummyDriftDetector):  # type: ignore[misc]  # River's detectors carry no types
        """Remembers what it was fed."""

        fed: list[float]

        def update(self, x: Any) -> None:
            self.fed = [*getattr(self, "fed", []), x]

        drift_detected = False

    records = stream(300)
    watch = watched(
        SHARE,
        [(left_out(record), frozen) for record, frozen in records],
        drift=[monitor(signal, Counting) for signal in ("feature:x", "loss", "prediction")],
    )
    kept = [record.features[0] for record, _ in records if left_out(record).kept]
    assert 30 < len(kept) < 150
    feature, loss, prediction = (monitored.detector.fed for monitored in watch._monitored)
    assert feature == kept
    assert len(loss) == 300
    assert prediction == [record.prediction for record, _ in records]


def test_drift_of_a_feature_is_told_at_its_own_example_when_others_have_no_vector() -> None:
    """Its place is that of the example in the log, and not the number of its vector."""
    records = [(left_out(record), 0.5) for record, _ in stream(2_000)]
    turned = [
        (msgspec.structs.replace(r, features=[9.0 if n > 1_000 else 1.0, 0.0]) if r.kept else r, frozen)
        for n, (r, frozen) in enumerate(records)
    ]
    watch = Watch(tiny_pipeline(negatives=SHARE, drift=[monitor("feature:x", drift.ADWIN)]))
    scored = columns_of(watch._pipeline, [(offset, record) for offset, (record, _) in enumerate(turned)])
    events = watch.observe_all(scored, np.full(len(turned), np.nan), len(turned) - 1)
    assert events
    assert all(turned[event.offset][0].kept and event.offset > 1_000 for event in events)


def test_watch_goes_on_from_its_state_and_refuses_that_of_another_share() -> None:
    records = [(left_out(record), frozen) for record, frozen in stream(3_000)]
    whole = watched(SHARE, records)
    half = Watch.load(whole._pipeline, watched(SHARE, records[:1_500]).dump())
    for offset, (record, frozen) in enumerate(records[1_500:], 1_500):
        half.observe(offset, record, frozen if record.kept else None)
    assert half.report() == whole.report()
    for share in (0.5, 1.0):
        with pytest.raises(ValueError, match="got settings"):
            Watch.load(tiny_pipeline(negatives=share, window=100), whole.dump())


def test_where_all_are_learned_the_saved_state_says_nothing_of_it() -> None:
    """A worker of this release goes on from what one without the choice has saved."""
    assert set(Watch(tiny_pipeline())._settings()) == {"task", "threshold", "horizon_ms", "span_ms", "frozen"}


def test_loss_alarm_counts_those_that_are_left_out() -> None:
    pipeline = tiny_pipeline(negatives=SHARE)
    alarm = LossAlarm(pipeline)
    for offset, (record, _) in enumerate(stream(50)):
        alarm.observe(offset, left_out(record), 0)
    assert alarm._state.examples == 50


# -- explain


@pytest.mark.parametrize("share", [0.5, 0.01, 1e-6])
def test_parts_of_a_corrected_prediction_add_up_to_the_score_of_the_model(share: float) -> None:
    """And the prediction is made of that score and the logarithm of the share, as the link says."""
    learner = Learner(tiny_pipeline(negatives=share))
    for offset, (record, _) in enumerate(stream(200)):
        learner.apply(offset, left_out(record, share))
    for x in (-300.0, -3.0, 0.5, 40.0, 1e3):
        vector = [x, 2.0]
        made = explain(learner.model, learner.predict, TinyFeatures.names, vector, [0.0, 0.0], negatives=share)
        assert made.method == "linear"
        assert made.link == f"logistic, of the score + log({share:g}), since that share of the negatives is learned"
        (part,) = made.parts
        assert part.score is not None
        odds = math.exp(part.score + math.log(share))
        assert learner.predict(vector) == pytest.approx(odds / (1.0 + odds), rel=1e-9, abs=1e-9)


def test_what_is_not_told_of_the_correction_cannot_take_a_prediction_apart() -> None:
    learner = Learner(tiny_pipeline(negatives=SHARE))
    for offset, (record, _) in enumerate(stream(200)):
        learner.apply(offset, left_out(record))
    made = explain(learner.model, learner.predict, TinyFeatures.names, VECTOR, [0.0, 0.0])
    assert made.method == "occlusion"


def test_reference_is_the_mean_of_examples_with_a_vector() -> None:
    history = History(version=10, schema=TinyFeatures.schema, kept=KEPT)
    for offset, record in enumerate(
        [example("a", outcome=True), example("b", outcome=False, kept=False), example("c", outcome=False)]
    ):
        history.see(offset, record)
    assert (history.before, history.kept, history.reference(2)) == (3, 2, VECTOR)


# -- the backtest


def history(n: int) -> list[Any]:
    """One event a minute, one in eight True, each labelled 90 seconds later."""
    chance = random.Random(5)
    items: list[Any] = []
    for number in range(n):
        x = chance.gauss(0, 1)
        items.append(Ping(id=f"e{number}", at=number * 60_000, x=x))
        items.append(Pong(id=f"e{number}", at=number * 60_000 + 90_000, y=x + chance.gauss(0, 0.5) > 1.3))
    return sorted(items, key=lambda item: item.at)


def test_backtest_learns_the_share_and_scores_all_beside_the_frozen_copy_too() -> None:
    log: list[LogRecord] = []
    made: dict[str, Prediction] = {}
    pipeline, begin = tiny_pipeline(negatives=SHARE), 400 * 60_000
    result = backtest(
        pipeline,
        history(800),
        freeze_at=begin,
        on_record=lambda _, record: log.append(record),
        on_prediction=lambda p: made.update({p.id: p}),
    )
    examples = [record for record in log if isinstance(record, Example)]
    negatives = [e for e in examples if not e.outcome]
    assert len(examples) == 800
    assert result.left_out == sum(not is_kept(e.id, SHARE) for e in negatives) > 100
    assert result.examples == 800 - result.left_out
    since = [e for e in examples if e.time_ms >= begin]
    frozen = Learner(pipeline)
    version = min(made[e.id].version for e in since)
    for offset, record in enumerate(log[:version]):
        frozen.apply(offset, record)
    expected = measure("binary", 0.5, [(frozen.predict(made[e.id].features), e.outcome) for e in since])
    assert result.frozen == {f"since_frozen_{name}": value for name, value in expected.items()}
    own = measure("binary", 0.5, [(e.prediction, e.outcome) for e in since])
    assert {f"since_frozen_{name}": value for name, value in own.items()}.items() <= result.metrics.items()


def test_backtest_forgets_the_vectors_of_what_has_expired() -> None:
    run = _Run(tiny_pipeline(negatives=SHARE), 0, None, None, None)
    for number in range(100):
        run.take(Ping(id=f"e{number}", at=number * HOUR))
    assert len(run._vectors) <= 3
