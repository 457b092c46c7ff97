"""Measures against River's own and against definitions worked out the slow way."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics as river_metrics

from learning.quality import Curve, Points, Tally, exact_roc_auc, measure, point_of
from tests.tallies import add

metrics: Any = river_metrics  # River's constructors carry no types

SCORED = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def pairwise_auc(pairs: list[tuple[float, bool]]) -> float | None:
    wins = [(p > n) + (p == n) / 2 for p, y in pairs if y for n, z in pairs if not z]
    return sum(wins) / len(wins) if wins else None


def noisy(n: int, seed: int = 1) -> list[tuple[float, bool]]:
    rng = random.Random(seed)
    pairs = []
    for _ in range(n):
        logit = rng.gauss(-1.5, 2.0)
        pairs.append((1 / (1 + math.exp(-logit)), rng.random() < 1 / (1 + math.exp(-logit + rng.gauss(0, 1)))))
    return pairs


@given(SCORED)
def test_exact_roc_auc_is_the_share_of_pairs_in_order(pairs: list[tuple[float, bool]]) -> None:
    scores, outcomes = zip(*pairs, strict=True)
    expected = pairwise_auc(pairs)
    got = exact_roc_auc(scores, outcomes)
    assert got == (None if expected is None else pytest.approx(expected))


def test_binned_roc_auc_is_within_a_ten_thousandth_of_the_exact() -> None:
    pairs = noisy(20_000)
    tally = Tally("binary", 0.5)
    scores, outcomes = zip(*pairs, strict=True)
    tally.take_all(scores, outcomes)
    exact = exact_roc_auc(scores, outcomes)
    assert exact is not None
    assert abs(tally.report()["roc_auc"] - exact) < 1e-4


def test_equal_scores_are_worth_one_half_binned_and_exact() -> None:
    pairs: list[Any] = [(0.3, True), (0.3, False), (0.3, False)]
    assert measure("binary", 0.5, pairs)["roc_auc"] == 0.5
    tally = Tally("binary", 0.5)
    tally.take_all(*zip(*pairs, strict=True))
    assert tally.report()["roc_auc"] == 0.5


def test_binary_measures_are_rivers() -> None:
    pairs: list[Any] = noisy(500)
    theirs: dict[str, Any] = {"log_loss": metrics.LogLoss(), "accuracy": metrics.Accuracy(), "f1": metrics.F1()}
    for value, outcome in pairs:
        theirs["log_loss"].update(outcome, {True: value, False: 1 - value})
        for name in ("accuracy", "f1"):
            theirs[name].update(outcome, value >= 0.5)
    ours = measure("binary", 0.5, pairs)
    assert {name: ours[name] for name in theirs} == pytest.approx({n: m.get() for n, m in theirs.items()})


def test_calibration_error_and_brier_score_by_hand() -> None:
    pairs: list[Any] = [(0.9, True), (1.0, False), (0.12, False), (0.18, False), (0.35, True)]
    got = measure("binary", 0.5, pairs)
    # Bins: [0.9, 1] with mean 0.95 and half of them True, [0.1, 0.2) with 0.15 and none, [0.3, 0.4) with 0.35 and all.
    assert got["calibration_error"] == pytest.approx((2 * abs(0.95 - 0.5) + 2 * 0.15 + 1 * 0.65) / 5)
    assert got["brier"] == pytest.approx((0.1**2 + 1 + 0.12**2 + 0.18**2 + 0.65**2) / 5)


def test_calibration_of_several_classes_is_of_the_most_probable_one() -> None:
    pairs: list[Any] = [({"a": 0.7, "b": 0.3}, "a"), ({"a": 0.75, "b": 0.25}, "b"), ({"a": 0.4, "b": 0.6}, "b")]
    got = measure("multiclass", 0.5, pairs)
    assert got["calibration_error"] == pytest.approx((2 * abs(0.725 - 0.5) + 0.4) / 3)
    assert got["brier"] == pytest.approx((2 * 0.3**2 + 2 * 0.75**2 + 2 * 0.4**2) / 3)


def test_brier_score_of_a_class_that_was_given_no_probability() -> None:
    assert measure("multiclass", 0.5, [({"a": 1.0}, "b")])["brier"] == 2.0


def test_probability_beyond_its_range_lies_in_the_outermost_bin() -> None:
    curve = Curve()
    curve.add_all(np.array([-0.5, 0.0, 1.0, 1e300]), np.ones(4, dtype=bool))
    assert curve.sums[0, [0, -1]].tolist() == [2, 2]


def test_regression_measures_are_rivers() -> None:
    rng = random.Random(3)
    pairs: list[Any] = [(rng.gauss(0, 2), rng.gauss(0, 2)) for _ in range(200)]
    mae, rmse = metrics.MAE(), metrics.RMSE()
    for value, outcome in pairs:
        mae.update(outcome, value)
        rmse.update(outcome, value)
    bias = sum(value - outcome for value, outcome in pairs) / len(pairs)
    assert measure("regression", 0.5, pairs) == pytest.approx({"mae": mae.get(), "rmse": rmse.get(), "bias": bias})


def test_errors_too_large_for_a_number_are_left_out() -> None:
    pairs: list[Any] = [(1e308, -1e308), (0.0, 1.0)] * 30
    assert measure("regression", 0.5, pairs) == measure("regression", 0.5, pairs[:4]) == {}


def test_multiclass_measures_by_hand() -> None:
    pairs: list[Any] = [({"a": 0.5, "b": 0.5}, "a"), ({"a": 0.25, "b": 0.75}, "a"), ({}, "b")]
    got = measure("multiclass", 0.5, pairs)
    assert got["accuracy"] == pytest.approx(1 / 3)
    assert got["log_loss"] == pytest.approx((math.log(2) + math.log(4) - math.log(1e-15)) / 3)


def test_certain_and_wrong_costs_a_finite_loss() -> None:
    assert measure("binary", 0.5, [(0.0, True)])["log_loss"] == pytest.approx(-math.log(1e-15))


def test_measure_that_is_not_defined_is_left_out() -> None:
    assert measure("binary", 0.5, []) == {}
    assert set(measure("binary", 0.5, [(0.1, False)])) == {"log_loss", "accuracy", "brier", "calibration_error"}


def test_anomaly_scores_beyond_one_keep_their_order() -> None:
    tally = Tally("anomaly", 0.5)
    tally.take_all([-40.0, -2.0, 0.2, 0.7, 0.95, 1.5, 20.0, 1e12], [False] * 4 + [True] * 4)
    assert tally.report() == {"roc_auc": 1.0}


@given(SCORED)
def test_tally_continues_from_its_state(pairs: list[tuple[float, bool]]) -> None:
    one, two = Tally("binary", 0.5), Tally("binary", 0.5)
    one.take_all(*zip(*pairs, strict=True))
    two.restore(one.state())
    for tally in (one, two):
        tally.take_all([0.5], [True])
    assert one.report() == two.report()


@pytest.mark.parametrize(
    ("task", "value", "outcome"),
    [
        ("binary", -1e308, False),
        ("binary", 1e308, True),
        ("regression", -1e308, 1.0),
        ("multiclass", {"a": 1e308, "b": 0.5}, "a"),
        ("multiclass", {"a": -1e308, "b": 0.5}, "a"),
    ],
)
def test_predictions_beyond_all_bounds_are_counted_many_at_once_as_one_by_one(
    task: str, value: Any, outcome: Any
) -> None:
    """The fuzz found it in a forged example: numpy warned of an overflow where a float of Python becomes infinite."""
    fine: Any = {"binary": 0.25, "regression": 0.5, "multiclass": {"a": 0.75, "b": 0.25}}[task]
    values = [fine] * 40 + [value] * 2
    points = [point_of(one, outcome) for one in values]
    alone, together = Tally(task, 0.5), Tally(task, 0.5)
    for one in values:
        add(alone, one, outcome)
    Points(task, 0.5, points, [outcome] * len(points)).to(together)
    assert together.report() == pytest.approx(alone.report())
    assert "rmse" not in together.report()
    assert task == "regression" or "brier" not in together.report()


@pytest.mark.parametrize("task", ["binary", "multiclass", "anomaly", "regression"])
def test_counts_of_a_saved_tally_are_whole_numbers(task: str) -> None:
    """Versions before this one read them, and write them into reports, where a count with a point is refused."""
    tally = Tally(task, 0.5)
    pairs: list[Any] = [({"True": value} if task == "multiclass" else value, truth) for value, truth in noisy(40)]
    tally.take_all([point_of(*pair) for pair in pairs], [outcome for _, outcome in pairs])
    state = tally.state()
    n, loss, squared, error, *said = state["counts"]
    assert [type(count) for count in (n, *said)] == [int] * 5
    assert [type(total) for total in (loss, squared, error)] == [float] * 3
    counts, _, came = state["curve"]
    assert {type(count) for count in (*counts, *came, *state["negative"].values())} == {int}
    again = Tally(task, 0.5)
    again.restore(state)
    assert again.sums.tolist() == tally.sums.tolist()
