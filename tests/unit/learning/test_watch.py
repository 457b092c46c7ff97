"""Quality and drift over the training log."""

import math
import pickle
import random
from typing import Any

import msgspec
import pytest
from river import drift as river_drift

from learning.quality import MEASURES, measure
from learning.records import Example, Outcome, Value
from learning.reports import Bin, Report
from learning.watch import OVER, Watch
from tests.doubles import TinyFeatures, monitor, tiny_pipeline

drift: Any = river_drift  # River's constructors carry no types


def example(value: Value, outcome: Outcome, *, x: float = 0.0, source: str = "label") -> Example:
    return Example("a", "k", 0, 77, value, 5, [x, 0.0], TinyFeatures.schema, outcome, source)


def stream(n: int, *, turn: int) -> list[Example]:
    """Predictions of 0.2 or 0.8 that are right nine times in ten, and from `turn` on only once in ten."""
    rng = random.Random(4)
    return [
        example(0.8 if (y := rng.random() < 0.5) == (rng.random() < (0.9 if i < turn else 0.1)) else 0.2, y, x=float(i))
        for i in range(n)
    ]


def detectors() -> list[Any]:
    return [
        monitor("loss", drift.ADWIN),
        monitor("loss", drift.binary.DDM),
        monitor("prediction", lambda: drift.PageHinkley(min_instances=30)),
        monitor("feature:x", drift.ADWIN),
    ]


def test_report_is_empty_before_the_first_example() -> None:
    assert Watch(tiny_pipeline()).report() == {}


def test_report_measures_all_and_the_last_of_them() -> None:
    watch = Watch(tiny_pipeline(window=10))
    log = stream(50, turn=25)
    for offset, record in enumerate(log):
        watch.observe(offset, record, None)
    report = watch.report()
    everything = measure("binary", 0.5, [(e.prediction, e.outcome) for e in log])
    last = measure("binary", 0.5, [(e.prediction, e.outcome) for e in log[-10:]])
    for name in ("roc_auc", "log_loss", "accuracy", "f1"):
        assert report[name] == pytest.approx(everything[name], abs=1e-3)
        assert report[f"rolling_{name}"] == last[name]
    assert not [name for name in report if "frozen" in name]


def test_frozen_copy_and_online_model_are_measured_over_the_same_examples() -> None:
    watch = Watch(tiny_pipeline())
    watch.observe(0, example(0.9, False), None)
    for offset, (online, frozen, outcome) in enumerate([(0.9, 0.4, True), (0.1, 0.6, False)], 1):
        watch.observe(offset, example(online, outcome), frozen)
    report = watch.report()
    assert (report["online_since_frozen_roc_auc"], report["frozen_roc_auc"], report["roc_auc"]) == (1, 0, 0.75)
    assert report["frozen_log_loss"] > report["online_since_frozen_log_loss"]


def test_correction_and_record_read_again_are_not_scored_again() -> None:
    watch = Watch(tiny_pipeline())
    watch.observe(3, example(0.9, True), None)
    before = watch.report()
    watch.observe(3, example(0.1, True), None)
    watch.observe(4, example(0.1, True, source="correction"), None)
    assert (watch.report(), watch.offset) == (before, 4)


def test_loss_that_turns_is_detected_soon_after_and_reported_once_per_detection() -> None:
    watch = Watch(tiny_pipeline(drift=detectors()[:2]))
    events = [e for offset, r in enumerate(stream(800, turn=400)) for e in watch.observe(offset, r, None)]
    by_adwin = [e for e in events if e.detector == "ADWIN"]
    assert 400 < by_adwin[0].offset < 480
    assert (by_adwin[0].pipeline, by_adwin[0].signal, by_adwin[0].time_ms, by_adwin[0].version) == (
        "tiny",
        "loss",
        77,
        5,
    )
    assert [e.n_detections for e in by_adwin] == list(range(1, len(by_adwin) + 1))
    assert [e for e in events if e.detector == "DDM"]


def test_feature_that_moves_is_detected_by_its_name() -> None:
    watch = Watch(tiny_pipeline(drift=[monitor("feature:x", drift.ADWIN)]))
    events = []
    for offset in range(600):
        events += watch.observe(offset, example(0.5, True, x=float(offset > 300)), None)
    assert events[0].signal == "feature:x"
    assert events[0].value == 1.0


@pytest.mark.parametrize("cut", [0, 1, 399, 430])
def test_watch_continues_from_its_dump(cut: int) -> None:
    pipeline = tiny_pipeline(drift=detectors())
    log = stream(800, turn=400)
    whole = Watch(pipeline)
    expected = [e for offset, r in enumerate(log) for e in whole.observe(offset, r, 0.5)]
    first = Watch(pipeline)
    got = [e for offset, r in enumerate(log[:cut]) for e in first.observe(offset, r, 0.5)]
    second = Watch.load(pipeline, first.dump())
    got += [e for offset, r in enumerate(log) for e in second.observe(offset, r, 0.5)]  # from the start: passed over
    assert got == expected
    assert second.report() == whole.report()


def test_dump_of_other_monitors_or_layout_is_refused() -> None:
    data = Watch(tiny_pipeline()).dump()
    with pytest.raises(ValueError, match="monitors"):
        Watch.load(tiny_pipeline(drift=detectors()), data)
    with pytest.raises(ValueError, match="layout"):
        Watch.load(tiny_pipeline(), pickle.dumps({"layout": 99}))
    with pytest.raises(pickle.UnpicklingError):
        Watch.load(tiny_pipeline(), data[:-10])


@pytest.mark.parametrize(
    ("task", "value", "outcome", "names"),
    [
        ("regression", 2.0, 3.5, {"mae", "rmse", "bias"}),
        ("multiclass", {"a": 0.6, "b": 0.4}, "b", {"accuracy", "log_loss", "brier", "calibration_error"}),
        ("anomaly", 0.7, True, set()),
    ],
)
def test_other_tasks_have_their_measures(task: str, value: Value, outcome: Outcome, names: set[str]) -> None:
    watch = Watch(tiny_pipeline(task=task, drift=detectors()))
    watch.observe(0, example(value, outcome), value)
    report = watch.report()
    assert {name for name in report if name in MEASURES} == names
    for over in OVER:
        if over != "mature_":  # the only example is not
            assert {name for name in report if name.removeprefix(over) in names and name.startswith(over)} == {
                over + name for name in names
            }
    assert not [name for name in report if name.startswith("mature_")]


def test_base_rate_is_asked_before_it_is_told() -> None:
    watch = Watch(tiny_pipeline(window=2))
    for offset, outcome in enumerate([True, True, False, True]):
        watch.observe(offset, example(0.5, outcome), None)
    report = watch.report()
    losses = [-math.log(p) for p in (1 / 2, 2 / 3, 1 - 3 / 4, 3 / 5)]
    assert report["base_rate_log_loss"] == pytest.approx(sum(losses) / 4)
    assert report["rolling_base_rate_log_loss"] == pytest.approx(sum(losses[2:]) / 2)


def test_expiry_is_scored_but_is_no_label() -> None:
    watch = Watch(tiny_pipeline())
    watch.observe(0, example(0.1, False, source="expiry"), None)
    filled = watch.fill(Report("tiny", 0))
    assert (filled.examples, filled.quality["total"]["accuracy"]) == (1, 1)
    assert (filled.label_delay, watch.labelled()) == ({}, {})
    watch.observe(1, example(0.1, False), None)
    assert watch.labelled() == {0: 1}
    assert watch.fill(Report("tiny", 0)).label_delay["p50"] == 0.077


def test_report_is_filled_with_what_the_log_tells() -> None:
    watch = Watch(tiny_pipeline(window=4))
    for offset, (value, outcome) in enumerate([(0.9, True), (0.95, False), (0.1, False), (0.15, False), (0.1, True)]):
        watch.observe(offset, example(value, outcome), 0.5 if offset > 2 else None)
    filled = watch.fill(Report("tiny", 5, version=9, dead_letters={"malformed": 0.5}))
    assert (filled.pipeline, filled.wall_ms, filled.version, filled.dead_letters) == ("tiny", 5, 9, {"malformed": 0.5})
    assert (filled.offset, filled.label_ms, filled.examples, filled.task) == (4, 77, 5, "binary")
    assert set(filled.quality) == {"total", "rolling", "recent", "frozen", "since_frozen"}
    assert set(filled.baselines) == {"base_rate", "last_label", "rolling_base_rate", "rolling_last_label"}
    low, high = filled.calibration
    assert (low.n, high) == (3, Bin(1, 0.95, 0.0))
    assert (low.predicted, low.observed) == pytest.approx((0.35 / 3, 1 / 3))
    assert filled.calibration_error == filled.quality["rolling"]["calibration_error"]
    assert filled.label_delay == pytest.approx(
        {"p50": 0.077, "p90": 0.077, "p99": 0.077, "total_p50": 0.077, "total_p90": 0.077, "total_p99": 0.077}, rel=0.01
    )
    assert msgspec.json.decode(msgspec.json.encode(filled), type=Report) == filled


@pytest.mark.parametrize(
    "other", [{"horizon_ms": 5}, {"span_ms": 5}, {"threshold": 0.7}, {"frozen_at": 3}, {"baseline_examples": 6}]
)
def test_dump_of_other_settings_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="settings"):
        Watch.load(tiny_pipeline(**other), Watch(tiny_pipeline()).dump())


def test_the_last_examples_are_those_of_the_window_and_no_more_are_kept() -> None:
    rng = random.Random(3)
    pairs = [(rng.random(), rng.random() < 0.4) for _ in range(5_000)]
    watch = Watch(tiny_pipeline(window=700))
    for offset, (value, outcome) in enumerate(pairs):
        watch.observe(offset, example(value, outcome), None)
        recent = watch._quality.recent
        assert recent is None or len(recent.outcomes) <= 700
    rolling = measure("binary", 0.5, pairs[-700:])
    assert {name: watch.report()[f"rolling_{name}"] for name in rolling} == pytest.approx(rolling)
    again = Watch.load(tiny_pipeline(window=700), watch.dump())
    assert again.report() == watch.report()
    assert pickle.loads(again.dump())["quality"] == pickle.loads(watch.dump())["quality"]
