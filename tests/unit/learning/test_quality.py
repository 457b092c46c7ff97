"""Measures against River's own and against definitions worked out the slow way."""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics as river_metrics

from learning.quality import Tally, exact_roc_auc, measure

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
    for value, outcome in pairs:
        tally.add(value, outcome)
    scores, outcomes = zip(*pairs, strict=True)
    exact = exact_roc_auc(scores, outcomes)
    assert exact is not None
    assert abs(tally.report()["roc_auc"] - exact) < 1e-4


def test_equal_scores_are_worth_one_half_binned_and_exact() -> None:
    pairs: list[Any] = [(0.3, True), (0.3, False), (0.3, False)]
    assert measure("binary", 0.5, pairs)["roc_auc"] == 0.5
    tally = Tally("binary", 0.5)
    for pair in pairs:
        tally.add(*pair)
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


def test_base_rate_is_the_loss_of_always_saying_the_share() -> None:
    pairs: list[Any] = [(0.9, True), (0.1, False), (0.1, False), (0.2, False)]
    share = 0.25
    expected = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    assert measure("binary", 0.5, pairs)["base_rate_log_loss"] == pytest.approx(expected)


def test_regression_measures_are_rivers() -> None:
    rng = random.Random(3)
    pairs: list[Any] = [(rng.gauss(0, 2), rng.gauss(0, 2)) for _ in range(200)]
    mae, rmse = metrics.MAE(), metrics.RMSE()
    for value, outcome in pairs:
        mae.update(outcome, value)
        rmse.update(outcome, value)
    assert measure("regression", 0.5, pairs) == pytest.approx({"mae": mae.get(), "rmse": rmse.get()})


def test_multiclass_measures_by_hand() -> None:
    pairs: list[Any] = [({"a": 0.5, "b": 0.5}, "a"), ({"a": 0.25, "b": 0.75}, "a"), ({}, "b")]
    got = measure("multiclass", 0.5, pairs)
    assert got["accuracy"] == pytest.approx(1 / 3)
    assert got["log_loss"] == pytest.approx((math.log(2) + math.log(4) - math.log(1e-15)) / 3)


def test_certain_and_wrong_costs_a_finite_loss() -> None:
    assert measure("binary", 0.5, [(0.0, True)])["log_loss"] == pytest.approx(-math.log(1e-15))


def test_measure_that_is_not_defined_is_left_out() -> None:
    assert measure("binary", 0.5, []) == {}
    assert set(measure("binary", 0.5, [(0.1, False)])) == {"log_loss", "accuracy", "base_rate_log_loss"}


def test_anomaly_scores_beyond_one_keep_their_order() -> None:
    tally = Tally("anomaly", 0.5)
    for score in (-40.0, -2.0, 0.2, 0.7):
        tally.add(score, False)
    for score in (0.95, 1.5, 20.0, 1e12):
        tally.add(score, True)
    assert tally.report() == {"roc_auc": 1.0}


@given(SCORED)
def test_tally_continues_from_its_state(pairs: list[tuple[float, bool]]) -> None:
    one, two = Tally("binary", 0.5), Tally("binary", 0.5)
    for pair in pairs:
        one.add(*pair)
    two.restore(one.state())
    one.add(0.5, True)
    two.add(0.5, True)
    assert one.report() == two.report()
