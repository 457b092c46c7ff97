"""How good predictions are: tallies of fixed size that add up, and the same measures exactly over stored predictions.

`learning.watch` keeps tallies, `learning.backtest` measures exactly. A measure that is not defined yet is left out.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learning.records import Outcome, Value

Report = dict[str, float]
Marks = tuple[float, float, bool, float]
Point = float | Marks

SMALLEST = 1e-15  # a probability of 0 that turns out wrong costs 34.5 nats, not infinity
FINE = 2048  # bins of scores for the ROC AUC
COARSE = 256  # for tallies of which there are many; measured in tests/laws/test_quality.py
EDGE = 15.0  # log-odds at the outermost bins: a probability of 3e-7
# Of equal width, so that they are the same for every window and add up. Ten, as is usual: a rolling window of 1,000
# then has some hundred in each; with more bins, chance alone would make the calibration error of a window larger.
RELIABILITY_BINS = 10

MEASURES = {
    "roc_auc": "probability that a True scores above a False, equal scores counting half",
    "log_loss": "mean of -log of the probability that was given to the outcome, in nats",
    "accuracy": "share of predictions whose class was the outcome; of a probability, whether it reaches the threshold",
    "f1": "harmonic mean of precision and recall of True, at the threshold",
    "brier": "mean squared difference of probability and outcome, from 0 to 1; with several classes summed over them,"
    " from 0 to 2",
    "calibration_error": "expected calibration error: by how much the probability of True, or that of the most probable"
    " class, differs from the share that came true, on average over ten bins of the probability",
    "mae": "mean absolute error",
    "rmse": "root of the mean squared error",
    "bias": "mean of prediction less outcome, which is what calibration is where predictions are no probabilities",
}


def log_loss(probability: float, outcome: bool) -> float:
    """Cost of a probability given the outcome, in nats.

    >>> round(log_loss(0.5, True), 6), round(log_loss(0.0, True), 3)
    (0.693147, 34.539)
    """
    right = probability if outcome else 1.0 - probability
    return -math.log(min(max(right, SMALLEST), 1.0 - SMALLEST))


def log_losses(right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The `log_loss` of each, to the last bit, by the probability that was given to what came."""
    # The logarithm is Python's: NumPy's may be another one.
    return -np.array(list(map(math.log, np.clip(right, SMALLEST, 1.0 - SMALLEST).tolist())), dtype=float)


def loss_of(task: str, value: Value, outcome: Outcome) -> float:
    """What one prediction cost: log loss, or the absolute error for regression and anomaly scores."""
    if isinstance(value, dict):
        return log_loss(value.get(str(outcome), 0.0), True)
    if task == "binary":
        return log_loss(value, bool(outcome))
    return abs(value - float(outcome))


def are_wrong(
    task: str, points: npt.NDArray[np.float64], outcomes: npt.NDArray[Any], threshold: float
) -> npt.NDArray[np.bool_]:
    """Whether the class that each prediction stands for is another than the outcome; points as `Points` has them."""
    wrong: npt.NDArray[np.bool_]
    if task == "multiclass":
        wrong = points[:, 2] == 0.0
    else:
        wrong = points != outcomes if task == "regression" else (points >= threshold) != outcomes
    return wrong


def best_class(probabilities: Mapping[str, float]) -> str | None:
    """The most probable class, the first by name among equals; None where there is none.

    >>> best_class({"b": 0.4, "a": 0.4, "c": 0.2})
    'a'
    """
    return min(probabilities, key=lambda name: (-probabilities[name], name), default=None)


def point_of(value: Value, outcome: Outcome) -> Point:
    """All that the measures need of a prediction, in fixed size: a number is its own point, of classes `marks_of`."""
    return marks_of(value, outcome) if isinstance(value, dict) else value


def marks_of(probabilities: Mapping[str, float], outcome: Outcome) -> Marks:
    """All that the measures need of the probabilities of several classes.

    The probability of the outcome, that of the most probable class, whether this was the outcome, and the sum of all
    squared probabilities.

    >>> marks_of({"a": 0.25, "b": 0.75}, "a")
    (0.25, 0.75, False, 0.625)
    """
    name = str(outcome)
    of_outcome, top = probabilities.get(name, 0.0), max(probabilities.values(), default=0.0)
    right = of_outcome == top and best_class(probabilities) == name
    return of_outcome, top, right, sum([p * p for p in probabilities.values()])


def points_of(values: Sequence[Value], outcomes: Sequence[Outcome]) -> npt.NDArray[np.float64]:
    """The `point_of` each, as `Points` has them."""
    return np.array([point_of(*pair) for pair in zip(values, outcomes, strict=True)], dtype=float)


def exact_roc_auc(scores: npt.ArrayLike, outcomes: npt.ArrayLike) -> float | None:
    """Probability that a True scores above a False, equal scores counting half; None where one of them is missing.

    >>> exact_roc_auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    truth = np.asarray(outcomes, dtype=bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(np.asarray(scores, dtype=float), return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2.0
    rank_sum = float(mean_ranks[inverse][truth].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)


def log_odds(score: float) -> float:
    """Log-odds of a probability, clipped.

    >>> log_odds(0.5), log_odds(0.0), log_odds(1.0)
    (0.0, -15.0, 15.0)
    """
    if 0.0 < score < 1.0:
        return min(max(math.log(score / (1.0 - score)), -EDGE), EDGE)
    return EDGE if score >= 1.0 else -EDGE


def spread(score: float) -> float:
    """A place for an anomaly score, which may lie beyond [0, 1]: log-odds up to 10 inside, logarithmic outside.

    >>> spread(0.5), spread(1.0), 10.0 < spread(2.0) < spread(50.0) <= EDGE, spread(-3.0) < spread(0.0)
    (0.0, 10.0, True, True)
    """
    if 0.0 <= score <= 1.0:
        return min(max(log_odds(score), -10.0), 10.0)
    beyond = min(10.0 + math.log1p(score - 1.0 if score > 1.0 else -score) / 4.0, EDGE)
    return beyond if score > 1.0 else -beyond


class Curve:
    """Reliability of probabilities in `RELIABILITY_BINS` bins of equal width.

    Attributes:
        sums: three rows with a number for each bin: predictions in it, the sum of their probabilities, how many of them
            came true.
    """

    def __init__(self, sums: npt.NDArray[np.float64] | None = None) -> None:
        self.sums = np.zeros((3, RELIABILITY_BINS)) if sums is None else sums

    def add_all(self, probabilities: npt.NDArray[np.float64], truths: npt.NDArray[np.bool_]) -> None:
        """Take these, and whether each came true. What is no probability counts as the nearest that is."""
        probabilities = np.clip(probabilities, 0.0, 1.0)
        bins = np.minimum(probabilities * RELIABILITY_BINS, RELIABILITY_BINS - 1).astype(int)
        for row, of_each in enumerate((None, probabilities, truths)):
            self.sums[row] += np.bincount(bins, of_each, RELIABILITY_BINS)

    def bins(self) -> list[tuple[int, float, float]]:
        """Of each bin that is not empty: how many, their mean probability, the share that came true."""
        return [(int(n), predicted / n, observed / n) for n, predicted, observed in self.sums.T.tolist() if n]

    def error(self) -> float | None:
        """The expected calibration error; None without predictions.

        Each bin's difference between mean probability and share that came true, weighted by its predictions: Naeini,
        Cooper, Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning". Chance alone makes
        it larger than 0: of n predictions in a bin, by about sqrt(share * (1 - share) / n).
        """
        bins = [row for row in self.sums.T.tolist() if row[0]]
        total = added(n for n, _, _ in bins)
        return added(n * abs(said / n - came / n) for n, said, came in bins) / total if total else None


def added(numbers: Iterable[float], total: float = 0.0) -> float:
    """A total and these, one by one; `sum` compensates rounding errors from Python 3.12 on."""
    for number in numbers:
        total += number
    return total


_COUNTS = ("n", "loss", "squared", "error", "right", "hits", "misses", "alarms")
_SUMS = ("loss", "squared", "error")  # of them, those that are no whole numbers
_CURVE = slice(len(_COUNTS), len(_COUNTS) + 3 * RELIABILITY_BINS)


def _count(name: str, about: str) -> property:
    """One of the counts of a tally: whole numbers are exact up to 2**53."""
    place = _COUNTS.index(name)
    return property(lambda tally: float(tally.sums[place]), doc=about)


class Tally:
    """Measures of predictions, in fixed memory. Tallies add up: over partitions, tiles of time, or anything else.

    Args:
        task: what the predictions are.
        threshold: of the pipeline.
        bins: how finely scores are told apart for the ROC AUC.

    Attributes:
        sums: all that is counted, one after the other: what the properties say, the curve, the scores.
        bins: how finely scores are told apart.
    """

    n = _count("n", "Predictions taken.")
    loss = _count("loss", "Sum of log losses, or of absolute errors.")
    squared = _count("squared", "Sum of Brier scores, or of squared errors.")
    error = _count("error", "Sum of prediction less outcome, for regression.")
    right = _count("right", "Predictions whose class was the outcome.")
    hits = _count("hits", "Those right of True.")
    misses = _count("misses", "Those wrong of True.")
    alarms = _count("alarms", "Those wrong of False.")

    def __init__(self, task: str, threshold: float, bins: int = FINE) -> None:
        self.task = task
        self.threshold = threshold
        self.bins = bins
        self.sums = np.zeros(_CURVE.stop + 2 * bins)

    @property
    def curve(self) -> Curve:
        """Reliability."""
        return Curve(self.sums[_CURVE].reshape(3, RELIABILITY_BINS))

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """How many scores lie in each bin, those whose outcome was False first, then those of True; (2, bins)."""
        return self.sums[_CURVE.stop :].reshape(2, self.bins)

    def _plus(self, *counts: float) -> None:
        """Add to the first of the counts."""
        with _silent():
            self.sums[: len(counts)] += counts

    def take_all(self, points: npt.ArrayLike, outcomes: npt.ArrayLike) -> None:
        """Take these; points as `Points` has them."""
        Points(self.task, self.threshold, points, outcomes).to(self)

    def _take(self, points: npt.NDArray[np.float64], outcomes: npt.NDArray[Any]) -> None:
        """Take those of one group, of another task than binary."""
        if not len(points):
            return
        if self.task == "multiclass":
            self._take_classes(points)
        elif self.task == "regression":
            self._take_numbers(points, outcomes)
        else:
            self._take_scores(points, outcomes)

    def _take_numbers(self, values: npt.NDArray[np.float64], outcomes: npt.NDArray[Any]) -> None:
        with _silent():
            errors = values - outcomes
            self._plus(len(values), np.abs(errors).sum(), (errors * errors).sum(), errors.sum())

    def _take_scores(self, values: npt.NDArray[np.float64], outcomes: npt.NDArray[Any]) -> None:
        places = _bins_of(np.array(list(map(spread, values.tolist()))) + EDGE, self.bins)
        np.add.at(self.scores, (outcomes.astype(np.int64), places), 1.0)
        self._plus(len(values))

    def _take_classes(self, marks: npt.NDArray[np.float64]) -> None:
        of_outcome, top, right, squares = marks.T
        with _silent():
            squared = float((squares - 2.0 * of_outcome + 1.0).sum())
            self._plus(len(marks), _log_losses(of_outcome), squared, 0, right.sum())
        self.curve.add_all(top, right.astype(bool))

    def merge(self, other: "Tally") -> None:
        """Take what another one took. Raises `ValueError` where it is of another task, threshold or fineness."""
        ours, theirs = (self.task, self.threshold, self.bins), (other.task, other.threshold, other.bins)
        if ours != theirs:
            message = f"got a tally of task, threshold and bins {theirs}, expected {ours}; only alike ones add up"
            raise ValueError(message)
        with _silent():
            self.sums += other.sums

    def times(self, weight: float) -> "Tally":
        """A tally in which each prediction counts as often as the weight says; to be read, or merged into another."""
        made = Tally(self.task, self.threshold, self.bins)
        with _silent():
            made.sums += self.sums * weight
        return made

    def report(self) -> Report:
        """The measures by name; `MEASURES` says what each is."""
        return {name: value for name, value in self._measures() if value is not None and math.isfinite(value)}

    def _measures(self) -> Iterator[tuple[str, float | None]]:
        n = self.n
        if not n:
            return
        if self.task == "regression":
            yield from (("mae", self.loss / n), ("rmse", math.sqrt(self.squared / n)), ("bias", self.error / n))
            return
        if self.task != "multiclass":
            yield "roc_auc", self._roc_auc()
        if self.task != "anomaly":
            yield "log_loss", self.loss / n
            yield "accuracy", self.right / n
            if self.hits + self.misses + self.alarms:
                yield "f1", 2 * self.hits / (2 * self.hits + self.misses + self.alarms)
            yield "brier", self.squared / n
            yield "calibration_error", self.curve.error()

    def _roc_auc(self) -> float | None:
        """From two histograms, a trapezoid inside each bin."""
        negative, positive = self.scores
        pairs = negative.sum() * positive.sum()
        if not pairs:
            return None
        below = np.cumsum(negative) - negative / 2.0
        return float((positive * below).sum() / pairs)

    def state(self) -> dict[str, Any]:
        """Everything in it, in plain containers that are its own."""
        counts = zip(_COUNTS, self.sums[: len(_COUNTS)].tolist(), strict=True)
        n, said, came = self.curve.sums.tolist()
        return {
            "counts": [sum_ if name in _SUMS else int(sum_) for name, sum_ in counts],
            "negative": _by_bin(self.scores[0]),
            "positive": _by_bin(self.scores[1]),
            "curve": [list(map(int, n)), said, list(map(int, came))],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self.sums[:] = 0.0
        self.sums[: len(_COUNTS)] = state["counts"]
        self.curve.sums[:] = state["curve"]
        for side, counts in zip(self.scores, (state["negative"], state["positive"]), strict=True):
            side[list(counts)] = list(counts.values())


def _by_bin(counts: npt.NDArray[np.float64]) -> dict[int, int]:
    """Of the bins that are not empty, how many lie in each."""
    at = np.flatnonzero(counts)
    return dict(zip(at.tolist(), counts[at].astype(np.int64).tolist(), strict=True))


class _Each(NamedTuple):
    """What each of many probabilities adds to a tally; arrays of equal length."""

    truth: npt.NDArray[np.int64]
    said: npt.NDArray[np.int64]  # whether it was below the threshold (0 and 1, which is for True) or not (2 and 3)
    loss: npt.NDArray[np.float64]
    squared: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]
    curve_bin: npt.NDArray[np.int64]
    place: npt.NDArray[np.float64]  # log-odds above the lowest

    def only(self, at: npt.NDArray[Any]) -> "_Each":
        return _Each(*(column[at] for column in self))


class Points:
    """Predictions by their `point_of`, with what came, to be added to several tallies: worked out once for all of them.

    Sums depend on which predictions are together here and on nothing else.

    Args:
        task: of the tallies.
        threshold: of the tallies.
        points: of the predictions; of shape (predictions,), or (predictions, 4) of several classes.
        outcomes: what came, as many.
    """

    def __init__(self, task: str, threshold: float, points: npt.ArrayLike, outcomes: npt.ArrayLike) -> None:
        self._points = np.asarray(points, dtype=float)
        self._outcomes = np.asarray(outcomes)
        self._each = _each(threshold, self._points, self._outcomes.astype(bool)) if task == "binary" else None

    def to(self, tally: Tally) -> None:
        """Add all of them to one tally."""
        self.to_groups([tally], np.zeros(len(self._points), dtype=np.int64))

    def only(self, at: npt.NDArray[np.int64]) -> "Points":
        """Those at some places."""
        chosen = copy(self)
        chosen._points, chosen._outcomes = self._points[at], self._outcomes[at]
        chosen._each = None if self._each is None else self._each.only(at)
        return chosen

    def to_groups(self, tallies: Sequence[Tally], groups: npt.NDArray[np.int64]) -> None:
        """Add each to the tally of its group.

        Args:
            tallies: all of one fineness; one may be there several times.
            groups: of each prediction, the place of its tally.
        """
        if not len(groups):
            return
        if self._each is None:
            for number, tally in enumerate(tallies):
                chosen = groups == number
                tally._take(self._points[chosen], self._outcomes[chosen])
            return
        with _silent():
            for tally, sums in zip(tallies, _by_group(self._each, groups, len(tallies), tallies[0].bins), strict=True):
                tally.sums += sums


def _each(threshold: float, values: npt.NDArray[np.float64], truths: npt.NDArray[np.bool_]) -> _Each:
    inside = np.clip(values, SMALLEST, 1.0 - SMALLEST)
    right = np.clip(np.where(truths, values, 1.0 - values), SMALLEST, 1.0 - SMALLEST)
    probability = np.clip(values, 0.0, 1.0)
    with _silent():
        squared = (values - truths) ** 2
    return _Each(
        truth=truths.astype(np.int64),
        said=2 * (values >= threshold) + truths,
        loss=-np.log(right),
        squared=squared,
        probability=probability,
        curve_bin=np.minimum(probability * RELIABILITY_BINS, RELIABILITY_BINS - 1).astype(np.int64),
        place=np.clip(np.log(inside / (1.0 - inside)), -EDGE, EDGE) + EDGE,
    )


def _by_group(each: _Each, groups: npt.NDArray[np.int64], n: int, bins: int) -> npt.NDArray[np.float64]:
    """What each of `n` groups adds to the `sums` of a tally, a row for each; summed in order."""
    made = np.zeros((n, _CURVE.stop + 2 * bins))
    rejections, misses, alarms, hits = np.bincount(groups * 4 + each.said, minlength=n * 4).reshape(n, 4).T
    counts = {
        "n": rejections + misses + alarms + hits,
        "loss": np.bincount(groups, each.loss, n),
        "squared": np.bincount(groups, each.squared, n),
        "right": rejections + hits,
        "hits": hits,
        "misses": misses,
        "alarms": alarms,
    }
    for name, values in counts.items():
        made[:, _COUNTS.index(name)] = values
    pairs, curves = groups * RELIABILITY_BINS + each.curve_bin, made[:, _CURVE].reshape(n, 3, RELIABILITY_BINS)
    for row, of_each in enumerate((None, each.probability, each.truth)):
        curves[:, row] = np.bincount(pairs, of_each, n * RELIABILITY_BINS).reshape(n, RELIABILITY_BINS)
    sides = (groups * 2 + each.truth) * bins + _bins_of(each.place, bins)
    made[:, _CURVE.stop :] = np.bincount(sides, minlength=n * 2 * bins).reshape(n, 2 * bins)
    return made


def _bins_of(places: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.int64]:
    """The bin of each place above the lowest, of which the highest is `2 * EDGE`."""
    return np.minimum((places * (bins / (2.0 * EDGE))).astype(np.int64), bins - 1)


# What others write to the log, or a model that diverges says, may be beyond all bounds. Sums of it that are no numbers
# are left out of a report, as other measures that are not defined; numpy need not warn, as floats of Python do not.
_silent = partial(np.errstate, over="ignore", invalid="ignore")


def _log_losses(right: npt.NDArray[np.float64]) -> float:
    """Sum of what these probabilities of what came cost."""
    return float(-np.log(np.clip(right, SMALLEST, 1.0 - SMALLEST)).sum())


def measured(task: str, threshold: float, points: npt.ArrayLike, outcomes: npt.ArrayLike) -> tuple[Report, Curve]:
    """The measures of `Tally.report` over these predictions, with the ROC AUC exact; and their reliability."""
    tally = Tally(task, threshold)
    tally.take_all(points, outcomes)
    report = tally.report()
    if "roc_auc" in report:
        report["roc_auc"] = exact_roc_auc(points, outcomes) or 0.0
    return report, tally.curve


def measure(task: str, threshold: float, pairs: Sequence[tuple[Value, Outcome]]) -> Report:
    """The measures of predictions with what came of them, exactly."""
    outcomes = [outcome for _, outcome in pairs]
    return measured(task, threshold, [point_of(*pair) for pair in pairs], outcomes)[0]
