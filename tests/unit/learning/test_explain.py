"""What a prediction is made of, and what differs when it is made again."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import base, compose, linear_model, multiclass, naive_bayes, optim, preprocessing, tree

from learning.explain import (
    TOLERANCE,
    Explanation,
    History,
    Replayed,
    differences,
    explain,
    magnitude,
    ulps,
)
from learning.learn import Learner
from learning.records import Correction, Example, Outcome, Prediction, Value
from tests.doubles import FixedModel, TinyFeatures, tiny_pipeline

NAMES = TinyFeatures.names
SCHEMA = TinyFeatures.schema


def scaled(model: Any, scaler: Any = preprocessing.StandardScaler) -> Any:
    return scaler() | model


def outcome_of(task: str, x: float, y: float) -> Outcome:
    if task == "regression":
        return 3.0 * x - y + 1.0
    if task == "multiclass":
        return "red" if x > 1.0 else "blue" if y > 0.0 else "green"
    return x + y > 0.5


def learned(task: str, model: Callable[[], Any], examples: int = 60, seed: int = 1) -> Learner:
    """A model that has learned so many examples, of values that are now and then large."""
    learner, chance = Learner(tiny_pipeline(task=task, model=model)), Random(seed)
    for offset in range(examples):
        x, y = chance.gauss(0, 1) * 10 ** chance.randint(0, 3), chance.gauss(5, 2)
        record = Example("a", "k", 0, 1, 0.5, 0, [x, y], SCHEMA, outcome_of(task, x, y), "label")
        learner.apply(offset, record)
    return learner


def explained(learner: Learner, vector: Sequence[float], reference: Sequence[float] = (0.0, 0.0)) -> Explanation:
    return explain(learner.model, learner.predict, NAMES, vector, reference)


def slow(**settings: Any) -> Any:
    return linear_model.LinearRegression(optimizer=optim.SGD(1e-7), intercept_lr=1e-7, **settings)


LINEAR: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "logistic": ("binary", "logistic", lambda: scaled(linear_model.LogisticRegression())),
    "unscaled": ("binary", "logistic", linear_model.LogisticRegression),
    "adam": ("binary", "logistic", lambda: scaled(linear_model.LogisticRegression(optimizer=optim.Adam(), l2=0.1))),
    "min-max": ("binary", "logistic", lambda: scaled(linear_model.LogisticRegression(), preprocessing.MinMaxScaler)),
    "max-abs": ("binary", "logistic", lambda: scaled(linear_model.LogisticRegression(), preprocessing.MaxAbsScaler)),
    "two scalers": ("binary", "logistic", lambda: preprocessing.MinMaxScaler() | scaled(linear_model.Perceptron())),
    "perceptron": ("binary", "logistic", lambda: scaled(linear_model.Perceptron())),
    "passive-aggressive": ("binary", "logistic", lambda: scaled(linear_model.PAClassifier())),  # type: ignore[no-untyped-call]
    "alma": ("binary", "logistic", lambda: scaled(linear_model.ALMAClassifier())),  # type: ignore[no-untyped-call]
    "one feature": ("binary", "logistic", lambda: compose.Select("x") | linear_model.LogisticRegression()),
    "linear": ("regression", "identity", lambda: scaled(linear_model.LinearRegression())),
    "intercept": ("regression", "identity", lambda: scaled(linear_model.LinearRegression(intercept_init=7.0))),
    "pa-regressor": ("regression", "identity", lambda: scaled(linear_model.PARegressor())),  # type: ignore[no-untyped-call]
    "softmax": ("multiclass", "softmax", lambda: scaled(linear_model.SoftmaxRegression())),
    "one-vs-rest": (
        "multiclass",
        "logistic, then divided by the sum over the classes",
        lambda: scaled(multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
    ),
    "one-vs-rest of pipelines": (
        "multiclass",
        "logistic, then divided by the sum over the classes",
        lambda: multiclass.OneVsRestClassifier(scaled(linear_model.LogisticRegression())),
    ),
    "poisson": ("regression", "exp", lambda: scaled(slow(loss=optim.losses.Poisson()))),
}
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def scores_of(model: Any, x: dict[str, float]) -> dict[str, float]:
    """The scores as the model itself computes them."""
    if isinstance(model, compose.Pipeline):
        *before, last = model.steps.values()
        for step in before:
            x = step.transform_one(x)
        return scores_of(last, x)
    if isinstance(model, multiclass.OneVsRestClassifier):
        return {str(name): scores_of(one, x)[""] for name, one in model.classifiers.items()}
    if isinstance(model, linear_model.SoftmaxRegression):
        return {str(name): sum(w[i] * xi for i, xi in x.items()) for name, w in model.weights.items()}
    if isinstance(model, linear_model.ALMAClassifier):
        return {"": model._raw_dot(x)}  # type: ignore[no-untyped-call]
    if isinstance(model, linear_model.base.GLM):
        return {"": model._raw_dot_one(x)}
    return {"": sum(xi * model.weights[i] for i, xi in x.items()) + model.intercept}


@pytest.mark.parametrize("name", LINEAR)
@given(x=numbers, y=numbers, examples=st.integers(0, 60), seed=st.integers(0, 5))
def test_contributions_of_a_linear_model_add_up_to_its_score(
    name: str, x: float, y: float, examples: int, seed: int
) -> None:
    """To 1e-12 of the sum of their sizes: the model rounds at each addition, the explanation once at the end."""
    task, link, model = LINEAR[name]
    if name == "poisson":
        x, y = x / 1e6, y / 1e6  # its exponential soon overflows
    if name == "min-max":
        examples = max(examples, 1)  # before the first it makes NaN of everything, which is no prediction
    learner = learned(task, model, examples, seed)
    explanation = explained(learner, [x, y])
    assert (explanation.method, explanation.link) == ("linear", link)
    expected = scores_of(learner.model, dict(zip(NAMES, (x, y), strict=True)))
    assert [part.output for part in explanation.parts] == list(expected)
    for part in explanation.parts:
        assert part.score is not None
        assert part.intercept is not None
        contributions = [term.contribution or 0.0 for term in part.terms]
        assert math.fsum([part.intercept, *contributions]) == part.score
        assert abs(part.score - expected[part.output]) <= TOLERANCE * magnitude(part)
        assert [(term.feature, term.value) for term in part.terms] == list(zip(NAMES, (x, y), strict=True))
        assert all(t.contribution == (t.weight or 0.0) * (t.seen or 0.0) for t in part.terms)


@given(x=numbers, y=numbers)
def test_logistic_score_makes_the_prediction(x: float, y: float) -> None:
    learner = learned("binary", LINEAR["logistic"][2])
    (part,) = explained(learner, [x, y]).parts
    assert part.score is not None
    prediction = 1 / (1 + math.exp(-part.score)) if part.score > -30 else 0.0
    assert learner.predict([x, y]) == pytest.approx(prediction, rel=1e-9, abs=1e-12)


class Doubled(linear_model.LinearRegression):
    """A user's model that does more than its base."""

    def predict_one(self, x: Any) -> Any:
        """Twice as much."""
        return 2 * super().predict_one(x)  # type: ignore[no-untyped-call]


class Crossed(base.Transformer):
    """Makes another feature."""

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
        """With the product of two."""
        return {**x, "x*seen": x["x"] * x["seen"]}


OTHERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "tree": ("binary", lambda: tree.HoeffdingTreeClassifier(grace_period=10)),
    "tree-regressor": ("regression", lambda: tree.HoeffdingTreeRegressor(grace_period=10)),
    "bayes": ("multiclass", naive_bayes.GaussianNB),
    "subclass that predicts something else": ("regression", Doubled),
    "target scaler": ("regression", lambda: preprocessing.TargetStandardScaler(linear_model.LinearRegression())),
    "other features": ("binary", lambda: Crossed() | linear_model.LogisticRegression()),
    "one-vs-rest of trees": ("multiclass", lambda: multiclass.OneVsRestClassifier(naive_bayes.GaussianNB())),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("name", OTHERS)
def test_contribution_in_another_model_is_the_change_without_the_feature(name: str) -> None:
    task, model = OTHERS[name]
    learner, reference = learned(task, model), [0.5, 4.0]
    explanation = explained(learner, [2.0, -3.0], reference)
    assert explanation.method == "occlusion"
    whole = outputs(learner.predict([2.0, -3.0]))
    without = [outputs(learner.predict(vector)) for vector in ([0.5, -3.0], [2.0, 4.0])]
    assert [part.output for part in explanation.parts] == list(whole)
    for part in explanation.parts:
        assert (part.score, part.intercept) == (None, None)
        assert [term.reference for term in part.terms] == reference
        expected = [whole[part.output] - other[part.output] for other in without]
        assert [term.contribution for term in part.terms] == expected


def outputs(value: Value) -> dict[str, float]:
    return value if isinstance(value, dict) else {"": value}


class Particular(FixedModel):
    """Cannot do with an x of 0, which is what the reference is here."""

    def predict_one(self, x: dict[str, float]) -> Any:
        """Raise, or predict."""
        return 1.0 / x["x"]


def test_feature_that_the_model_cannot_do_without_has_no_contribution() -> None:
    (part,) = explained(Learner(tiny_pipeline(task="regression", model=Particular)), [2.0, 3.0]).parts
    assert [term.contribution for term in part.terms] == [None, 0.0]


def test_softmax_that_has_learned_nothing_has_no_parts() -> None:
    assert explained(learned("multiclass", linear_model.SoftmaxRegression, 0), [1.0, 2.0]).parts == []


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (0.5, 0.5, 0),
        (0.0, -0.0, 0),
        (1.0, math.nextafter(1.0, 2.0), 1),
        (-1.0, math.nextafter(-1.0, -2.0), 1),
        (5e-324, -5e-324, 2),
        (1.0, 2.0, 2**52),
    ],
)
def test_ulps_count_the_numbers_in_between(one: float, other: float, apart: int) -> None:
    assert ulps(one, other) == ulps(other, one) == apart


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 100))
def test_ulps_are_steps_of_nextafter(number: float, steps: int) -> None:
    there = number
    for _ in range(steps):
        there = math.nextafter(there, math.inf)
    assert math.isinf(there) or ulps(number, there) == steps


def made(prediction: Value = 0.5, version: int = 10, schema: str = SCHEMA, features: int = 2) -> Prediction:
    return Prediction("a", "k", 0, prediction, version, [1.0] * features, schema)


def replayed(value: Value | None = 0.5, reached: int = 10, **changes: Any) -> Replayed:
    settings = {"error": "", "names": NAMES, "schema": SCHEMA, "model": "M", "passed_over": 0, "begin": 0, "end": 20}
    return Replayed(value=value, reached=reached, **{**settings, **changes})


@pytest.mark.parametrize(
    ("prediction", "again", "what", "words"),
    [
        (made(), replayed(), [], ""),
        (made({"a": 0.5, "b": 0.5}), replayed({"a": 0.5, "b": 0.5}), [], ""),
        (made(), replayed(begin=5), [], ""),
        (made(schema="old"), replayed(), ["schema"], "schema old, the pipeline now has 0123"),
        (made(features=3), replayed(None, error="E"), ["feature count"], "3 features"),
        (made(), replayed(0.5000000000000001), ["value"], "1 ulps apart"),
        (made(), replayed(0.6, passed_over=3), ["value"], "3 examples before it are not in the model"),
        (made({"a": 0.5}), replayed({"a": 0.25}), ["value"], "for class a was 0.5 and is 0.25"),
        (made({"a": 1.0}), replayed({"b": 1.0}), ["model class"], "classes a, made again b"),
        (made({"a": 1.0}), replayed(1.0), ["model class"], "another form"),
        (made(), replayed(None, error="ValueError: no"), ["model error"], "ValueError: no"),
        (
            made(version=99),
            replayed(reached=20),
            ["version beyond the log"],
            "made at version 99, the training log ends",
        ),
        (made(), replayed(None, begin=5, lost="begins at offset 5"), ["log truncated"], "begins at offset 5"),
        (made(), replayed(0.4, begin=5, base=7), ["value"], "ulps apart"),
        (made(), replayed(0.4, reached=8), ["version not in the log", "value"], "makes version 8"),
    ],
)
def test_what_differs_is_named(prediction: Prediction, again: Replayed, what: list[str], words: str) -> None:
    found = differences(prediction, again)
    assert [difference.what for difference in found] == what
    assert words in "\n".join(difference.message for difference in found)


def test_history_counts_around_the_version_and_means_over_the_last_before_it() -> None:
    history = History(version=5, schema=SCHEMA, kept=2)
    assert history.reference(2) == [0.0, 0.0]
    values = {0: 100.0, 1: 1.0, 3: 2.0, 5: 50.0, 6: 60.0}
    for offset, value in values.items():
        history.see(offset, Example(f"e{offset}", "k", 0, 1, 0.5, 0, [value, 0.0], SCHEMA, True, "label"))
    history.see(7, Correction("e0", "k", 0, 1, True, False))
    assert (history.before, history.after) == (3, 2)
    assert history.last is not None
    assert (history.last[0], history.last[1].id) == (3, "e3")
    assert history.reference(2) == [1.5, 0.0]


def test_reference_leaves_out_vectors_of_other_definitions() -> None:
    history = History(version=5, schema=SCHEMA)
    history.see(0, Example("a", "k", 0, 1, 0.5, 0, [9.0, 9.0], "another", True, "label"))
    assert history.before == 1
    assert history.reference(2) == [0.0, 0.0]
