"""How long labels take: quantiles of a stream of durations in fixed memory."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

ACCURACY = 0.01
_GAMMA = (1.0 + ACCURACY) / (1.0 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
_LONGEST_MS = 1 << 42  # 139 years; beyond, all are alike


class Delays:
    """Durations in bins of equal relative width, so that each is known to within 1 %.

    The sketch of Masson, Rim, Lee (2019), "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
    guarantees": bin i holds what is above gamma^(i-1) and at most gamma^i milliseconds. There are 1,456 bins at most.

    Attributes:
        bins: how many durations lie in each bin; -1 for those of 0 ms and less.
    """

    def __init__(self) -> None:
        self.bins: dict[int, int] = {}

    def add_all(self, delays_ms: npt.NDArray[np.int64]) -> None:
        """Take durations; a label whose time is before its event's took no time."""
        ms = delays_ms.astype(float)
        bins = np.where(ms > 0, np.ceil(np.log(np.clip(ms, 1.0, _LONGEST_MS)) / _LOG_GAMMA), -1.0).astype(int)
        for bin_, n in zip(*(values.tolist() for values in np.unique(bins, return_counts=True)), strict=True):
            self.bins[bin_] = self.bins.get(bin_, 0) + n

    def merge(self, other: "Delays") -> None:
        """Take what another one took."""
        for bin_, n in other.bins.items():
            self.bins[bin_] = self.bins.get(bin_, 0) + n

    def quantiles(self) -> dict[str, float]:
        """`QUANTILES` in seconds: the smallest duration that at least that share does not exceed. Empty without any."""
        if not self.bins:
            return {}
        bins = sorted(self.bins)
        reached = np.cumsum([self.bins[bin_] for bin_ in bins])
        at = {name: int(np.searchsorted(reached, share * reached[-1])) for name, share in QUANTILES.items()}
        return {name: _middle_ms(bins[i]) / 1000.0 for name, i in at.items()}


def _middle_ms(bin_: int) -> float:
    """The duration that differs from no duration of the bin by more than 1 %."""
    return 0.0 if bin_ < 0 else 2.0 * math.exp(bin_ * _LOG_GAMMA) / (_GAMMA + 1.0)


def exact_quantiles(delays_ms: Sequence[int]) -> dict[str, float]:
    """The same of durations that are all there, exactly.

    >>> exact_quantiles([5_000, -20, 1_000])
    {'p50': 1.0, 'p90': 5.0, 'p99': 5.0}
    """
    if not delays_ms:
        return {}
    ranked = np.maximum(np.sort(np.asarray(delays_ms)), 0) / 1000.0
    at = {name: max(math.ceil(share * len(ranked)) - 1, 0) for name, share in QUANTILES.items()}
    return {name: float(ranked[i]) for name, i in at.items()}
