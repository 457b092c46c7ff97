"""When to raise an alarm: many signals, one budget of false alarms, no labels needed.

Each window of events gives each signal some statistics; each is told against how the same statistic has varied so far,
as an e-value: a bet that pays nothing on average while all is as before. Shiryaev and Roberts' sum of these bets,
M <- (1 + M) e, is an e-detector (Shin, Ramdas, Rinaldo, "E-detectors", 2023): stopped at A or more, it runs for A windows
or more on average before a false alarm. So does the mean of many of them, however they depend on each other, and that is
why a hundred features need no correction. docs/decisions/0014-alarms.md says what was tried beside it.
"""

import math
from collections.abc import Sequence

import msgspec

LEAST = 7
"""Windows that a statistic must have been seen in before it is bet on."""
LONGEST = 60
"""Windows that count fully in what is usual; older ones fade."""
HELD_BACK = 3
"""Windows whose statistics wait before they count as usual, so that a shift is not taken for it at once."""
PRIOR_DF = 8.0
PRIOR_SD = 0.35
"""Before there are windows: the logarithm of a distance between samples of one distribution varies about so much."""


class Usual(msgspec.Struct, array_like=True):
    """How a statistic varies while nothing happens: mean and variance of its last values, old ones fading.

    Attributes:
        n: effective number of values.
        mean: of them.
        squares: sum of squared deviations from it.
        waiting: the newest values, which do not count yet.
    """

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
        variance = (PRIOR_DF * PRIOR_SD**2 + self.squares) / df
        scale = math.sqrt(variance * (1.0 + 1.0 / max(self.n, 1.0)))
        return student_sf((value - self.mean) / scale, round(df))

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
        value: M, how much the bets since the best place to begin have made.
        e: the last e-value.
    """

    usual: list[Usual]
    value: float = 0.0
    e: float = 1.0

    def take(self, statistics: Sequence[float]) -> float:
        """One window's statistics, of which large values are suspicious. The new value of M."""
        if self.armed:
            bets = [evidence(usual.sf(x), usual.n) for usual, x in zip(self.usual, statistics, strict=True)]
            self.e = sum(bets) / len(bets)
            self.value = (1.0 + self.value) * self.e
        for usual, x in zip(self.usual, statistics, strict=True):
            usual.take(x)
        return self.value

    @property
    def armed(self) -> bool:
        """Whether enough has been seen to bet."""
        return all(usual.n >= LEAST for usual in self.usual)


def new_bet(statistics: int) -> Bet:
    """A detector for so many statistics a window that has seen nothing."""
    return Bet([Usual() for _ in range(statistics)])


def evidence(p: float, n: float) -> float:
    """The e-value of a p-value: the mean of k p**(k - 1) over k from 0 to 1 (Vovk, Wang, "E-values", 2021).

    A p-value is not believed below 1 / (20 (n + 1)**2), n being the number of windows that it rests on: the tail of a
    distribution that was seen a few times is a guess.

    >>> round(evidence(1.0, 10), 3), round(evidence(0.05, 10), 2), round(evidence(1e-9, 10), 1)
    (0.5, 1.78, 39.1)
    """
    p = max(p, 1.0 / (20.0 * (n + 1.0) ** 2))
    if p > 0.999:
        return 0.5
    log = math.log(p)
    return (1.0 - p + p * log) / (p * log * log)


def student_sf(t: float, df: int) -> float:
    """P(T > t) for Student's T with whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).

    >>> round(student_sf(1.812, 10), 4), round(student_sf(-2.0, 3), 4), student_sf(0.0, 7)
    (0.05, 0.9303, 0.5)
    """
    if t < 0.0:
        return 1.0 - student_sf(-t, df)
    angle = math.atan(t / math.sqrt(df))
    square = math.cos(angle) ** 2
    odd = df % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1, df // 2 + 1) if not odd else range(1, (df - 1) // 2 + 1):
        total += term
        term *= square * ((2 * k) / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    inside = 2.0 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return max((1.0 - inside) / 2.0, 0.0)
