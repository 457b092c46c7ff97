"""Where predictions have become worse, and which inputs have moved: examples before a time against those since. Pure.

For people who look for a cause. Hundreds of groups are looked at and the worst are shown, so some growth beyond two
standard errors is there by chance alone: this orders a list, it tests nothing.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from learning.records import Example

Vectors = npt.NDArray[np.float64]
Losses = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEAST = 30
"""Examples that a group needs for its mean loss to mean anything."""
ERRORS = 2.0
"""Standard errors of a difference that are put down to chance."""


class Slice(msgspec.Struct, frozen=True):
    """Examples whose value of one feature lies in a range, before and since.

    Attributes:
        name: the group, as in "amount >= 20".
        n_before: examples of it before.
        n: since.
        loss_before: their mean loss before; of all examples where the group had fewer than `LEAST`.
        loss: since.
        share_before: the group's share of all examples before.
        share: since.
        known: whether the group had its own examples before.
        growth: by how much the loss grew beyond `ERRORS` standard errors; the list is ordered by it.
    """

    name: str
    n_before: int
    n: int
    loss_before: float
    loss: float
    share_before: float
    share: float
    known: bool
    growth: float


class Moved(msgspec.Struct, frozen=True):
    """How a feature was before and has been since.

    Attributes:
        name: of the feature.
        mean_before: of its finite values.
        mean: since.
        ks: largest difference of the two distribution functions, from 0 to 1.
    """

    name: str
    mean_before: float
    mean: float
    ks: float


def vectors_of(examples: Sequence[Example], width: int) -> Vectors:
    """Their vectors as rows; a shape of (0, width) where there are none."""
    return np.array([example.features for example in examples], dtype=np.float64).reshape(len(examples), width)


def worst_slices(
    names: Sequence[str], before: Vectors, losses_before: Losses, since: Vectors, losses: Losses, *, most: int = 10
) -> list[Slice]:
    """The groups whose mean loss grew most beyond chance, the worst first; none where either side has too few.

    Groups are those of one feature: each value of a column of zeros and ones, else quarters of what came before, and
    missing values. A group counts by its growth less two standard errors of the difference of means (Welch's).

    Args:
        names: of the features.
        before: vectors before, of shape (n, features).
        losses_before: what their predictions cost.
        since: vectors since.
        losses: what these cost.
        most: how many groups.
    """
    if min(len(before), len(since)) < LEAST:
        return []
    found = [
        made
        for column, name in enumerate(names)
        for group, was, now in _groups(name, before[:, column], since[:, column])
        if (made := _slice(group, was, losses_before, now, losses)) is not None
    ]
    return sorted(found, key=lambda each: (-each.growth, each.name))[:most]


def moved(names: Sequence[str], before: Vectors, since: Vectors) -> list[Moved]:
    """Every feature that has values before and since, the one that moved most first."""
    found = []
    for column, name in enumerate(names):
        was, now = (_finite(values[:, column]) for values in (before, since))
        if len(was) and len(now):
            with np.errstate(over="ignore"):
                found.append(Moved(name, float(was.mean()), float(now.mean()), _ks(was, now)))
    return sorted(found, key=lambda each: (-each.ks, each.name))


def _groups(name: str, before: Losses, since: Losses) -> Iterator[tuple[str, Mask, Mask]]:
    """Groups of one feature by name, as masks over the values before and since."""
    finite = _finite(before)
    missing, missing_now = ~np.isfinite(before), ~np.isfinite(since)
    if missing.any() or missing_now.any():
        yield f"{name} missing", missing, missing_now
    if not len(finite):
        return
    if np.isin(finite, (0.0, 1.0)).all() and np.isin(_finite(since), (0.0, 1.0)).all():
        for value in (0.0, 1.0):
            yield f"{name} = {value:g}", before == value, since == value
        return
    edges = np.unique(np.quantile(finite, (0.25, 0.5, 0.75))).tolist()
    # Where many values are alike, quarters have the same edge; below the smallest value there is no group.
    bounds = [-math.inf, *(edge for edge in edges if edge > finite.min()), math.inf]
    for low, high in itertools.pairwise(bounds):
        masks = [(values >= low) & (values < high) & np.isfinite(values) for values in (before, since)]
        yield _range(name, low, high), masks[0], masks[1]


def _range(name: str, low: float, high: float) -> str:
    """A half-open range as people write it.

    >>> _range("x", -math.inf, 2.0), _range("x", 2.0, 3.5), _range("x", 3.5, math.inf)
    ('x < 2', '2 <= x < 3.5', 'x >= 3.5')
    """
    if math.isinf(low):
        return name if math.isinf(high) else f"{name} < {high:.4g}"
    return f"{name} >= {low:.4g}" if math.isinf(high) else f"{low:.4g} <= {name} < {high:.4g}"


def _slice(name: str, was: Mask, losses_before: Losses, now: Mask, losses: Losses) -> Slice | None:
    n_before, n = int(was.sum()), int(now.sum())
    if n < LEAST:
        return None
    known = n_before >= LEAST
    base, own = losses_before[was] if known else losses_before, losses[now]
    error = math.sqrt(float(base.var(ddof=1)) / len(base) + float(own.var(ddof=1)) / n)
    loss_before, loss = float(base.mean()), float(own.mean())
    growth = loss - loss_before - ERRORS * error
    if not growth > 0.0:
        return None
    share_before, share = n_before / len(losses_before), n / len(losses)
    return Slice(name, n_before, n, loss_before, loss, share_before, share, known, growth)


def _finite(values: Losses) -> Losses:
    chosen: Losses = values[np.isfinite(values)]
    return chosen


def _ks(was: Losses, now: Losses) -> float:
    places = np.concatenate([was, now])
    below = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (was, now)]
    return float(np.abs(below[0] - below[1]).max())
