"""Laws of learning from a share of the negatives: which are kept, what is corrected, that it is alike everywhere."""

import functools
import itertools
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import linear_model, naive_bayes, optim, preprocessing, tree

from learning.learn import Learner
from learning.negatives import corrected, is_kept
from learning.records import Example
from tests.doubles import HOUR, TinyFeatures, logistic, tiny_pipeline

PROBABILITIES = st.floats(0.0, 1.0)
SHARES = st.floats(1e-9, 1.0, exclude_min=True)


def bits(number: float) -> bytes:
    return struct.pack("<d", number)


# -- the correction


@given(PROBABILITIES, PROBABILITIES, SHARES)
def test_order_of_scores_is_kept_rounding_included(one: float, other: float, share: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= corrected(low, share) <= corrected(high, share) <= 1.0


@given(st.floats(allow_nan=False))
def test_where_all_are_learned_no_bit_changes(number: float) -> None:
    assert bits(corrected(number, 1.0)) == bits(number)


@given(PROBABILITIES, SHARES)
def test_correction_is_that_of_the_paper(probability: float, share: float) -> None:
    """Against p / (p + (1 - p) / w) in exact arithmetic, to a few roundings; below 1e-307 it may be nothing."""
    p, w = Fraction(probability), Fraction(share)
    exact = float(p / (p + (1 - p) / w)) if p else 0.0
    assert corrected(probability, share) == pytest.approx(exact, rel=1e-15, abs=1e-307)
    assert corrected(probability, share) <= probability * (1.0 + 1e-15)


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1e-4, 1.0))
def test_correction_can_be_taken_back(probability: float, share: float) -> None:
    said = corrected(probability, share)
    assert said / (said + (1.0 - said) * share) == pytest.approx(probability, rel=1e-6, abs=1e-12)


@given(st.floats().filter(lambda number: not 0.0 < number < 1.0), SHARES)
def test_what_is_no_probability_is_left_as_it_is(number: float, share: float) -> None:
    assert bits(corrected(number, share)) == bits(number)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(1e-3, 1.0))
def test_a_model_that_counts_says_what_weights_would_have_it_say(positives: int, kept: int, share: float) -> None:
    """The oracle: each kept negative counted as often as it stands for, and nothing corrected."""
    weighted = positives / (positives + kept / share)
    assert corrected(positives / (positives + kept), share) == pytest.approx(weighted, rel=1e-9)


# -- which are kept


@given(st.text(max_size=20), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_share_is_kept_whatever_ids_look_like(prefix: str, one: float, other: float) -> None:
    """Within six standard deviations of a binomial; and who is kept at a share is kept at every larger one."""
    small, large = sorted((one, other))
    names = [f"{prefix}{number}" for number in range(2_000)]
    kept = {name for name in names if is_kept(name, small)}
    assert kept <= {name for name in names if is_kept(name, large)}
    assert abs(len(kept) - 2_000 * small) <= 6 * (2_000 * small * (1 - small)) ** 0.5 + 4


def test_kept_ids_are_those_of_every_release() -> None:
    """The log of years is folded again by what this says, so its bits may never change."""
    kept = [number for number in range(100) if is_kept(f"2013-04-24T20:59-EV{number}-EWR", 0.1)]
    assert kept == KEPT


KEPT = [0, 2, 3, 13, 25, 38, 51, 67, 73, 82, 95]

# -- one place for the correction


class Sub(linear_model.LogisticRegression):
    """A model of a user's own, which nothing stands for."""


MODELS: dict[str, Callable[[], Any]] = {
    "fused": logistic,
    "fused, hinge": lambda: linear_model.LogisticRegression(loss=optim.losses.Hinge()),
    "River's own": lambda: preprocessing.StandardScaler() | Sub(),
    "naive Bayes": naive_bayes.GaussianNB,
    "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=20),
}


def examples(n: int, seed: int = 3) -> Iterator[Example]:
    """Of a logistic world with one True in some seven; all with their vectors."""
    chance = random.Random(seed)
    for number in range(n):
        x = chance.gauss(0, 1)
        outcome = x + chance.gauss(0, 1) > 1.5
        vector = [x, float(number % 5)]
        yield Example(f"e{number}", "k", 0, HOUR, 0.5, 0, vector, TinyFeatures.schema, outcome, "label")


def left_out(example: Example, share: float) -> Example:
    """As the label join of a pipeline with this share writes it."""
    if example.outcome is not False or is_kept(example.id, share):
        return example
    return msgspec.structs.replace(example, features=[], kept=False)


def taught(share: float, log: Sequence[Example], model: Callable[[], Any] = logistic) -> Learner:
    learner = Learner(tiny_pipeline(negatives=share, model=model, baseline_examples=50))
    for offset, record in enumerate(log):
        learner.apply(offset, record)
    return learner


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [0.25, 0.9])
def test_whoever_asks_gets_the_model_of_the_kept_ones_corrected(name: str, share: float) -> None:
    """To the last bit, from each way to ask: the model, another state of it, many at once, and the frozen copy."""
    log = list(examples(400))
    ours = taught(share, [left_out(example, share) for example in log], MODELS[name])
    plain = taught(1.0, [e for e in log if e.outcome or is_kept(e.id, share)], MODELS[name])
    assert (ours.version, ours.examples) == (400, plain.examples)
    assert plain.frozen is not None
    vectors = [[x / 4, float(i)] for x, i in itertools.product(range(-8, 9), range(3))]
    for vector in vectors:
        expected = corrected(float(str(plain.predict(vector))), share)
        assert bits(float(str(ours.predict(vector)))) == bits(expected)
        assert ours.predict_with(ours.model, vector) == expected
        assert ours.predict_frozen(vector) == corrected(float(str(plain.predict_frozen(vector))), share)
    assert ours.predict_all_with(ours.model, np.array(vectors)) == [ours.predict(vector) for vector in vectors]
    assert ours.predict_all_with(ours.frozen, np.array(vectors)) == [ours.predict_frozen(vector) for vector in vectors]
    some = {ours.predict(vector) for vector in vectors}
    assert name == "fused, hinge" or any(0.0 < float(str(value)) < 1.0 for value in some)


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_log_with_more_of_them_is_folded_to_the_model_of_a_smaller_share(one: float, other: float) -> None:
    """So the share of a pipeline can be made smaller, and its models are as if it had always been so."""
    small, large = sorted((one, other))
    log = list(examples(80))
    learners = [taught(small, [left_out(example, share) for example in log]) for share in (small, large, 1.0)]
    vector = [0.5, 1.0]
    assert len({bits(float(str(learner.predict(vector)))) for learner in learners}) == 1
    assert len({(learner.version, learner.examples) for learner in learners}) == 1


# -- what it is for


@functools.cache
def world(n: int, seed: int) -> tuple[Any, Any]:
    """Vectors and outcomes of a logistic world with one True in 28."""
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(n, 2))
    probabilities = 1.0 / (1.0 + np.exp(3.8 - vectors @ np.array([0.9, -0.6])))
    return vectors, chance.random(n) < probabilities


def prequential(share: float, n: int, seed: int) -> Any:
    """What a model that learns each example after it was asked has said of it."""
    model = functools.partial(linear_model.LogisticRegression, optim.SGD(0.003), intercept_lr=0.003)
    learner = Learner(tiny_pipeline(negatives=share, model=lambda: preprocessing.StandardScaler() | model()))
    vectors, outcomes = world(n, seed)
    said = np.empty(n)
    for number, (vector, outcome) in enumerate(zip(vectors.tolist(), outcomes.tolist(), strict=True)):
        value = learner.predict(vector)
        said[number] = float(str(value))
        name = f"{seed}-{number}"
        kept = outcome or is_kept(name, share)
        features = vector if kept else []
        learner.apply(
            number, Example(name, "k", 0, 1, value, number, features, TinyFeatures.schema, outcome, "label", kept)
        )
    assert learner.examples == n if share == 1.0 else learner.examples < 0.15 * n
    return said


def test_mean_prediction_is_within_two_percent_of_the_base_rate_at_a_share_of_a_tenth() -> None:
    """Of 400,000 events, over the second half of them. Not corrected, it would be six times the base rate."""
    share, n = 0.1, 400_000
    said, outcomes = prequential(share, n, 1)[n // 2 :], world(n, 1)[1][n // 2 :]
    base = outcomes.mean()
    assert 0.02 < base < 0.05
    assert said.mean() == pytest.approx(base, rel=0.02)
    raw = said / (said + (1.0 - said) * share)
    assert raw.mean() > 5 * base


def test_a_model_of_a_tenth_says_what_a_model_of_all_of_them_says() -> None:
    """Event by event, over the last fifth: the same log loss to half a percent, and log-odds that differ little."""
    n = 60_000
    part, whole = prequential(0.1, n, 2)[-n // 5 :], prequential(1.0, n, 2)[-n // 5 :]
    truth = world(n, 2)[1][-n // 5 :]
    losses = [-np.log(np.where(truth, said, 1.0 - said)).mean() for said in (part, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.005)
    apart = np.log(part / (1 - part)) - np.log(whole / (1 - whole))
    assert np.abs(apart).mean() < 0.15
