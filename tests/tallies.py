"""Predictions counted one by one, in Python's own arithmetic: what tallies of many at once are held against."""

from typing import Any

import numpy as np

from learning.quality import EDGE, RELIABILITY_BINS, Curve, Marks, Tally, log_loss, log_odds, point_of, spread
from learning.records import Outcome, Value


def add(tally: Tally, value: Value, outcome: Outcome) -> None:
    """Count one prediction and what came of it."""
    point = point_of(value, outcome)
    if isinstance(point, tuple):
        _add_class(tally, point)
    elif tally.task == "regression":
        error = point - float(outcome)
        _plus(tally, 1, abs(error), error * error, error)
    else:
        truth = bool(outcome)
        place = spread(point) if tally.task == "anomaly" else log_odds(point)
        tally.scores[int(truth), min(int((place + EDGE) * tally.bins / (2.0 * EDGE)), tally.bins - 1)] += 1.0
        if tally.task == "binary":
            _add_probability(tally, point, truth)
        else:
            _plus(tally, 1)


def _add_to_curve(curve: Curve, probability: float, truth: bool) -> None:
    """Count one probability and whether it came true."""
    probability = min(max(probability, 0.0), 1.0)
    bin_ = min(int(probability * RELIABILITY_BINS), RELIABILITY_BINS - 1)
    curve.sums[:, bin_] += (1.0, probability, truth)


def _add_class(tally: Tally, marks: Marks) -> None:
    of_outcome, top, right, squares = marks
    _plus(tally, 1, log_loss(of_outcome, True), squares - 2.0 * of_outcome + 1.0, 0, right)
    _add_to_curve(tally.curve, top, right)


def _add_probability(tally: Tally, probability: float, truth: bool) -> None:
    error = probability - truth
    said = probability >= tally.threshold
    of_true = (said and truth, truth and not said, said and not truth)
    _plus(tally, 1, log_loss(probability, truth), error * error, 0, said == truth, *of_true)
    _add_to_curve(tally.curve, probability, truth)


def _plus(tally: Tally, *counts: Any) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        tally.sums[: len(counts)] += counts
