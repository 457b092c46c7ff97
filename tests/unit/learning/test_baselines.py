"""What a model must beat."""

import random
from itertools import pairwise
from typing import Any

import pytest

from learning.baselines import Baselines
from learning.quality import measure
from learning.records import Outcome


def told(task: str, *outcomes: Outcome) -> Baselines:
    baselines = Baselines(task)
    for outcome in outcomes:
        baselines.learn(outcome)
    return baselines


def scores(task: str, outcomes: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Measures of the base rate and of the last label over a stream of outcomes."""
    baselines = Baselines(task)
    pairs: tuple[list[Any], list[Any]] = ([], [])
    for outcome in outcomes:
        pairs[0].append((baselines.base_rate(), outcome))
        pairs[1].append((baselines.last_label(), outcome))
        baselines.learn(outcome)
    return measure(task, 0.5, pairs[0]), measure(task, 0.5, pairs[1])


def persistent(n: int, stay: float) -> list[bool]:
    rng, outcome, outcomes = random.Random(6), False, []
    for _ in range(n):
        outcome = outcome if rng.random() < stay else not outcome
        outcomes.append(outcome)
    return outcomes


def test_base_rate_follows_the_rule_of_succession() -> None:
    assert [told("binary", *[True] * n).base_rate() for n in range(3)] == [1 / 2, 2 / 3, 3 / 4]
    assert told("multiclass").base_rate() == {}
    assert told("multiclass", "a", "b", "a").base_rate() == {"a": 3 / 5, "b": 2 / 5}
    assert told("regression").base_rate() == 0.0
    assert told("regression", 1.0, 5.0).base_rate() == 3.0


def test_last_label_says_how_often_the_last_one_was_followed_by_itself() -> None:
    assert told("binary").last_label() == 0.5
    # True was followed by True, True, False; False by nothing yet.
    assert told("binary", True, True, True, False).last_label() == 1 - 1 / 2
    assert told("binary", True, True, True, False, True).last_label() == 3 / 5
    assert told("regression").last_label() == 0.0
    assert told("regression", 1.0, 5.0).last_label() == 5.0


def test_last_label_gives_what_is_left_to_the_other_classes_by_their_frequency() -> None:
    said = told("multiclass", "a", "a", "b", "c", "b", "a", "a").last_label()
    assert said == pytest.approx({"a": 3 / 5, "b": 2 / 5 * 2 / 3, "c": 2 / 5 / 3})
    assert told("multiclass", "a").last_label() == {"a": 0.5}


def test_where_outcomes_persist_the_last_label_is_the_no_change_classifier() -> None:
    outcomes = persistent(2000, 0.9)
    _, last = scores("binary", outcomes)
    repeated = sum(a == b for a, b in pairwise(outcomes)) / (len(outcomes) - 1)
    assert last["accuracy"] == pytest.approx(repeated, abs=0.005)
    assert last["log_loss"] < 0.36  # the entropy of a coin of 0.9 is 0.325


def test_where_they_do_not_it_is_no_worse_than_the_base_rate() -> None:
    rng = random.Random(8)
    base, last = scores("binary", [rng.random() < 0.02 for _ in range(5000)])
    assert last["log_loss"] == pytest.approx(base["log_loss"], abs=0.002)
    base, last = scores("multiclass", rng.choices(["a", "b", "c"], [6, 3, 1], k=5000))
    assert last["log_loss"] == pytest.approx(base["log_loss"], abs=0.01)


@pytest.mark.parametrize(
    ("task", "outcomes"),
    [("binary", [True, False, False]), ("multiclass", ["a", "b", "b"]), ("regression", [1.5, 2.0])],
)
def test_baselines_continue_from_their_state(task: str, outcomes: list[Any]) -> None:
    one = told(task, *outcomes)
    two = Baselines(task)
    two.restore(one.state())
    for baselines in (one, two):
        baselines.learn(outcomes[0])
    assert (one.base_rate(), one.last_label(), one.state()) == (two.base_rate(), two.last_label(), two.state())
