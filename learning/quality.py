"""How good predictions are: running tallies of fixed size, and the same measures exactly over stored pairs.

`learning.watch` keeps tallies, `learning.backtest` measures exactly. A measure that is not defined yet is left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from learning.records import Outcome, Value

Report = dict[str, float]

SMALLEST = 1e-15  # a probability of 0 that turns out wrong costs 34.5 nats, not infinity
BINS = 2048
EDGE = 15.0  # log-odds at the outermost bins: a probability of 3e-7


def log_loss(probability: float, outcome: bool) -> float:
    """Cost of a probability given the outcome, in nats.

    >>> round(log_loss(0.5, True), 6), round(log_loss(0.0, True), 3)
    (0.693147, 34.539)
    """
    right = probability if outcome else 1.0 - probability
    return -math.log(min(max(right, SMALLEST), 1.0 - SMALLEST))


def loss_of(task: str, value: Value, outcome: Outcome) -> float:
    """What one prediction cost: log loss, or the absolute error for regression and anomaly scores."""
    if isinstance(value, dict):
        return log_loss(value.get(str(outcome), 0.0), True)
    if task == "binary":
        return log_loss(value, bool(outcome))
    return abs(value - float(outcome))


def is_wrong(task: str, value: Value, outcome: Outcome, threshold: float) -> bool:
    """Whether the class that the prediction stands for is another than the outcome."""
    if isinstance(value, dict):
        return best_class(value) != str(outcome)
    return (value >= threshold) != bool(outcome) if task != "regression" else value != outcome


def best_class(probabilities: Mapping[str, float]) -> str | None:
    """The most probable class, the first by name among equals; None where there is none.

    >>> best_class({"b": 0.4, "a": 0.4, "c": 0.2})
    'a'
    """
    return min(probabilities, key=lambda name: (-probabilities[name], name), default=None)


def entropy(counts: Sequence[int]) -> float:
    """Log loss of always predicting the class frequencies: what a model without features could reach."""
    total = sum(counts)
    return -sum(n / total * math.log(n / total) for n in counts if n)


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


class _Histogram:
    """ROC AUC of a stream in fixed memory: two histograms, a trapezoid inside each bin."""

    def __init__(self, place: Callable[[float], float]) -> None:
        self._place = place
        self.negative = [0] * BINS
        self.positive = [0] * BINS

    def add(self, score: float, outcome: bool) -> None:
        bin_ = min(int((self._place(score) + EDGE) * (BINS / (2.0 * EDGE))), BINS - 1)
        (self.positive if outcome else self.negative)[bin_] += 1

    def auc(self) -> float | None:
        negative, positive = np.array(self.negative, dtype=float), np.array(self.positive, dtype=float)
        pairs = negative.sum() * positive.sum()
        if not pairs:
            return None
        below = np.cumsum(negative) - negative / 2.0
        return float((positive * below).sum() / pairs)


class Tally:
    """Measures of every prediction so far, in fixed memory.

    Attributes:
        counts: plain numbers by name; classes seen are counted under "class:<name>".
        histogram: for the ROC AUC.
    """

    def __init__(self, task: str, threshold: float) -> None:
        self.task = task
        self.threshold = threshold
        self.counts: dict[str, float] = {}
        self.histogram = _Histogram(spread if task == "anomaly" else log_odds)

    def add(self, value: Value, outcome: Outcome) -> None:
        """Take one prediction and what came of it."""
        self._count("n")
        if self.task == "regression":
            error = loss_of(self.task, value, outcome)
            self._count("absolute", error)
            self._count("squared", error * error)
            return
        self._count(f"class:{outcome}")
        if isinstance(value, dict):
            self._count("loss", loss_of(self.task, value, outcome))
            self._count("wrong", is_wrong(self.task, value, outcome, self.threshold))
            return
        self.histogram.add(value, bool(outcome))
        if self.task == "binary":
            self._count("loss", log_loss(value, bool(outcome)))
            self._count(f"{value >= self.threshold}:{bool(outcome)}")

    def report(self) -> Report:
        """The measures by name."""
        get = self.counts.get
        n = get("n", 0.0)
        if not n:
            return {}
        if self.task == "regression":
            return {"mae": get("absolute", 0.0) / n, "rmse": math.sqrt(get("squared", 0.0) / n)}
        if self.task == "multiclass":
            return {
                "accuracy": 1.0 - get("wrong", 0.0) / n,
                "log_loss": get("loss", 0.0) / n,
                "base_rate_log_loss": self._base_rate(),
            }
        auc = self.histogram.auc()
        report = {} if auc is None else {"roc_auc": auc}
        if self.task == "binary":
            hits, misses = get("True:True", 0.0), get("False:True", 0.0)
            alarms, passes = get("True:False", 0.0), get("False:False", 0.0)
            report |= {"log_loss": get("loss", 0.0) / n, "accuracy": (hits + passes) / n}
            if hits + misses + alarms:
                report["f1"] = 2 * hits / (2 * hits + misses + alarms)
            report["base_rate_log_loss"] = self._base_rate()
        return report

    def state(self) -> dict[str, Any]:
        """Everything in it, in plain containers."""
        return {
            "counts": dict(self.counts),
            "negative": list(self.histogram.negative),
            "positive": list(self.histogram.positive),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self.counts = dict(state["counts"])
        self.histogram.negative = list(state["negative"])
        self.histogram.positive = list(state["positive"])

    def _count(self, name: str, amount: float = 1.0) -> None:
        self.counts[name] = self.counts.get(name, 0.0) + amount

    def _base_rate(self) -> float:
        return entropy([int(n) for name, n in self.counts.items() if name.startswith("class:")])


def measure(task: str, threshold: float, pairs: Sequence[tuple[Value, Outcome]]) -> Report:
    """The measures of `Tally.report` over these pairs, with the ROC AUC exact."""
    tally = Tally(task, threshold)
    for value, outcome in pairs:
        tally.add(value, outcome)
    report = tally.report()
    if "roc_auc" in report:
        values, outcomes = zip(*pairs, strict=True)
        report["roc_auc"] = exact_roc_auc(values, outcomes) or 0.0
    return report
