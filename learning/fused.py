"""River's linear models at several times River's speed, with River's own numbers to the last bit.

`fused` says whether a model is one of those that this is proven for: a `StandardScaler` or nothing, then
`LogisticRegression`, `Perceptron` or `LinearRegression`, learned by plain SGD at constant rates without penalties. What
it gives is an ordinary River estimator that can also be asked with vectors. Whatever it is not proven for goes to the
River model that it stands for: other features or another order of them, sample weights, other kinds of outcomes.

    StandardScaler | LogisticRegression  ── read ──►  learning.linear: lists of numbers, or learning.linear_compiled
                   ▲                                        │
                   └────────────── to_river ────────────────┘

The truth is in one of the two at a time. It is in the lists only while nobody else can have the River model in hand.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, TypeAlias

from river import base, compose, linear_model, optim, preprocessing
from river.utils import VectorDict

from features import compiled
from learning.linear import Linear, Loss, Numbers, PythonLinear, Recipe
from learning.linear_compiled import CompiledLinear
from learning.vectors import Floats

# What the River objects are made of; one with anything else is of another version, or somebody has changed it.
_SCALER = {"with_std", "window_size", "counts", "means", "vars"}
_GLM = {
    "optimizer", "loss", "l2", "l1", "intercept_init", "intercept", "intercept_lr", "clip_gradient", "initializer",
    "_weights", "_y_name",
}  # fmt: skip
_EXACT = 2**53  # integers up to it are floats without rounding
_TRIES = 3  # times that a model may turn out to be none of ours before it is no longer looked at


class _Fused(base.Estimator):
    """What the classifier and the regressor have in common."""

    _outcome: type[bool] | type[float]

    def __init__(self, model: Any) -> None:
        self.model = model
        self._names: tuple[str, ...] | None = None
        self._linear: Linear | None = None
        self._learned = 0  # by the lists, since they were read from the River model
        self._refused = 0

    def for_names(self, names: Sequence[str]) -> bool:
        """Expect vectors of these features from now on. Whether that is faster, with the model as it is now."""
        self.to_river()
        self._names = tuple(names)
        return self._ready() is not None

    def predict_vector(self, vector: Sequence[float]) -> float:
        """The probability of True, or the number, for a vector with a number for each of the expected names."""
        linear = self._linear or self._ready()
        if linear is None or len(vector) != len(self._names or ()):
            return self._of_river(self._dict(vector))
        return linear.predict(vector)

    def predict_vectors(self, vectors: Floats) -> list[float]:
        """The same for each row, which has a number for each of the expected names; to the last bit."""
        linear = self._linear or self._ready()
        if linear is None or not self._names or vectors.shape[1] != len(self._names):
            return [self.predict_vector(vector) for vector in vectors.tolist()]
        return linear.predict_all(vectors)

    def learn_vector(self, vector: Sequence[float], outcome: Any) -> None:
        """Take one example, with a vector as above."""
        linear = self._linear or self._ready()
        if linear is None or type(outcome) is not self._outcome or len(vector) != len(self._names or ()):
            self.to_river().learn_one(self._dict(vector), outcome)
            return
        linear.learn(vector, outcome)
        self._learned += 1

    def learn_vectors(self, vectors: Floats, outcomes: Floats) -> bool:
        """Take many examples, one after the other, to the last bit; False, and none is taken, where River must do it.

        Args:
            vectors: of shape (examples, features).
            outcomes: of each what came; a class is 1.0 or 0.0.
        """
        linear = self._linear or self._ready()
        if linear is None or vectors.shape[1] != len(self._names or ()):
            return False
        linear.learn_all(vectors, outcomes)
        self._learned += len(vectors)
        return True

    def to_river(self) -> Any:
        """The River model that this stands for, as of now. It is no copy: what is taught to it, this learns too."""
        if self._linear is not None and self._names is not None:
            if self._learned:
                _write(self.model, self._names, self._linear.numbers(), self._learned)
            self._linear, self._learned = None, 0
        return self.model

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        """Take one example."""
        if self._names is None:
            self._names = tuple(x)
        if w != 1.0:
            self.to_river().learn_one(x, y, w=w)
        elif self._is_expected(x):
            self.learn_vector(list(x.values()), y)
        else:
            self.to_river().learn_one(x, y)

    def _ready(self) -> Linear | None:
        """The lists, read from the River model; None where they would not do the same."""
        if self._names is None or self._refused >= _TRIES:
            return None
        found = _read(self.model, self._names)
        if found is None:
            self._refused += 1
            return None
        self._linear = CompiledLinear(*found) if compiled.chosen().compiled else PythonLinear(*found)
        return self._linear

    def _is_expected(self, x: dict[Any, Any]) -> bool:
        """Whether it is a vector with names: those features in that order, all of them floats."""
        return (
            tuple(x) == self._names
            and all(type(value) is float for value in x.values())
            and not compose.Pipeline._LEARN_UNSUPERVISED_DURING_PREDICT
        )

    def _dict(self, vector: Sequence[float]) -> dict[str, float]:
        return dict(zip(self._names or (), vector, strict=True))

    def _of_river(self, x: dict[str, float]) -> float:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        self.to_river()
        return dict(vars(self))


class FusedClassifier(_Fused, base.Classifier):
    """Stands for a linear classifier of two classes, with or without `StandardScaler`; faster, and equal to it.

    Parameters
    ----------
    model
        The River model. Any classifier will do; one that is none of those that `fused` takes is as fast as it was.

    """

    _outcome = bool

    def predict_proba_one(self, x: dict[Any, Any], **kwargs: Any) -> dict[Any, float]:
        """Probability of each class."""
        if not kwargs and self._is_expected(x) and (self._linear or self._ready()) is not None:
            probability = self.predict_vector(list(x.values()))
            return {False: 1.0 - probability, True: probability}
        probabilities: dict[Any, float] = self.to_river().predict_proba_one(x, **kwargs)
        return probabilities

    def _of_river(self, x: dict[str, float]) -> float:
        return float(self.to_river().predict_proba_one(x)[True])

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"model": preprocessing.StandardScaler() | linear_model.LogisticRegression()}
        yield {"model": preprocessing.StandardScaler() | linear_model.Perceptron()}


class FusedRegressor(_Fused, base.Regressor):
    """Stands for linear regression, with or without `StandardScaler`; faster, and equal to it.

    Parameters
    ----------
    model
        The River model. Any regressor will do; one that is none of those that `fused` takes is as fast as it was.

    """

    _outcome = float

    def predict_one(self, x: dict[Any, Any]) -> float:
        """The number."""
        if self._is_expected(x) and (self._linear or self._ready()) is not None:
            return self.predict_vector(list(x.values()))
        number: float = self.to_river().predict_one(x)
        return number

    def _of_river(self, x: dict[str, float]) -> float:
        return float(self.to_river().predict_one(x))

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"model": preprocessing.StandardScaler() | linear_model.LinearRegression()}


FusedModel: TypeAlias = FusedClassifier | FusedRegressor

_LOSSES: dict[type, tuple[type, ...]] = {
    linear_model.LogisticRegression: (optim.losses.Log, optim.losses.Hinge),
    linear_model.Perceptron: (optim.losses.Log, optim.losses.Hinge),
    linear_model.LinearRegression: (optim.losses.Squared,),
}


def fused(model: Any, names: Sequence[str]) -> FusedModel | None:
    """What stands for a River model and its vectors of these features; None for a model that River must do itself.

    The River model is used by it from now on; `to_river` gives it back.
    """
    _, last = _parts(model)
    if type(last) not in _LOSSES:
        return None
    made = FusedClassifier(model) if isinstance(last, base.Classifier) else FusedRegressor(model)
    return made if made.for_names(names) else None


def _parts(model: Any) -> tuple[Any, Any]:
    """Scaler and model; None for what is not there, or is something else."""
    if type(model) is not compose.Pipeline:
        return None, model
    steps = list(model.steps.values())
    if len(steps) == 2 and type(steps[0]) is preprocessing.StandardScaler:
        return steps[0], steps[1]
    return None, steps[0] if len(steps) == 1 else None


def _read(model: Any, names: Sequence[str]) -> tuple[Recipe, Numbers] | None:
    """What a River model is and has learned; None where that is more, or something else, than lists can say."""
    scaler, last = _parts(model)
    recipe = _recipe(scaler, last)
    if recipe is None or len(set(names)) != len(names):
        return None
    count, means, variances = _scaling(scaler, last, names)
    _, (weights, factory, mask, _) = last._weights.__reduce__()
    plain = factory is None and mask is None and bool(weights) == bool(count)
    if type(count) is not int or count >= _EXACT or not plain or not _same_names(names, means, variances, weights):
        return None
    tables = [dict.fromkeys(names, 0.0) | table for table in (means, variances, weights)]
    of = [[table[name] for name in names] for table in tables]
    means_of, variances_of, weights_of = of
    # The root of a negative variance, which learning never makes, would be a complex number in Python.
    if not all(type(number) is float for numbers in of for number in numbers) or any(
        -inf < v < 0 for v in variances_of
    ):
        return None
    return recipe, Numbers(count, means_of, variances_of, weights_of, float(last.intercept))


def _scaling(scaler: Any, last: Any, names: Sequence[str]) -> tuple[int | None, dict[str, float], dict[str, float]]:
    """Examples learned, means and variances; no count where features have come and gone."""
    if scaler is None:
        return last.optimizer.n_iterations, {}, {}
    counts = set(scaler.counts.values()) or {0}
    asked_only = not scaler.counts and not any(scaler.means.values()) and not any(scaler.vars.values())
    whole = len(counts) == 1 and (asked_only or scaler.counts.keys() == set(names))
    return (counts.pop() if whole else None), dict(scaler.means), dict(scaler.vars)


def _same_names(names: Sequence[str], *tables: Any) -> bool:
    return all(not table or table.keys() == set(names) for table in tables)


def _recipe(scaler: Any, last: Any) -> Recipe | None:
    if type(last) not in _LOSSES or type(last.loss) not in _LOSSES[type(last)] or vars(last).keys() != _GLM:
        return None
    if scaler is not None and (
        vars(scaler).keys() != _SCALER
        or scaler.with_std is not True
        or scaler.window_size is not None
        or type(scaler.counts) is not Counter
        or type(scaler.means) is not defaultdict
        or type(scaler.vars) is not defaultdict
    ):
        return None
    optimizer, constant = last.optimizer, optim.schedulers.Constant
    if (
        type(optimizer) is not optim.SGD
        or vars(optimizer).keys() != {"lr", "n_iterations"}
        or type(optimizer.lr) is not constant
        or type(last.intercept_lr) is not constant
        or type(last.initializer) is not optim.initializers.Zeros
        or type(last._weights) is not VectorDict
        or last.l1 != 0
        or last.l2 != 0
    ):
        return None
    loss: Loss = "squared"
    positive = negative = 0.0
    if type(last.loss) is optim.losses.Log:
        loss, positive, negative = "log", last.loss.weight_pos, last.loss.weight_neg
    elif type(last.loss) is optim.losses.Hinge:
        loss, positive = "hinge", last.loss.threshold
    rates = (optimizer.lr.learning_rate, last.intercept_lr.learning_rate)
    if not _are_exact((positive, negative, *rates, last.clip_gradient, last.intercept)) or last.clip_gradient < 0:
        return None
    rate, intercept_rate = map(float, rates)
    clip = float(last.clip_gradient)
    return Recipe(scaler is not None, loss, float(positive), float(negative), rate, intercept_rate, clip)


def _are_exact(values: Iterable[Any]) -> bool:
    """Whether they are floats, or integers that are the same number as a float."""
    return all(type(value) is float or (type(value) is int and abs(value) <= _EXACT) for value in values)


def _write(model: Any, names: Sequence[str], numbers: Numbers, learned: int) -> None:
    """Give a River model what the lists have learned."""
    scaler, last = _parts(model)
    if isinstance(model, compose.Pipeline) and model._plan is None:
        model._build_plan()  # as its own first example would have, so that its pickle is the same
    if scaler is not None:
        for name, mean, variance in zip(names, numbers.means, numbers.variances, strict=True):
            scaler.counts[name], scaler.means[name], scaler.vars[name] = numbers.examples, mean, variance
    for name, weight in zip(names, numbers.weights, strict=True):
        last._weights[name] = weight
    last.intercept = numbers.intercept
    last.optimizer.n_iterations += learned
