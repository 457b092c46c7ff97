"""Laws of the fused linear models: whatever they are shown, they are River's to the last bit, and River's again."""

import copy
import functools
import itertools
import math
import pickle
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import checks, datasets, linear_model, optim, preprocessing

from learning.fused import FusedClassifier, FusedModel, FusedRegressor, fused
from pipelines import card_fraud, elec2, phishing

Make = Callable[[], Any]
Steps = Iterable[tuple[Sequence[float], Any]]


def scaled(make: Make) -> Make:
    return lambda: preprocessing.StandardScaler() | make()


CLASSIFIERS: dict[str, Make] = {
    "logistic": scaled(linear_model.LogisticRegression),
    "logistic, other numbers": scaled(
        lambda: linear_model.LogisticRegression(
            optim.SGD(0.3), loss=optim.losses.Log(weight_pos=3, weight_neg=0.5), intercept_init=-4, intercept_lr=0.1
        )
    ),
    "logistic, clipped": scaled(lambda: linear_model.LogisticRegression(optim.SGD(1), clip_gradient=0.25)),
    "hinge": scaled(lambda: linear_model.LogisticRegression(loss=optim.losses.Hinge())),
    "perceptron": scaled(linear_model.Perceptron),
    "not scaled": linear_model.LogisticRegression,
    "perceptron, not scaled": linear_model.Perceptron,
}
REGRESSORS: dict[str, Make] = {
    "linear": scaled(linear_model.LinearRegression),
    "linear, clipped": scaled(lambda: linear_model.LinearRegression(optim.SGD(0.1), intercept_lr=1, clip_gradient=5.0)),
    "linear, not scaled": lambda: linear_model.LinearRegression(optim.SGD(1e-3), intercept_init=3.0),
}
MODELS = CLASSIFIERS | REGRESSORS


def bits(number: float) -> bytes:
    return struct.pack("<d", math.nan if math.isnan(number) else number)


def state(model: Any) -> list[Any]:
    """Every number in a model, with the features in their order."""
    steps = list(model.steps.values()) if hasattr(model, "steps") else [model]
    tables = [vars(steps[0])[name] for name in ("counts", "means", "vars")] if len(steps) == 2 else []
    last = steps[-1]
    tables += [last.weights, {"": last.intercept}]
    return [last.optimizer.n_iterations, *([(name, bits(value)) for name, value in table.items()] for table in tables)]


def of_river(model: Any, x: dict[str, float]) -> float:
    if hasattr(model, "steps"):
        is_classifier = hasattr(list(model.steps.values())[-1], "predict_proba_one")
    else:
        is_classifier = hasattr(model, "predict_proba_one")
    return float(model.predict_proba_one(x)[True] if is_classifier else model.predict_one(x))


def held_against_river(make: Make, names: Sequence[str], steps: Steps, moves: Callable[[], str] = lambda: "") -> None:
    """Both learn the same; now and then the fused one is taken back to River, pickled, copied or handed over."""
    river, ours = make(), fused(make(), names)
    assert ours is not None
    for vector, outcome in steps:
        x = dict(zip(names, vector, strict=True))
        assert bits(ours.predict_vector(vector)) == bits(of_river(river, x))
        river.learn_one(x, outcome)
        ours.learn_vector(vector, outcome)
        ours = moved(ours, names, moves())
    assert state(ours.to_river()) == state(river)
    assert type(ours.to_river()) is type(river)


def moved(ours: FusedModel, names: Sequence[str], how: str) -> FusedModel:
    if how == "river":
        ours.to_river()
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(ours))
        assert isinstance(again, FusedModel)
        return again
    elif how == "copy":
        return copy.deepcopy(ours)
    elif how == "anew":
        again = fused(pickle.loads(pickle.dumps(ours.to_river())), names)
        assert again is not None
        return again
    return ours


def vectors_of(pipeline: Any, count: int) -> Iterator[tuple[Sequence[float], Any]]:
    """A pipeline's own vectors; what came of them follows from the first feature, which will do for a model."""
    profiles: dict[str, Any] = {}
    stream, first = pipeline.events, []
    for event in itertools.islice((i for i in pipeline.source() if isinstance(i, stream.struct)), count):
        vector, _ = pipeline.feature_set.compute(event, stream.key_of(event), stream.time_of(event), profiles)
        first.append(vector[0])
        yield vector, vector[0] > sorted(first[-9:])[len(first[-9:]) // 2]


def wide(kind: str, count: int) -> Iterator[tuple[list[float], Any]]:
    """32 features of very different sizes, two of them constant, one rare, one that never ends to grow."""
    chance, walk = random.Random(kind), 0.0
    for _ in range(count):
        walk += chance.gauss(1, 2)
        vector = [chance.gauss(place, 10.0 ** (place - 12)) for place in range(28)]
        vector += [3.5, -0.0, float(chance.random() < 0.01), walk]
        score = vector[12] - 12 + (vector[13] - 13) / 10 + chance.gauss(0, 1)
        yield vector, (score > 0 if kind == "class" else score)


def repetitive() -> Iterator[tuple[list[float], Any]]:
    """Long stretches of equal values, such as electricity's early years have: deviations near nothing."""
    chance, vector = random.Random(3), [0.0] * 8
    for number in range(3_000):
        if number % 48 == 0:
            vector = [chance.choice([0.0, 0.414912, 0.003467, 0.422915]) for _ in range(8)]
        vector[number % 8] += chance.choice([0.0, 0.0, 1e-9])
        yield list(vector), chance.random() < 0.4


WIDE = [f"f{place}" for place in range(32)]
STREAMS: dict[str, tuple[Make, Sequence[str], Callable[[], Steps]]] = {
    "card_fraud": (
        card_fraud.model,
        card_fraud.card_fraud.feature_set.names,
        lambda: vectors_of(card_fraud.card_fraud, 4_000),
    ),
    "phishing": (
        phishing.phishing.model,
        phishing.phishing.feature_set.names,
        lambda: ((list(x.values()), y) for x, y in datasets.Phishing()),
    ),
    "like elec2": (elec2.elec2.model, elec2.elec2.feature_set.names[:8], repetitive),
    "32 features, logistic": (MODELS["logistic"], WIDE, lambda: wide("class", 20_000)),
    "32 features, linear": (MODELS["linear"], WIDE, lambda: wide("number", 6_000)),
    "32 features, perceptron": (MODELS["perceptron"], WIDE, lambda: wide("class", 2_000)),
}


@functools.cache
def by_river(name: str) -> tuple[list[tuple[Sequence[float], Any]], list[bytes], list[Any]]:
    """A stream, River's predictions and what River has learned; once for all paths."""
    make, names, stream = STREAMS[name]
    steps, river, said = list(stream()), make(), []
    for vector, outcome in steps:
        x = dict(zip(names, vector, strict=True))
        said.append(bits(of_river(river, x)))
        river.learn_one(x, outcome)
    return steps, said, state(river)


@pytest.mark.parametrize("name", STREAMS)
def test_equal_over_whole_streams(name: str, loops: str) -> None:
    steps, said, learned = by_river(name)
    make, names, _ = STREAMS[name]
    ours = fused(make(), names)
    assert ours is not None
    assert len(steps) > 1_000
    for (vector, outcome), expected in zip(steps, said, strict=True):
        assert bits(ours.predict_vector(vector)) == expected
        ours.learn_vector(vector, outcome)
    assert state(ours.to_river()) == learned


ORDINARY = st.floats(-1e3, 1e3) | st.integers(-3, 3).map(float) | st.sampled_from([0.0, -0.0, 0.1])
EXTREME = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([5e-324, -5e-324, 1e308, -1e308, 2.0**53])
MOVES = st.sampled_from([""] * 8 + ["river", "pickle", "copy", "anew"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("numbers", [ORDINARY, ORDINARY | EXTREME], ids=["ordinary", "extreme"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equal_whatever_the_numbers_and_however_it_is_handed_on(
    name: str, numbers: st.SearchStrategy[float], loops: str, data: st.DataObject
) -> None:
    outcomes: Any = st.booleans() if name in CLASSIFIERS else numbers
    steps = data.draw(st.lists(st.tuples(st.tuples(numbers, numbers, numbers), outcomes), max_size=25))
    moves = iter(data.draw(st.lists(MOVES, min_size=len(steps), max_size=len(steps))))
    held_against_river(MODELS[name], "abc", steps, lambda: next(moves))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_estimator_equals_river_when_features_come_and_go_and_examples_are_weighted(
    name: str, loops: str, data: st.DataObject
) -> None:
    """Anything that the lists are not proven for is River's own doing, before and after."""
    river = MODELS[name]()
    ours: Any = FusedClassifier(MODELS[name]()) if name in CLASSIFIERS else FusedRegressor(MODELS[name]())
    x = st.permutations("abc").flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, ORDINARY)))
    some = st.dictionaries(st.sampled_from("abcd"), ORDINARY | st.integers(-3, 3))
    usual = st.fixed_dictionaries(dict.fromkeys("abc", ORDINARY))
    outcome: Any = st.booleans() if name in CLASSIFIERS else ORDINARY | st.integers(-5, 5)
    weight = st.sampled_from([1.0, 1.0, 1.0, 0.5])
    for seen, y, w in data.draw(st.lists(st.tuples(usual | usual | x | some, outcome, weight), max_size=25)):
        assert bits(of_river(ours, seen)) == bits(of_river(river, seen))
        assert ours.predict_one(seen) == river.predict_one(seen) or math.isnan(of_river(river, seen))
        river.learn_one(seen, y) if w == 1.0 else river.learn_one(seen, y, w=w)
        ours.learn_one(seen, y, w)
    assert state(ours.to_river()) == state(river)


REFUSED: dict[str, Make] = {
    "l2": scaled(lambda: linear_model.LogisticRegression(l2=0.1)),
    "l1": scaled(lambda: linear_model.LogisticRegression(l1=0.1)),
    "adam": scaled(lambda: linear_model.LogisticRegression(optim.Adam())),
    "momentum": scaled(lambda: linear_model.LogisticRegression(optim.Momentum())),
    "schedule": scaled(lambda: linear_model.LogisticRegression(optim.SGD(optim.schedulers.InverseScaling(0.1)))),
    "schedule of the intercept": scaled(
        lambda: linear_model.LogisticRegression(intercept_lr=optim.schedulers.InverseScaling(0.1))
    ),
    "initializer": scaled(lambda: linear_model.LogisticRegression(initializer=optim.initializers.Normal(seed=1))),
    "loss": scaled(lambda: linear_model.LinearRegression(loss=optim.losses.Huber())),
    "focal loss": scaled(lambda: linear_model.LogisticRegression(loss=optim.losses.BinaryFocalLoss())),
    "no deviations": lambda: preprocessing.StandardScaler(with_std=False) | linear_model.LogisticRegression(),
    "window": lambda: preprocessing.StandardScaler(window_size=9) | linear_model.LogisticRegression(),
    "other scaler": lambda: preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
    "two scalers": lambda: preprocessing.StandardScaler() | scaled(linear_model.LogisticRegression)(),
    "other model": scaled(linear_model.ALMAClassifier),
    "subclass": scaled(type("Own", (linear_model.LogisticRegression,), {})),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_proven_is_refused(name: str) -> None:
    assert fused(REFUSED[name](), "abc") is None


def trained(make: Make, x: dict[str, float]) -> Any:
    model = make()
    model.learn_one(x, True)
    return model


def test_a_model_that_has_learned_other_features_is_refused() -> None:
    make = CLASSIFIERS["logistic"]
    for x in ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}):
        assert fused(trained(make, x), "abc") is None
    uneven = trained(make, {"a": 1.0, "b": 1.0, "c": 1.0})
    uneven.learn_one({"a": 1.0}, True)
    assert fused(uneven, "abc") is None
    assert fused(trained(make, {"c": 1.0, "b": 1.0, "a": 1.0}), "abc") is not None


def test_a_model_that_somebody_changed_is_refused() -> None:
    make = CLASSIFIERS["logistic"]
    changed = trained(make, {"a": 1.0})
    changed["StandardScaler"].learn_one = lambda x: None
    assert fused(changed, "a") is None
    negative = trained(make, {"a": 1.0})
    negative["StandardScaler"].vars["a"] = -1.0  # its root is a complex number in Python
    assert fused(negative, "a") is None
    whole = trained(make, {"a": 1.0})
    whole["StandardScaler"].means["a"] = 1
    assert fused(whole, "a") is None


def test_what_is_taught_to_the_river_model_is_learned(loops: str) -> None:
    make = CLASSIFIERS["logistic"]
    ours, river = fused(make(), "a"), make()
    assert ours is not None
    for number in range(20):
        x, y = {"a": float(number % 7)}, number % 3 == 0
        river.learn_one(x, y)
        if number % 4:
            ours.learn_vector([x["a"]], y)
        else:
            ours.to_river().learn_one(x, y)
        assert ours.predict_vector([x["a"]]) == of_river(river, x)
    assert state(ours.to_river()) == state(river)


def test_outcome_of_another_kind_and_vector_of_another_length_are_rivers_business(loops: str) -> None:
    make = REGRESSORS["linear"]
    ours, river = fused(make(), "ab"), make()
    assert ours is not None
    for y in (1.5, 2, True, 0.5):
        ours.learn_vector([1.0, y], y)
        river.learn_one({"a": 1.0, "b": y}, y)
    with pytest.raises(ValueError, match="shorter"):
        ours.learn_vector([1.0], 1.0)
    with pytest.raises(ValueError, match="shorter"):
        ours.predict_vector([1.0])
    assert state(ours.to_river()) == state(river)


def trump(_: Any, scale: int = 1) -> Iterator[Any]:
    yield datasets.TrumpApproval().take(200 * scale)  # type: ignore[no-untyped-call]


def phishes(_: Any, scale: int = 1) -> Iterator[Any]:
    yield datasets.Phishing().take(200 * scale)


@pytest.mark.parametrize("kind", [FusedClassifier, FusedRegressor])
def test_they_are_ordinary_river_estimators(kind: Any, loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # River's own streams of its checks, without scikit-learn, which it would read the others from.
    monkeypatch.setattr(checks, "_yield_datasets", phishes if kind is FusedClassifier else trump)
    parameters = next(kind._unit_test_params())
    found = list(checks.yield_checks(kind(**parameters)))
    assert len(found) > 20
    for check in found:
        check(kind(**parameters))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("extreme", [False, True], ids=["ordinary", "extreme"])
def test_many_predictions_at_once_are_those_one_by_one(name: str, extreme: bool, loops: str) -> None:
    kind = "number" if name in REGRESSORS else "class"
    steps = list(wide(kind, 300))
    ours = fused(MODELS[name](), WIDE)
    assert ours is not None
    vectors = [list(vector) for vector, _ in steps]
    if extreme:
        chance = random.Random(name)
        for vector in vectors:
            vector[chance.randrange(len(vector))] = chance.choice([0.0, -0.0, 1e120, -1e120, 5e-324, 1e308, math.inf])
    for learned in (0, 1, 299):
        for vector, outcome in steps[:learned]:
            ours.learn_vector(vector, outcome)
        expected = [bits(ours.predict_vector(vector)) for vector in vectors]
        assert [bits(number) for number in ours.predict_vectors(np.array(vectors))] == expected
    assert ours.predict_vectors(np.empty((0, len(WIDE)))) == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("extreme", [False, True], ids=["ordinary", "extreme"])
def test_many_examples_at_once_are_learned_as_one_by_one(name: str, extreme: bool, loops: str) -> None:
    steps = list(wide("number" if name in REGRESSORS else "class", 300))
    if extreme:
        chance = random.Random(name)
        for vector, _ in steps:
            vector[chance.randrange(len(vector))] = chance.choice([0.0, -0.0, 1e120, -1e120, 5e-324])
    ours, at_once = fused(MODELS[name](), WIDE), fused(MODELS[name](), WIDE)
    assert ours is not None
    assert at_once is not None
    for vector, outcome in steps:
        ours.learn_vector(vector, outcome)
    vectors, outcomes = (np.array(column, dtype=np.float64) for column in zip(*steps, strict=True))
    for first, last in itertools.pairwise((0, 1, 1, 40, 300)):
        assert at_once.learn_vectors(vectors[first:last], outcomes[first:last])
        moved(at_once, WIDE, "river" if first == 1 else "")
    assert state(at_once.to_river()) == state(ours.to_river())


def test_examples_that_river_must_learn_itself_are_not_learned_at_once(loops: str) -> None:
    ours = fused(MODELS["linear"](), "ab")
    assert ours is not None
    before = state(ours.to_river())
    assert not ours.learn_vectors(np.ones((2, 3)), np.ones(2))
    assert state(ours.to_river()) == before
    ours.to_river().steps["StandardScaler"].vars["a"] = -1.0
    changed = state(ours.model)
    assert not ours.learn_vectors(np.ones((2, 2)), np.ones(2))
    assert state(ours.to_river()) == changed
