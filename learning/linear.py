"""StandardScaler and a linear model by SGD as one loop over lists: River's operations, in River's order and bits.

River keeps a dictionary per number and feature; where every example has the same features in the same order, lists do.
`learning.linear_compiled` is the same for a machine's own code. `learning.fused` says which models these stand for.
"""

from collections.abc import Sequence
from math import exp
from typing import Literal, NamedTuple, Protocol

import numpy as np

from learning.vectors import Floats

Loss = Literal["log", "hinge", "squared"]


class Recipe(NamedTuple):
    """What does not change while a model learns.

    Attributes:
        scaled: whether features are first brought to zero mean and unit variance, as they were up to then.
        loss: River's loss.
        positive: log loss: weight of a positive example. Hinge loss: its threshold.
        negative: log loss: weight of a negative example.
        rate: learning rate of the weights.
        intercept_rate: that of the intercept.
        clip: largest absolute value of the loss' gradient.
    """

    scaled: bool
    loss: Loss
    positive: float
    negative: float
    rate: float
    intercept_rate: float
    clip: float


class Numbers(NamedTuple):
    """What a model has learned; the lists have an entry for each feature.

    Attributes:
        examples: how many have been learned.
        means: running means. Zeros where nothing is scaled.
        variances: running population variances, likewise.
        weights: weights of the scaled features.
        intercept: what is added to their sum.
    """

    examples: int
    means: list[float]
    variances: list[float]
    weights: list[float]
    intercept: float


class Linear(Protocol):
    """One model in use. Vectors have a number for each feature; who calls sees to that."""

    def predict(self, vector: Sequence[float]) -> float:
        """The probability of True where the loss is one of classification, else the number."""
        raise NotImplementedError

    def predict_all(self, vectors: Floats) -> list[float]:
        """The same for each row, to the last bit."""
        raise NotImplementedError

    def learn(self, vector: Sequence[float], outcome: float) -> None:
        """Take one example; a class is a bool."""

    def learn_all(self, vectors: Floats, outcomes: Floats) -> None:
        """Take each row with its outcome, one after the other, to the last bit; a class is 1.0 or 0.0."""

    def numbers(self) -> Numbers:
        """What has been learned, as a copy."""
        raise NotImplementedError


class PythonLinear:
    """The model in Python. It must not use `sum`, which compensates rounding errors from Python 3.12 on."""

    def __init__(self, recipe: Recipe, numbers: Numbers) -> None:
        self._recipe = recipe
        self._count, means, variances, weights, self._intercept = numbers
        self._means, self._variances, self._weights = list(means), list(variances), list(weights)
        # A root is taken once, when its variance changes, and not for each prediction.
        self._deviations = [variance**0.5 for variance in variances]
        self._is_class = recipe.loss != "squared"

    def predict(self, vector: Sequence[float]) -> float:
        """As `Linear` has it."""
        score = self._score(vector) + self._intercept
        return sigmoid(score) if self._is_class else score

    def predict_all(self, vectors: Floats) -> list[float]:
        """As `Linear` has it: added up feature by feature for all rows, so that each has its order."""
        scores = np.zeros(len(vectors))
        with np.errstate(all="ignore"):  # as Python's floats are: infinity, and what is no number, are for who asks
            seen = vectors
            if self._recipe.scaled:
                scale = np.array(self._deviations)
                seen = (vectors - np.array(self._means)) / scale
                seen[:, scale == 0.0] = 0.0
            for term in np.ascontiguousarray((seen * np.array(self._weights)).T):
                scores += term
            scores += self._intercept
        said: list[float] = scores.tolist()
        # The exponential is Python's: NumPy's may be another one.
        return list(map(sigmoid, said)) if self._is_class else said

    def _score(self, vector: Sequence[float]) -> float:
        score = 0.0
        if not self._recipe.scaled:
            for x, weight in zip(vector, self._weights, strict=True):
                score += x * weight
            return score
        for x, mean, deviation, weight in zip(vector, self._means, self._deviations, self._weights, strict=True):
            score += (x - mean) / deviation * weight if deviation else 0.0 * weight
        return score

    def learn(self, vector: Sequence[float], outcome: float) -> None:
        """As `Linear` has it."""
        recipe, weights, count = self._recipe, self._weights, self._count + 1
        seen = self._rescaled(vector, count) if recipe.scaled else vector
        score = 0.0
        for z, weight in zip(seen, weights, strict=True):
            score += z * weight
        slope = gradient(recipe, score + self._intercept, outcome)
        self._count = count
        self._intercept -= recipe.intercept_rate * slope
        rate = recipe.rate
        self._weights = [weight - rate * (z * slope) for z, weight in zip(seen, weights, strict=True)]

    def learn_all(self, vectors: Floats, outcomes: Floats) -> None:
        """As `Linear` has it."""
        for vector, outcome in zip(vectors.tolist(), outcomes.tolist(), strict=True):
            self.learn(vector, outcome)

    def _rescaled(self, vector: Sequence[float], count: int) -> list[float]:
        """Take the vector into means and variances (Welford's method, as River has it); scale it by the new ones."""
        means, variances, deviations = [], [], []
        seen: list[float] = []
        for x, mean, variance in zip(vector, self._means, self._variances, strict=True):
            before = x - mean
            mean += before / count  # noqa: PLW2901  # the running mean moves on
            after = x - mean
            variance += (before * after - variance) / count  # noqa: PLW2901
            means.append(mean)
            variances.append(variance)
            if variance:
                deviation = variance**0.5
                deviations.append(deviation)
                seen.append(after / deviation)
            else:
                deviations.append(0.0)
                seen.append(0.0)
        self._means, self._variances, self._deviations = means, variances, deviations
        return seen

    def numbers(self) -> Numbers:
        """As `Linear` has it."""
        return Numbers(self._count, list(self._means), list(self._variances), list(self._weights), self._intercept)

    def roots(self) -> list[float]:
        """Standard deviations."""
        return list(self._deviations)


def sigmoid(score: float) -> float:
    """River's, `river.utils.math.sigmoid`."""
    if score < -30:
        return 0.0
    if score > 30:
        return 1.0
    return 1 / (1 + exp(-score))


def gradient(recipe: Recipe, score: float, outcome: float) -> float:
    """Derivative of the loss by the score, clipped, as River's `optim.losses` and `linear_model.base.GLM` have it."""
    if recipe.loss == "squared":
        slope = 2 * (score - outcome)
    else:
        sign = 1.0 if outcome else -1.0
        margin = score * sign
        if recipe.loss == "hinge":
            slope = -sign if margin <= recipe.positive else 0.0
        else:
            weight = recipe.positive if outcome else recipe.negative
            if margin > 18.0:
                slope = weight * exp(-margin) * -sign
            elif margin < -18.0:
                slope = weight * -sign
            else:
                slope = weight * -sign / (exp(margin) + 1.0)
    # As max(min(slope, clip), -clip), which leaves what is no number as it is.
    if slope > recipe.clip:
        return recipe.clip
    return -recipe.clip if slope < -recipe.clip else slope
