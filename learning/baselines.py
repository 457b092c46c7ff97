"""What a model must beat: predictors that look at outcomes only, each asked before it is told.

They see the outcomes that the model learns, in the order of the training log, whatever entity they are of.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from learning.quality import points_of
from learning.records import Outcome, Value

BASELINES = ("base_rate", "last_label")

_TRUE, _FALSE = "True", "False"


class Baselines:
    """The two baselines, which share what they count.

    `base_rate` says how often each class has come. For True or False by the rule of succession, (times + 1) / (n + 2);
    for several classes likewise over those seen so far, so that a new class costs it what it costs a model that gives
    it a probability of 0. For regression it says the mean.

    `last_label` says what came last. As a certainty that would cost an infinite log loss, so it is a probability: how
    often a class was followed by itself, again by the rule of succession; what is left goes to the other classes by
    their frequencies. Where outcomes persist, its accuracy is that of the no-change classifier (Zliobaite, Bifet, Read,
    Pfahringer, Holmes (2015), "Evaluation methods and decision theory for classification of streaming data with
    temporal dependence"); where they do not, it is no worse than the base rate. For regression it says the last value.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self._n = 0
        self._mean = 0.0
        self._last: Outcome | None = None
        self._times: dict[str, int] = {}
        self._followed: dict[str, int] = {}  # how often anything came after the class
        self._stayed: dict[str, int] = {}  # and how often that was the class itself

    def base_rate(self) -> Value:
        """What the base rate says next."""
        if self._task == "regression":
            return self._mean
        if self._task != "multiclass":
            return (self._times.get(_TRUE, 0) + 1) / (self._n + 2)
        total = self._n + len(self._times)
        return {name: (times + 1) / total for name, times in self._times.items()}

    def last_label(self) -> Value:
        """What the last label says next."""
        last = self._last
        if self._task == "regression":
            return 0.0 if last is None else float(last)
        if last is None:
            return {} if self._task == "multiclass" else 0.5
        name = str(last)
        stay = (self._stayed.get(name, 0) + 1) / (self._followed.get(name, 0) + 2)
        if self._task != "multiclass":
            return stay if last else 1.0 - stay
        others = self._n - self._times[name]
        share = (1.0 - stay) / others if others else 0.0
        return {other: stay if other == name else times * share for other, times in self._times.items()}

    def learn(self, outcome: Outcome) -> None:
        """Tell both what came."""
        self._n += 1
        if self._task == "regression":
            self._mean += (float(outcome) - self._mean) / self._n
            self._last = outcome
            return
        outcome = outcome if self._task == "multiclass" else bool(outcome)
        name = str(outcome)
        if self._last is not None:
            before = str(self._last)
            self._followed[before] = self._followed.get(before, 0) + 1
            self._stayed[before] = self._stayed.get(before, 0) + (before == name)
        self._times[name] = self._times.get(name, 0) + 1
        self._last = outcome

    def go_through(self, outcomes: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """What the base rate and the last label say before each of these, which both are told on the way.

        As points, see `learning.quality.Points`.
        """
        if self._task in ("binary", "anomaly") and self._last is not None and len(outcomes):
            return self._of_classes(outcomes)
        base_rate: list[Value] = []
        last_label: list[Value] = []
        for outcome in outcomes.tolist():
            base_rate.append(self.base_rate())
            last_label.append(self.last_label())
            self.learn(outcome)
        return points_of(base_rate, outcomes.tolist()), points_of(last_label, outcomes.tolist())

    def _of_classes(self, truths: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The same of True and False by running counts, to the last bit: all are integers until they are divided."""
        before = np.concatenate(([bool(self._last)], truths[:-1]))
        times = self._times.get(_TRUE, 0) + _earlier(truths)
        base_rate = (times + 1) / (self._n + np.arange(len(truths)) + 2)
        stay = np.empty(len(truths))
        for name, at in ((_TRUE, before), (_FALSE, ~before)):
            stayed = at & (truths == before)
            followed_by = self._followed.get(name, 0) + _earlier(at)
            stayed_by = self._stayed.get(name, 0) + _earlier(stayed)
            stay[at] = ((stayed_by + 1) / (followed_by + 2))[at]
            _count(self._followed, name, int(at.sum()), int(at.sum()))
            _count(self._stayed, name, int(stayed.sum()), int(at.sum()))
        for name, came in ((_TRUE, int(truths.sum())), (_FALSE, int((~truths).sum()))):
            _count(self._times, name, came, came)
        self._n += len(truths)
        self._last = bool(truths[-1])
        return base_rate, np.where(before, stay, 1.0 - stay)

    def state(self) -> dict[str, Any]:
        """Everything in it, in plain containers that are its own."""
        counts = [dict(self._times), dict(self._followed), dict(self._stayed)]
        return {"n": self._n, "mean": self._mean, "last": self._last, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._n, self._mean, self._last = state["n"], state["mean"], state["last"]
        self._times, self._followed, self._stayed = map(dict, state["counts"])


def _earlier(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many marks there are before each place."""
    return np.cumsum(marks) - marks


def _count(counts: dict[str, int], name: str, more: int, seen: int) -> None:
    """Count, where the name was seen at all: what was not has no count."""
    if seen:
        counts[name] = counts.get(name, 0) + more
