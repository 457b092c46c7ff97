"""When to raise an alarm: many signals, one budget of false alarms, no labels needed.

Each window of events gives each signal some statistics; each is told against how the same statistic has varied so far,
as an e-value: a bet that pays nothing on average while all is as before. Shiryaev and Roberts' sum of these bets,
M <- (1 + M) e, is an e-detector (Shin, Ramdas, Rinaldo, "E-detectors", 2023): stopped at A or more, it runs for A
windows or more on average before a false alarm. So does the mean of many of them, however they depend on each other,
and that is why a hundred features need no correction. docs/decisions/0014-alarms.md says what was tried beside it.
"""

import math
from collections.abc import Sequence
from functools import cache

import msgspec

LEAST = 7
"""Windows that a statistic must have been seen in before it is bet on."""
LONGEST = 60
"""Windows that count fully in what is usual; older ones fade."""
HELD_BACK = 3
"""Windows whose statistics wait before they count as usual, so that a shift is not taken for it at once."""
PRIOR_DF = 8.0
"""What is assumed of a statistic's variance weighs as much as so many windows and one."""
DETECTOR = "Shiryaev-Roberts e-detector"


class Usual(msgspec.Struct, array_like=True):
    """How a statistic varies while nothing happens: mean and variance of its last values, old ones fading.

    Attributes:
        prior_sd: standard deviation that is assumed before there are windows.
        n: effective number of values.
        mean: of them.
        squares: sum of squared deviations from it.
        waiting: the newest values, which do not count yet.
    """

    prior_sd: float
    n: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    waiting: list[float] = []

    def take(self, value: float) -> None:
        """One more value; what is `HELD_BACK` values old counts from now on."""
        self.waiting.append(value)
        while len(self.waiting) > (HELD_BACK if self.n >= LEAST else 0):
            self._count(self.waiting.pop(0))

    def sf(self, value: float) -> float:
        """Probability that the next value is as large or larger: Student's t, of the mean, with a prior variance."""
        df = PRIOR_DF + max(self.n - 1.0, 0.0)
        variance = (PRIOR_DF * self.prior_sd**2 + self.squares) / df
        scale = math.sqrt(variance * (1.0 + 1.0 / max(self.n, 1.0)))
        return student_sf((value - self.mean) / scale, round(df))

    @property
    def armed(self) -> bool:
        """Whether enough has been seen to bet."""
        return self.n >= LEAST

    def _count(self, value: float) -> None:
        if self.n >= LONGEST:
            fade = (LONGEST - 1.0) / LONGEST
            self.n, self.squares = self.n * fade, self.squares * fade
        self.n += 1.0
        off = value - self.mean
        self.mean += off / self.n
        self.squares += off * (value - self.mean)


class Bet(msgspec.Struct, array_like=True):
    """One signal's e-detector.

    Attributes:
        usual: of each of its statistics.
        value: M, what bets that began at each window so far have made together.
        best: what the best of them has made.
        since_ms: where that one began: the likeliest time of a change, as in Page's CUSUM.
    """

    usual: list[Usual]
    value: float = 0.0
    best: float = 0.0
    since_ms: int = 0

    def take(self, statistics: Sequence[float | None], time_ms: int = 0) -> float:
        """One window's statistics, of which large values are suspicious; None where it has none. The new value of M.

        Args:
            statistics: of the window.
            time_ms: where it begins.
        """
        pairs = list(zip(self.usual, statistics, strict=True))
        if self.armed:
            bets = [evidence(usual.sf(x), usual.n) if x is not None and usual.armed else 1.0 for usual, x in pairs]
            pays = sum(bets) / len(bets)
            self.value = (1.0 + self.value) * pays
            if self.best <= 1.0:
                self.best, self.since_ms = 1.0, time_ms
            self.best *= pays
        for usual, x in pairs:
            if x is not None:
                usual.take(x)
        return self.value

    def forget(self) -> None:
        """Bet anew; what is usual stays."""
        self.value = self.best = 0.0

    @property
    def armed(self) -> bool:
        """Whether enough has been seen to bet."""
        return any(usual.armed for usual in self.usual)


def new_bet(*prior_sds: float) -> Bet:
    """A detector that has seen nothing, for statistics whose standard deviations are likely to be about these."""
    return Bet([Usual(sd) for sd in prior_sds])


def alarm_threshold(budget: float, window_days: float) -> float:
    """What the mean of the detectors must reach, for so many false alarms a day at most; 2 at the least.

    A window lasts `window_days` or longer. Data and labels have one half of the budget each.

    >>> alarm_threshold(1 / 30, 1.0)
    60.0
    """
    return max(2.0 / (budget * window_days), 2.0)


def evidence(p: float, n: float) -> float:
    """The e-value of a p-value: the mean of k p**(k - 1) over k from 0 to 1 (Vovk, Wang, "E-values", 2021).

    A p-value is not believed below 1 / (20 (n + 1)**2), n being the number of windows that it rests on: the tail of a
    distribution that was seen a few times is a guess.

    >>> round(evidence(1.0, 10), 3), round(evidence(0.05, 10), 2), round(evidence(1e-9, 10), 1)
    (0.5, 1.78, 39.7)
    """
    p = max(p, 1.0 / (20.0 * (n + 1.0) ** 2))
    if p > 0.999:
        return 0.5
    log = math.log(p)
    return (1.0 - p + p * log) / (p * log * log)


@cache
def _ratios(df: int) -> tuple[float, ...]:
    """Ratios of the coefficients of neighbouring terms in the series that `student_sf` sums."""
    return tuple((2 * k) / (2 * k + 1) if df % 2 else (2 * k - 1) / (2 * k) for k in range(1, df // 2 + 1))


def student_sf(t: float, df: int) -> float:
    """P(T > t) for Student's T with whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).

    >>> round(student_sf(1.812, 10), 4), round(student_sf(-2.0, 3), 4), student_sf(0.0, 7)
    (0.05, 0.9303, 0.5)
    """
    if t < 0.0:
        return 1.0 - student_sf(-t, df)
    angle = math.atan(t / math.sqrt(df))
    cosine, odd = math.cos(angle), df % 2
    square = cosine**2
    term = cosine if odd else 1.0
    total = 0.0
    for ratio in _ratios(df):
        total += term
        term *= square * ratio
    inside = 2.0 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return max((1.0 - inside) / 2.0, 0.0)
