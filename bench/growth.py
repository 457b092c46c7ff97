"""Whether a figure that was looked at again and again grows; pure.

Neighbouring samples are alike, and what is compacted goes up and down in saw-teeth, so single samples say little about
a trend. Therefore the samples are taken together in blocks whose means are nearly independent (the method of batch
means: Law, *Simulation Modeling and Analysis*, 5th ed., section 9.5.3), and a line through these means is judged by
their scatter around it.
"""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

BLOCKS = 12
T_99 = 2.764  # Student's t with BLOCKS - 2 degrees of freedom, one-sided
SHARE = 0.05  # of the mean: the growth from the beginning to the end that is let pass
PARTS = 6


class Trend(NamedTuple):
    """How a figure went, between two times.

    Attributes:
        mean: of all samples.
        parts: the mean of each sixth.
        slope: of the least-squares line, a second.
        error: standard error of the slope.
        seconds: between the two times.
        slack: growth that is let pass, where that is more than a share of the mean.
    """

    mean: float
    parts: list[float]
    slope: float
    error: float
    seconds: float
    slack: float = 0.0

    @property
    def bound(self) -> float:
        """Growth over the whole time from which on the figure counts as growing."""
        return max(SHARE * abs(self.mean), self.slack, T_99 * self.error * self.seconds)

    @property
    def growth(self) -> float:
        """From the beginning to the end, by the line."""
        return self.slope * self.seconds

    @property
    def grows(self) -> bool:
        """Whether it grows by more than a twentieth, and by more than its own ups and downs explain."""
        return self.growth > self.bound


def trend(at: Sequence[float], values: Sequence[float], begin: float, end: float, slack: float = 0.0) -> Trend:
    """How these values went.

    Args:
        at: the times of the samples, in seconds, ascending.
        values: the samples.
        begin: what is before it is left out.
        end: what is behind it is left out.
        slack: growth from `begin` to `end` that is let pass.

    Raises:
        ValueError: a twelfth of the time has no sample.

    >>> trend(range(120), [100.0 + time for time in range(120)], 0, 120).grows
    True
    >>> trend(range(120), [100.0 + time % 10 for time in range(120)], 0, 120).grows
    False
    """
    blocks = _cut(at, values, begin, end, BLOCKS)
    middles = [begin + (number + 0.5) * (end - begin) / BLOCKS for number in range(BLOCKS)]
    means = [statistics.fmean(block) for block in blocks]
    slope, intercept = statistics.linear_regression(middles, means)
    off = math.fsum((mean - intercept - slope * middle) ** 2 for middle, mean in zip(middles, means, strict=True))
    centre = statistics.fmean(middles)
    spread = math.fsum((middle - centre) ** 2 for middle in middles)
    return Trend(
        statistics.fmean([value for block in blocks for value in block]),
        [statistics.fmean(part) for part in _cut(at, values, begin, end, PARTS)],
        slope,
        math.sqrt(off / (BLOCKS - 2) / spread),
        end - begin,
        slack,
    )


def _cut(at: Sequence[float], values: Sequence[float], begin: float, end: float, number: int) -> list[list[float]]:
    """The values of each of so many equal spans of time."""
    edges = [begin + (end - begin) * index / number for index in range(number + 1)]
    pairs = list(zip(at, values, strict=True))
    found = [[value for time, value in pairs if low <= time < high] for low, high in pairwise(edges)]
    if not all(found):
        message = (
            f"got {len(pairs)} samples of which none is in a span of {(end - begin) / number:.0f} s between {begin:.0f}"
            f" and {end:.0f} s, expected some in each; measure for longer, or more often"
        )
        raise ValueError(message)
    return found
