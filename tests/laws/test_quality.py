"""Laws of quality in fixed memory.

1. Tallies of parts add up to the tally of the whole, and many examples at once are those examples one by one.
2. Windows and cohorts are what a scan of all stored examples says, at every place of the log.
3. Label delays are within 1 % of the exact quantiles, and add up.
4. A watch that was saved and loaded goes on to the last bit, wherever it was saved and asked.
5. Records at once come to what the same records come to one by one, to the last bit, however the log is cut.
"""

import math
import pickle
import random
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift as river_drift

from learning.baselines import Baselines
from learning.delays import Delays, exact_quantiles
from learning.losses import LossAlarm
from learning.quality import COARSE, Points, Tally, exact_roc_auc, loss_of, measure, point_of
from learning.records import Control, Example, LogRecord
from learning.watch import Watch, frozen_points
from learning.windows import HORIZON_TILES, KEPT_TILES, SPAN_TILES, cohort_ms
from tests.doubles import TinyFeatures, monitor, tiny_pipeline
from tests.folds import columns_of, is_scorable
from tests.tallies import add

HORIZON = 240  # ms, so a cohort is of 10
SPAN = 120  # ms, as a tile is

PROBABILITIES = st.floats(0, 1)
VALUES: dict[str, Any] = {
    "binary": st.tuples(PROBABILITIES, st.booleans()),
    "anomaly": st.tuples(st.floats(-5, 5), st.booleans()),
    "regression": st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    "multiclass": st.tuples(
        st.dictionaries(st.sampled_from(["a", "b", "c"]), PROBABILITIES), st.sampled_from(["a", "b", "c"])
    ),
}
TASKS = st.sampled_from(sorted(VALUES))


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, list[list[Any]]]:
    task = draw(TASKS)
    return task, draw(st.lists(st.lists(VALUES[task], max_size=60), min_size=1, max_size=4))


def tally_of(task: str, pairs: list[Any]) -> Tally:
    tally = Tally(task, 0.5)
    for pair in pairs:
        add(tally, *pair)
    return tally


def assert_alike(one: Tally, two: Tally) -> None:
    """Counts are the same; sums of floats are, but for the order in which they were added."""
    assert one.scores.tolist() == two.scores.tolist()
    assert one.curve.sums[::2].tolist() == two.curve.sums[::2].tolist()
    assert one.curve.sums[1] == pytest.approx(two.curve.sums[1])
    assert one.state()["counts"] == pytest.approx(two.state()["counts"], rel=1e-9, abs=1e-3)
    assert one.report() == pytest.approx(two.report(), rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(parts())
def test_parts_add_up_to_the_whole(drawn: tuple[str, list[list[Any]]]) -> None:
    task, lists = drawn
    merged = Tally(task, 0.5)
    for part in lists:
        merged.merge(tally_of(task, part))
    assert_alike(merged, tally_of(task, list(chain.from_iterable(lists))))


@pytest.mark.parametrize("task", sorted(VALUES))
@pytest.mark.parametrize("n", [0, 1, 31, 32, 500])
def test_many_at_once_are_the_same_one_by_one(task: str, n: int) -> None:
    rng = random.Random(n)
    makers: dict[str, Any] = {
        "binary": lambda: (rng.choice([0.0, 1.0, 0.5, rng.random()]), rng.random() < 0.4),
        "anomaly": lambda: (rng.gauss(0, 3), rng.random() < 0.4),
        "regression": lambda: (rng.gauss(0, 3), rng.gauss(0, 3)),
        "multiclass": lambda: ({c: rng.random() / 3 for c in rng.sample("abc", rng.randrange(4))}, rng.choice("abc")),
    }
    pairs = [makers[task]() for _ in range(n)]
    many = Tally(task, 0.5)
    many.take_all([point_of(*pair) for pair in pairs], [outcome for _, outcome in pairs])
    assert_alike(many, tally_of(task, pairs))


def test_tallies_that_are_not_alike_do_not_add_up() -> None:
    for other in (Tally("anomaly", 0.5), Tally("binary", 0.6), Tally("binary", 0.5, COARSE)):
        with pytest.raises(ValueError, match="only alike ones add up"):
            Tally("binary", 0.5).merge(other)


def test_coarse_bins_cost_the_roc_auc_less_than_a_thousandth() -> None:
    rng = random.Random(1)
    pairs = []
    for _ in range(20_000):
        logit = rng.gauss(-1.5, 2.0)
        pairs.append((1 / (1 + math.exp(-logit)), rng.random() < 1 / (1 + math.exp(-logit + rng.gauss(0, 1)))))
    tally = Tally("binary", 0.5, COARSE)
    tally.take_all(*zip(*pairs, strict=True))
    exact = exact_roc_auc(*zip(*pairs, strict=True))
    assert exact is not None
    assert abs(tally.report()["roc_auc"] - exact) < 1e-3


@st.composite
def logs(draw: st.DrawFn) -> list[Example]:
    """Examples in no order of event time, a few far ahead of the others, labels up to a horizon late or too early."""
    log, clock = [], 0
    for _ in range(draw(st.integers(1, 40))):
        clock += draw(st.sampled_from([0, 0, 1, 5, 30, 200]))
        time_ms = clock - draw(st.integers(0, HORIZON))
        source = draw(st.sampled_from(["label", "label", "expiry"]))
        value, outcome = draw(VALUES["binary"])
        label_ms = time_ms + draw(st.integers(-20, HORIZON))
        log.append(Example("a", "k", time_ms, label_ms, value, 0, [0.0, 0.0], TinyFeatures.schema, outcome, source))
    return log


def scan(examples: list[Example]) -> dict[str, float]:
    return measure("binary", 0.5, [(e.prediction, e.outcome) for e in examples])


def without_auc(report: dict[str, float], over: str) -> dict[str, float]:
    names = ("log_loss", "accuracy", "f1", "brier", "calibration_error")
    return {name: report[over + name] for name in names if over + name in report}


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_windows_and_cohorts_are_what_a_scan_says(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learning.watch._BATCH", batch)

    @settings(deadline=None, max_examples=20)
    @given(logs())
    def law(log: list[Example]) -> None:
        watch = Watch(tiny_pipeline(horizon_ms=HORIZON, span_ms=SPAN))
        for offset, example in enumerate(log):
            watch.observe(offset, example, None)
        report, tile_ms = watch.report(), cohort_ms(HORIZON)
        newest = max(e.time_ms for e in log) // (SPAN // SPAN_TILES)
        recent = [e for e in log if e.time_ms // (SPAN // SPAN_TILES) >= newest - SPAN_TILES]
        clock = max(max(e.time_ms, e.label_time_ms) for e in log)
        mature = [e for e in log if (e.time_ms // tile_ms + 1) * tile_ms + HORIZON <= clock]
        assert without_auc(report, "recent_") == pytest.approx(without_auc(scan(recent), ""))
        assert without_auc(report, "mature_") == pytest.approx(without_auc(scan(mature), ""))
        told: dict[int, int] = {}
        for e in log:
            start = e.time_ms // tile_ms * tile_ms
            if e.source == "label" and start >= (clock - HORIZON) // tile_ms * tile_ms - KEPT_TILES * tile_ms:
                told[start] = told.get(start, 0) + 1
        assert watch.labelled() == told

    law()


def test_memory_does_not_grow_with_the_log() -> None:
    rng = random.Random(2)
    watch = Watch(tiny_pipeline(horizon_ms=HORIZON, span_ms=SPAN, window=100))
    sizes = []
    for offset in range(10_240):
        example = Example(
            "a", "k", offset, offset + rng.randrange(HORIZON), rng.random(), 0, [0.0, 0.0], TinyFeatures.schema,
            rng.random() < 0.3, "label",
        )  # fmt: skip
        watch.observe(offset, example, None)
        if offset % 2_560 == 2_559:
            sizes.append(len(watch.dump()))
    assert max(sizes) < 1.5 * sizes[0]  # while the log became four times as long
    assert len(watch.labelled()) <= HORIZON_TILES + 2 + KEPT_TILES


DELAYS = st.lists(st.integers(-1000, 10**12), max_size=50)


@settings(deadline=None, max_examples=40)
@given(DELAYS, DELAYS)
def test_label_delays_are_known_to_one_percent_and_add_up(one: list[int], two: list[int]) -> None:
    first, second = Delays(), Delays()
    first.add_all(np.array(one, dtype=np.int64))
    second.add_all(np.array(two, dtype=np.int64))
    first.merge(second)
    assert first.quantiles() == pytest.approx(exact_quantiles(one + two), rel=0.0101)


@pytest.mark.parametrize("task", sorted(VALUES))
def test_a_watch_goes_on_to_the_last_bit_wherever_it_was_saved_and_asked(task: str) -> None:
    rng = random.Random(task)
    values: dict[str, Any] = {"multiclass": lambda: {"a": rng.random(), "b": rng.random()}}
    outcomes: dict[str, Any] = {"multiclass": lambda: rng.choice("ab"), "regression": rng.random}
    pipeline = tiny_pipeline(task=task, horizon_ms=HORIZON, span_ms=SPAN)
    whole, cut = Watch(pipeline), Watch(pipeline)
    cuts = {0, 255, 256, *rng.sample(range(600), 4)}
    for offset in range(600):
        value = values.get(task, rng.random)()
        outcome = outcomes.get(task, lambda: rng.random() < 0.3)()
        example = Example(
            "a", "k", offset, offset + rng.randrange(HORIZON), value, 0, [0.0, 0.0], TinyFeatures.schema,
            outcome, "label",
        )  # fmt: skip
        frozen = value if offset > 100 else None
        whole.observe(offset, example, frozen)
        cut.observe(offset, example, frozen)
        if offset in cuts:
            cut.report()
            cut = Watch.load(pipeline, cut.dump())
    assert cut.report() == whole.report()
    assert pickle.loads(cut.dump()) == pickle.loads(whole.dump())


@settings(deadline=None, max_examples=60)
@given(TASKS.flatmap(lambda task: st.tuples(st.just(task), st.lists(VALUES[task], max_size=80))), st.integers(1, 5))
def test_groups_of_points_are_the_same_one_by_one(drawn: tuple[str, list[Any]], n: int) -> None:
    task, pairs = drawn
    groups = [hash((i, n)) % n for i in range(len(pairs))]
    slow, fast = ([Tally(task, 0.5, COARSE) for _ in range(n)] for _ in range(2))
    for group, pair in zip(groups, pairs, strict=True):
        add(slow[group], *pair)
    points = Points(task, 0.5, [point_of(*pair) for pair in pairs], [outcome for _, outcome in pairs])
    points.to_groups(fast, np.array(groups, dtype=np.int64))
    for one, two in zip(slow, fast, strict=True):
        assert_alike(one, two)


@settings(deadline=None, max_examples=60)
@given(TASKS.flatmap(lambda task: st.tuples(st.just(task), st.lists(VALUES[task], max_size=50))), st.integers(0, 50))
def test_baselines_at_once_say_what_they_say_one_by_one(drawn: tuple[str, list[Any]], cut: int) -> None:
    task, pairs = drawn
    outcomes = [outcome for _, outcome in pairs]
    slow, fast = Baselines(task), Baselines(task)
    said = []
    for outcome in outcomes:
        said.append((slow.base_rate(), slow.last_label()))
        slow.learn(outcome)
    got: list[Any] = []
    for part in (outcomes[:cut], outcomes[cut:]):
        got += zip(*(each.tolist() for each in fast.go_through(column(part))), strict=True)
    points = [[point_of(value, outcome) for value in pair] for pair, outcome in zip(said, outcomes, strict=True)]
    assert [[point if task != "multiclass" else tuple(point) for point in pair] for pair in got] == points
    assert fast.state() == slow.state()


def column(outcomes: list[Any]) -> Any:
    """Outcomes of one task as `learning.scored` has them."""
    return np.array(outcomes, dtype=object if outcomes and isinstance(outcomes[0], str) else None)


DAY = 86_400_000


def a_log(task: str, n: int) -> list[LogRecord]:
    """Examples with days between them, and all that none of the model's are: controls, corrections, other features."""
    rng = random.Random(f"{task}{n}")
    values: dict[str, Any] = {"multiclass": lambda: {"a": rng.random(), "b": rng.random()}}
    outcomes: dict[str, Any] = {"multiclass": lambda: rng.choice("ab"), "regression": rng.random}
    log: list[LogRecord] = []
    for number in range(n):
        at = number * DAY // 300
        value = min(1.0, rng.random() + number / n) if task != "multiclass" else values[task]()
        outcome = outcomes.get(task, lambda: rng.random() < 0.3)()
        example = Example(
            "a", "k", at, at + rng.randrange(60_000), value, 0, [rng.random(), 1.0], TinyFeatures.schema, outcome,
            rng.choice(["label", "label", "expiry"]),
        )  # fmt: skip
        changes: list[dict[str, Any]] = [
            {"source": "correction"}, {"schema": "another"}, {"features": [1.0]}, {"outcome": 3},
            {"features": [1e300, 0.0]}, {"prediction": 0.5 if task == "multiclass" else {"a": 1.0}},
        ]  # fmt: skip
        log.append(msgspec.structs.replace(example, **rng.choice(changes)) if rng.random() < 0.05 else example)
        if rng.random() < 0.02:
            log.append(Control("freeze", at, "x"))
    return log


@pytest.mark.parametrize("task", sorted(VALUES))
def test_costs_are_losses_of_what_is_scorable(task: str) -> None:
    pipeline, log = tiny_pipeline(task=task), a_log(task, 500)
    expected = [
        loss_of(task, record.prediction, record.outcome)
        if isinstance(record, Example) and is_scorable(pipeline, record)
        else None
        for record in log
    ]
    scored = columns_of(pipeline, list(enumerate(log)))
    assert dict(zip(scored.offsets.tolist(), scored.costs.tolist(), strict=True)) == {
        offset: cost for offset, cost in enumerate(expected) if cost is not None
    }
    assert None in expected


@pytest.mark.parametrize("task", sorted(VALUES))
@pytest.mark.parametrize("longest", [2, 40, 3_000])
def test_the_log_comes_to_the_same_however_it_is_cut(task: str, longest: int) -> None:
    kinds: Any = river_drift
    monitors = [
        monitor("loss", kinds.ADWIN),
        monitor("loss", kinds.binary.DDM),
        monitor("prediction", lambda: kinds.PageHinkley(min_instances=30)),
        monitor("feature:x", kinds.ADWIN),
    ]
    pipeline, log = tiny_pipeline(task=task, drift=monitors, baseline_examples=20), a_log(task, 2_500)
    rng = random.Random(longest)
    frozen = {
        offset: None if offset < 300 else record.prediction
        for offset, record in enumerate(log)
        if isinstance(record, Example)
    }
    slow, fast = Watch(pipeline), Watch(pipeline)
    slow_alarm, fast_alarm = LossAlarm(pipeline), LossAlarm(pipeline)
    expected: list[Any] = []
    for offset, record in enumerate(log):
        expected.append(slow_alarm.observe(offset, record, 9))
        expected += slow.observe(offset, record, frozen.get(offset))
    got: list[Any] = []
    at = 0
    while at < len(log):
        begin = max(0, at - rng.randrange(3))  # some come again
        part = list(enumerate(log))[begin : at + rng.randrange(1, longest)]
        at = part[-1][0] + 1
        scored = columns_of(pipeline, part, wall_ms=9)
        got += fast_alarm.observe_all(scored, part[-1][0])
        said = frozen_points([frozen[offset] for offset in scored.offsets.tolist()], scored)
        got += fast.observe_all(scored, said, part[-1][0])
    expected = [each for each in expected if each is not None]
    assert sorted(got, key=_place) == sorted(expected, key=_place)
    assert got or task == "multiclass"
    assert pickle.loads(fast.dump())["quality"] == pickle.loads(slow.dump())["quality"]
    assert fast.report() == slow.report()
    assert fast_alarm.dump() == slow_alarm.dump()


def _place(found: Any) -> tuple[int, str, str]:
    return found.offset, found.signal, found.detector
