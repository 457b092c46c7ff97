"""The parts of the e-detectors against their definitions."""

import random

import pytest
from scipy import integrate, stats

from learning.alarms import LEAST, Usual, alarm_threshold, evidence, new_bet, student_sf


@pytest.mark.parametrize("df", [1, 2, 3, 8, 9, 30, 67])
@pytest.mark.parametrize("t", [-3.0, 0.0, 0.5, 1.0, 3.0, 8.0])
def test_students_tail_is_scipys(t: float, df: int) -> None:
    assert student_sf(t, df) == pytest.approx(float(stats.t.sf(t, df)), abs=1e-12)


@pytest.mark.parametrize("p", [0.9, 0.5, 0.05, 0.001])
def test_evidence_is_the_mean_of_all_power_bets(p: float) -> None:
    mean, _ = integrate.quad(lambda k: k * p ** (k - 1.0), 0.0, 1.0)
    assert evidence(p, 1_000) == pytest.approx(mean, rel=1e-6)


def test_a_bet_pays_nothing_on_average_when_p_is_uniform() -> None:
    mean, _ = integrate.quad(lambda p: evidence(p, 60), 0.0, 1.0, points=[1e-5, 1e-4, 1e-2], limit=500)
    assert mean <= 1.0


def test_a_tail_that_was_hardly_seen_is_not_believed() -> None:
    assert evidence(1e-12, LEAST) == evidence(1e-6, LEAST) < evidence(1e-12, 60)


def test_nothing_is_bet_before_there_is_something_usual() -> None:
    bet = new_bet(0.3, 0.3)
    for _ in range(LEAST):
        assert bet.take([1.0, None]) == 0.0
    assert bet.take([9.0, None]) > 3.0


def test_what_is_new_does_not_count_as_usual_at_once() -> None:
    usual = Usual(0.3)
    for _ in range(20):
        usual.take(0.0)
    before = usual.mean, usual.n
    usual.take(5.0)
    assert (usual.mean, usual.n) == (before[0], before[1] + 1.0)  # a zero that had waited


def test_average_run_before_a_false_alarm_is_as_long_as_the_threshold() -> None:
    """Of normal statistics, whose p-values are all but uniform: the mean run is the threshold or more."""
    rng = random.Random(1)
    runs = []
    for _ in range(150):
        bets = [new_bet(0.3) for _ in range(3)]
        length = 0
        while sum(bet.value for bet in bets) / 3 < 10.0 and length < 300:
            for bet in bets:
                bet.take([rng.gauss(0.0, 0.3)])
            length += bets[0].armed
        runs.append(length)
    assert sum(runs) / len(runs) >= 10.0


def test_threshold_follows_from_the_budget() -> None:
    assert alarm_threshold(1 / 30, 1.0) == 60.0
    assert alarm_threshold(1 / 30, 7.0) == pytest.approx(60 / 7)
    assert alarm_threshold(100.0, 1.0) == 2.0


def test_a_change_is_dated_to_where_the_best_bet_began() -> None:
    bet, rng = new_bet(0.3), random.Random(4)
    for window in range(60):
        bet.take([rng.gauss(0.0, 0.3) + (1.5 if window >= 50 else 0.0)], 1_000 * window)
        if bet.value > 100.0:
            break
    assert 47_000 <= bet.since_ms <= 51_000  # chance may have paid a window or two before
    bet.forget()
    assert (bet.value, bet.armed) == (0.0, True)
    bet.take([0.0], 77_000)
    assert bet.since_ms == 77_000
