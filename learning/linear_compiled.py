"""`learning.linear` compiled: the same operations in the same order, over one array of doubles.

The array is a header of `_HEAD` numbers, then six rows with an entry for each feature: the vector, means, variances,
their roots, weights, and the vector as scaled.
"""

import math
import random
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features import compiled
from learning.linear import Loss, Numbers, PythonLinear, Recipe
from learning.vectors import Floats

_HEAD = 12
_ROWS = 6
_LOSSES: dict[Loss, float] = {"squared": 0.0, "log": 1.0, "hinge": 2.0}
# What must come out alike before the compiled loops are believed: 10,800 roots, of which about one in a thousand is
# another number than the power that Python takes.
_EXAMPLES, _FEATURES = 300, 12

State = npt.NDArray[Any]


def predict(state: State) -> float:
    """What the model says about the vector in the array."""
    n = (state.size - 12) // 6
    score = 0.0
    if state[2] != 0.0:
        for i in range(12, 12 + n):
            deviation = state[i + 3 * n]
            if deviation != 0.0:
                score += (state[i] - state[i + n]) / deviation * state[i + 4 * n]
            else:
                score += 0.0 * state[i + 4 * n]
    else:
        for i in range(12, 12 + n):
            score += state[i] * state[i + 4 * n]
    score += state[1]
    if state[3] == 0.0:
        return score  # type: ignore[no-any-return]
    if score < -30:
        return 0.0
    if score > 30:
        return 1.0
    return 1 / (1 + math.exp(-score))


def predict_rows(state: State, vectors: State, said: State) -> None:
    """What the model says about each row of the vectors, into `said`; as `predict`."""
    n = (state.size - 12) // 6
    for row in range(vectors.shape[0]):
        score = 0.0
        if state[2] != 0.0:
            for i in range(n):
                deviation = state[12 + i + 3 * n]
                if deviation != 0.0:
                    score += (vectors[row, i] - state[12 + i + n]) / deviation * state[12 + i + 4 * n]
                else:
                    score += 0.0 * state[12 + i + 4 * n]
        else:
            for i in range(n):
                score += vectors[row, i] * state[12 + i + 4 * n]
        score += state[1]
        if state[3] == 0.0:
            said[row] = score
        elif score < -30:
            said[row] = 0.0
        elif score > 30:
            said[row] = 1.0
        else:
            said[row] = 1 / (1 + math.exp(-score))


def learn_rows(state: State, vectors: State, outcomes: State) -> None:
    """Take each row of the vectors with its outcome, one after the other; a class is 1.0 or 0.0."""
    n = (state.size - 12) // 6
    for row in range(vectors.shape[0]):
        outcome = outcomes[row]
        count = state[0] + 1.0
        state[0] = count
        score = 0.0
        if state[2] != 0.0:
            half = state[9]  # not as a literal: LLVM makes a root of that, which rounds otherwise than the power
            for i in range(12, 12 + n):
                x = vectors[row, i - 12]
                mean = state[i + n]
                variance = state[i + 2 * n]
                before = x - mean
                mean += before / count
                after = x - mean
                variance += (before * after - variance) / count
                state[i + n] = mean
                state[i + 2 * n] = variance
                if variance != 0.0:
                    deviation = variance**half
                    state[i + 3 * n] = deviation
                    z = after / deviation
                else:
                    state[i + 3 * n] = 0.0
                    z = 0.0
                state[i + 5 * n] = z
                score += z * state[i + 4 * n]
        else:
            for i in range(12, 12 + n):
                z = vectors[row, i - 12]
                state[i + 5 * n] = z
                score += z * state[i + 4 * n]
        score += state[1]
        if state[3] == 0.0:
            slope = 2 * (score - outcome)
        else:
            sign = 1.0 if outcome != 0.0 else -1.0
            margin = score * sign
            if state[3] == 2.0:
                slope = -sign if margin <= state[4] else 0.0
            else:
                weight = state[4] if outcome != 0.0 else state[5]
                if margin > 18.0:
                    slope = weight * math.exp(-margin) * -sign
                elif margin < -18.0:
                    slope = weight * -sign
                else:
                    slope = weight * -sign / (math.exp(margin) + 1.0)
        clip = state[8]
        if slope > clip:
            slope = clip
        elif slope < -clip:
            slope = -clip
        state[1] -= state[7] * slope
        rate = state[6]
        for i in range(12 + 4 * n, 12 + 5 * n):
            state[i] -= rate * (state[i + n] * slope)


class CompiledLinear:
    """A `learning.linear.Linear` over one array."""

    def __init__(self, recipe: Recipe, numbers: Numbers) -> None:
        n = len(numbers.weights)
        self._n = n
        self._state: Any = np.zeros(_HEAD + _ROWS * n)
        self._state[:10] = [
            numbers.examples, numbers.intercept, recipe.scaled, _LOSSES[recipe.loss], recipe.positive, recipe.negative,
            recipe.rate, recipe.intercept_rate, recipe.clip, 0.5,
        ]  # fmt: skip
        rows = self._state[_HEAD:].reshape(_ROWS, n)
        # The roots as Python takes them: NumPy's may be another one.
        rows[1:5] = [
            numbers.means, numbers.variances, [variance**0.5 for variance in numbers.variances], numbers.weights,
        ]  # fmt: skip
        self._row: Any = np.empty((1, n))  # an example that comes alone
        self._outcome = np.empty(1)
        self._fill = struct.Struct(f"{n}d").pack_into
        self._predict, self._predict_rows, self._learn_rows = _kernels()

    def predict(self, vector: Sequence[float]) -> float:
        """As `Linear` has it."""
        self._fill(self._state, 8 * _HEAD, *vector)
        value: float = self._predict(self._state)
        return value

    def predict_all(self, vectors: Floats) -> list[float]:
        """As `Linear` has it."""
        said: Floats = np.empty(len(vectors))
        self._predict_rows(self._state, np.ascontiguousarray(vectors), said)
        return said.tolist()  # type: ignore[no-any-return]

    def learn(self, vector: Sequence[float], outcome: float) -> None:
        """As `Linear` has it."""
        self._fill(self._row, 0, *vector)
        self._outcome[0] = outcome
        self._learn_rows(self._state, self._row, self._outcome)

    def learn_all(self, vectors: Floats, outcomes: Floats) -> None:
        """As `Linear` has it."""
        self._learn_rows(self._state, np.ascontiguousarray(vectors), outcomes)

    def numbers(self) -> Numbers:
        """As `Linear` has it."""
        rows = self._state[_HEAD:].reshape(_ROWS, self._n)
        means, variances, weights = (rows[row].tolist() for row in (1, 2, 4))
        return Numbers(int(self._state[0]), means, variances, weights, float(self._state[1]))

    def roots(self) -> list[float]:
        """Standard deviations."""
        values: list[float] = self._state[_HEAD:].reshape(_ROWS, self._n)[3].tolist()
        return values


_compiled: list[Any] = []


def _kernels() -> tuple[Any, Any, Any]:
    """The functions compiled; the first call takes a second or two, if they are not in the cache."""
    if not _compiled:
        _compiled[:] = [
            compiled.jit(predict, "f8(f8[::1])"),
            compiled.jit(predict_rows, "void(f8[::1], f8[:, ::1], f8[::1])"),
            compiled.jit(learn_rows, "void(f8[::1], f8[:, ::1], f8[::1])"),
        ]
    return _compiled[0], _compiled[1], _compiled[2]


def prove() -> None:
    """Compile, and hold some examples against Python. Raises `CompiledError` where one bit differs."""
    chance = random.Random(1)
    start = Numbers(0, [0.0] * _FEATURES, [0.0] * _FEATURES, [0.0] * _FEATURES, 0.0)
    for loss in _LOSSES:
        recipe = Recipe(True, loss, 1.0, 1.0, 0.01, 0.01, 1e12)
        ours, python = CompiledLinear(recipe, start), PythonLinear(recipe, start)
        vectors, outcomes = [], []
        for _ in range(_EXAMPLES):
            vector = [chance.gauss(place, 10.0**place) for place in range(_FEATURES)]
            number = vector[0] + vector[1] / 10 + chance.gauss(0, 1)
            outcome = number if loss == "squared" else float(number > 0)
            said = ours.predict(vector), python.predict(vector)
            for one in (ours, python):
                one.learn(vector, outcome)
            same = ours.numbers() == python.numbers() and ours.roots() == python.roots()
            if said[0] != said[1] or not same:
                message = f"compiled, {loss} loss gives other numbers than in Python on this machine"
                raise compiled.CompiledError(message)
            vectors.append(vector)
            outcomes.append(outcome)
        if ours.predict_all(np.array(vectors)) != [ours.predict(vector) for vector in vectors]:
            message = f"compiled, {loss} loss says other numbers of many vectors than of each on this machine"
            raise compiled.CompiledError(message)
        at_once = CompiledLinear(recipe, start)
        at_once.learn_all(np.array(vectors), np.array(outcomes))
        if (at_once.numbers(), at_once.roots()) != (ours.numbers(), ours.roots()):
            message = f"compiled, {loss} loss learns other numbers from many examples than from each on this machine"
            raise compiled.CompiledError(message)
