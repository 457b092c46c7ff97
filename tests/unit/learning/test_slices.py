"""The groups whose loss grew, and the inputs that moved, as they were put in."""

from typing import Any

import numpy as np
import pytest

from learning.records import Example
from learning.slices import LEAST, moved, vectors_of, worst_slices

NAMES = ("amount", "online", "constant")


def vectors(n: int, *, seed: int, factor: float = 1.0, online: float = 0.3) -> Any:
    rng = np.random.default_rng(seed)
    return np.column_stack([factor * rng.normal(10.0, 2.0, n), rng.random(n) < online, np.full(n, 5.0)])


def losses(n: int, seed: int, level: float = 0.3) -> Any:
    return np.random.default_rng(seed).exponential(level, n)


def test_the_group_that_became_worse_is_first() -> None:
    before, since = vectors(2_000, seed=1), vectors(2_000, seed=2)
    after = losses(2_000, 4) + np.where(since[:, 1] == 1.0, 1.0, 0.0)
    first, *_ = worst_slices(NAMES, before, losses(2_000, 3), since, after)
    assert first.name == "online = 1"
    assert first.known
    assert (first.n_before, first.n) == (int(before[:, 1].sum()), int(since[:, 1].sum()))
    assert first.loss_before == pytest.approx(0.3, abs=0.05)
    assert first.loss == pytest.approx(1.3, abs=0.1)
    assert (first.share_before, first.share) == (first.n_before / 2_000, first.n / 2_000)
    assert 0.8 < first.growth < 1.0, "two standard errors less than it grew"


def test_numbers_are_grouped_by_quarters_of_the_time_before() -> None:
    before, since = vectors(2_000, seed=1), vectors(2_000, seed=2)
    edge = np.quantile(before[:, 0], 0.75)
    after = losses(2_000, 4) + np.where(since[:, 0] >= edge, 1.0, 0.0)
    first, *_ = worst_slices(NAMES, before, losses(2_000, 3), since, after)
    assert first.name == f"amount >= {edge:.4g}"
    assert first.share_before == pytest.approx(0.25, abs=0.001)


def test_nothing_that_chance_explains_is_shown_for_the_most_part() -> None:
    shown = 0
    for seed in range(50):
        before, since = vectors(500, seed=4 * seed), vectors(500, seed=4 * seed + 1)
        shown += len(worst_slices(NAMES, before, losses(500, 4 * seed + 2), since, losses(500, 4 * seed + 3)))
    assert shown < 0.1 * 50 * 7  # of seven groups each; beyond two standard errors lie 2.5 %


def test_a_group_that_is_new_is_held_against_all() -> None:
    before, since = vectors(1_000, seed=1, online=0.0), vectors(1_000, seed=2, online=0.5)
    after = np.where(since[:, 1] == 1.0, 2.0, 0.3) + losses(1_000, 5, 0.01)
    first, *_ = worst_slices(NAMES, before, losses(1_000, 3), since, after)
    assert (first.name, first.known, first.n_before) == ("online = 1", False, 0)
    assert first.loss_before == pytest.approx(losses(1_000, 3).mean())


def test_missing_values_are_a_group() -> None:
    before, since = vectors(1_000, seed=1), vectors(1_000, seed=2)
    since[::2, 0] = np.nan
    after = losses(1_000, 4)
    after[::2] += 1.0
    assert worst_slices(NAMES, before, losses(1_000, 3), since, after)[0].name == "amount missing"


def test_too_few_examples_say_nothing() -> None:
    few, many = vectors(LEAST - 1, seed=1), vectors(500, seed=2)
    assert worst_slices(NAMES, few, losses(LEAST - 1, 3), many, losses(500, 4, 9.0)) == []
    assert worst_slices(NAMES, many, losses(500, 4), few, losses(LEAST - 1, 3, 9.0)) == []
    assert worst_slices(NAMES, few[:0], losses(0, 3), few[:0], losses(0, 3)) == []


def test_as_many_groups_as_asked_for() -> None:
    before, since = vectors(500, seed=1), vectors(500, seed=2)
    assert len(worst_slices(NAMES, before, losses(500, 3), since, losses(500, 4, 9.0), most=3)) == 3


def test_the_input_that_moved_is_first() -> None:
    found = moved(NAMES, vectors(500, seed=1), vectors(500, seed=2, factor=60.0))
    assert found[0].name == "amount"
    assert found[0].ks == pytest.approx(1.0)
    assert found[0].mean_before == pytest.approx(10.0, abs=0.5)
    assert found[0].mean == pytest.approx(600.0, abs=30.0)
    assert (found[-1].name, found[-1].ks) == ("constant", 0.0)


def test_what_was_never_there_has_not_moved() -> None:
    before, since = vectors(50, seed=1), vectors(50, seed=2)
    since[:, 0] = np.nan
    assert [each.name for each in moved(NAMES, before, since)] == ["online", "constant"]
    assert moved(NAMES, before[:0], since) == []


def test_vectors_are_rows() -> None:
    example = Example("a", "k", 0, 1, 0.5, 0, [1.0, 2.0], "s", True, "label")
    assert vectors_of([example, example], 2).tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert vectors_of([], 2).shape == (0, 2)
