"""Summaries of fixed size that add up: where numbers lie, how often categories come, and how far two of them differ.

A number's bin follows from its bits alone: 64 linear bins in each power of two, alike above and below zero, so a bin is
at most 1/64 (1.6 %) of its number wide; what is nearer to zero than 2**-40 is zero. A sketch that would have more than
`MAX_BINS` bins merges neighbours by twos until it has not, and its level says how often: the idea of UDDSketch (Epicoco
et al. 2020). The level is the least at which the bins fit, whatever the order in which values and sketches came, so
merging is exact: the sketch of two streams is the merged sketch of both, bin by bin.

Of categories, those with the smallest hashes are counted and the rest only summed, which is exact under merging for the
same reason. Up to `MAX_CATEGORIES` different ones, all are counted.
"""

import math
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from learning.reports import Categories, Sketch
from pipelines.streams import text_of

MAX_BINS = 64
MAX_CATEGORIES = 64
MAX_TEXT = 80  # characters of a category that are kept
TAILS = (0.01, *(i / 10 for i in range(1, 10)), 0.99)
"""Shares of the reference at which `psi` parts the line: the usual tenths, and both ends, where faults show first."""

_BITS = 6  # of the mantissa: 64 bins in each power of two
_SHIFT = 52 - _BITS
_ZERO = (1023 - 40) << _BITS  # bins below this one are zero
_MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF
_AS_BITS, _AS_DOUBLE = struct.Struct("<q"), struct.Struct("<d")
_FAR = 1 << 20  # more than there are bins above zero
_LARGEST = 1.7e308


def bin_of(value: float, level: int = 0) -> int:
    """Number of the bin that a finite number lies in; larger numbers never have smaller ones.

    >>> bin_of(0.0), bin_of(1.0), bin_of(1.01), bin_of(-1.0), bin_of(1.0, level=3)
    (0, 2561, 2561, -2561, 321)
    """
    (bits,) = _AS_BITS.unpack(_AS_DOUBLE.pack(value))
    number = max(((bits & _MAGNITUDE) >> _SHIFT) - (_ZERO - 1), 0)
    return ((number - 1) >> level) + 1 if value >= 0.0 and number else -number >> level


def edges(number: int, level: int) -> tuple[float, float]:
    """The bin holds the numbers from the first, included, to the second; below zero it is the other way round.

    >>> edges(2561, 0), edges(-321, 3), edges(0, 5)
    ((1.0, 1.015625), (-1.125, -1.0), (0.0, 0.0))
    """
    if number == 0:
        return 0.0, 0.0
    first = (abs(number) - 1) << level
    low, high = (_lowest(first), _lowest(first + (1 << level)))
    return (low, high) if number > 0 else (-high, -low)


def sketch(values: Iterable[Any]) -> Sketch:
    """The sketch of some numbers; None, NaN and infinities are missing ones."""
    return sketches(numbers_of(list(values)).reshape(-1, 1))[0]


def sketches(matrix: npt.NDArray[np.float64]) -> list[Sketch]:
    """One sketch for each column of a matrix of shape (values, columns)."""
    columns = np.ascontiguousarray(matrix.T, dtype=np.float64)
    count, n = columns.shape
    if not n:
        return [Sketch() for _ in range(count)]
    finite = np.isfinite(columns)
    if finite.all():
        return _full(columns)
    return [
        _with_missing(_full(column[kept].reshape(1, -1))[0] if kept.any() else Sketch(), n - int(kept.sum()))
        for column, kept in zip(columns, finite, strict=True)
    ]


def add(into: Sketch, other: Sketch) -> None:
    """Make the first the sketch of the values of both."""
    if other.n:
        into.low = min(into.low, other.low) if into.n else other.low
        into.high = max(into.high, other.high) if into.n else other.high
        into.total = _clipped(into.total + other.total)
        level = max(into.level, other.level)
        bins = at_level(into, level) if into.level < level else into.bins
        theirs = at_level(other, level) if other.level < level else other.bins
        for number, n in theirs.items():
            bins[number] = bins.get(number, 0) + n
        while len(bins) > MAX_BINS:
            level, bins = level + 1, _raised(bins, 1)
        into.level, into.bins = level, bins
    into.n += other.n
    into.missing += other.missing


def merge(a: Sketch, b: Sketch) -> Sketch:
    """The sketch of the values of both, which stay as they are."""
    both = copy_of(a)
    add(both, b)
    return both


def copy_of(sketch: Sketch) -> Sketch:
    """Another one of the same values."""
    return Sketch(sketch.n, sketch.missing, sketch.total, sketch.low, sketch.high, dict(sketch.bins), sketch.level)


def at_level(sketch: Sketch, level: int) -> dict[int, int]:
    """Its bins as they are at a level that is no lower than its own."""
    up = level - sketch.level
    return _raised(sketch.bins, up) if up else dict(sketch.bins)


def mean(sketch: Sketch) -> float:
    """Mean of the finite values, 0.0 where there is none."""
    return sketch.total / sketch.n if sketch.n else 0.0


def quantile(sketch: Sketch, share: float) -> float:
    """The number below which this share of the values lies, up to a bin's width; NaN where there is no value."""
    if not sketch.n:
        return math.nan
    wanted, below = share * sketch.n, 0
    for number, n in sorted(sketch.bins.items()):
        if below + n >= wanted:
            low, high = edges(number, sketch.level)
            inside = low + (high - low) * max(wanted - below, 0.0) / n
            return min(max(inside, sketch.low), sketch.high)
        below += n
    return sketch.high


def share_outside(now: Sketch, reference: Sketch) -> float:
    """Share of values that lie beyond the bins of the reference's smallest and largest value."""
    if not now.n or not reference.n:
        return 0.0
    if reference.low <= now.low and now.high <= reference.high:
        return 0.0
    low, high = bin_of(reference.low, now.level), bin_of(reference.high, now.level)
    return sum(n for number, n in now.bins.items() if not low <= number <= high) / now.n


def categories(values: Iterable[Any]) -> Categories:
    """How often each text, truth or enumeration member came; None is missing."""
    counts: dict[str, int] = {}
    missing = 0
    for value, n in Counter(values).items():
        if value.__class__ is str and len(value) <= MAX_TEXT and value.isascii():  # its own name, as most are
            counts[value] = counts.get(value, 0) + n
        elif value is None:
            missing += n
        else:
            text = _cut(text_of(value))
            counts[text] = counts.get(text, 0) + n
    return _bounded(Categories(sum(counts.values()), missing, counts))


def add_categories(into: Categories, other: Categories) -> None:
    """Make the first the summary of the values of both."""
    into.n += other.n
    into.missing += other.missing
    into.others += other.others
    for text, n in other.counts.items():
        into.counts[text] = into.counts.get(text, 0) + n
    # A side with others has its full number of counted ones, of which none may come in from beyond the largest hash.
    _bounded(into)


def merge_categories(a: Categories, b: Categories) -> Categories:
    """The summary of the values of both, which stay as they are."""
    both = Categories(a.n, a.missing, dict(a.counts), a.others)
    add_categories(both, b)
    return both


def psi(now: Sketch | Categories, reference: Sketch | Categories) -> float:
    """Population stability index: sum of (p - q) ln(p / q) over groups, in nats; 0.0 where one side is empty.

    Numbers are grouped at the reference's quantiles `TAILS`; each category is a group. Half a value is added to every
    group, so that an empty one costs a finite amount.
    """
    return distances(now, reference)[1]


def ks(now: Sketch | Categories, reference: Sketch | Categories) -> float:
    """Largest difference between the distribution functions at the edges of bins (Kolmogorov and Smirnov).

    For categories, which have no order: half the sum of the differences. 0.0 where one side is empty.
    """
    return distances(now, reference)[0]


def distances(now: Sketch | Categories, reference: Sketch | Categories) -> tuple[float, float]:
    """`ks` and `psi`, at the cost of one."""
    if not now.n or not reference.n:
        return 0.0, 0.0
    p, q = aligned(now, reference)
    differences = p / now.n - q / reference.n
    if isinstance(now, Categories):
        return float(np.abs(differences).sum() / 2.0), _psi(p, q)
    return float(np.abs(np.cumsum(differences)).max()), _psi(*_grouped(p, q))


def _psi(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    ps, qs = (p + 0.5) / (p.sum() + 0.5 * len(p)), (q + 0.5) / (q.sum() + 0.5 * len(q))
    return float(((ps - qs) * np.log(ps / qs)).sum())


Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def aligned(now: Sketch | Categories, reference: Sketch | Categories) -> Pair:
    """Counts of both by the same bins in ascending order, or by the same categories with the others last."""
    if isinstance(now, Sketch) and isinstance(reference, Sketch):
        level = max(now.level, reference.level)
        ours, theirs = at_level(now, level), at_level(reference, level)
        numbers = sorted(ours.keys() | theirs.keys())
        return _counts(ours, numbers), _counts(theirs, numbers)
    if isinstance(now, Categories) and isinstance(reference, Categories):
        both = merge_categories(now, reference)
        texts = sorted(both.counts)
        p, q = _counts(now.counts, texts), _counts(reference.counts, texts)
        # What only one side counts by name must be among the others on both, or the same value would be two.
        rest = [now.n - p.sum(), reference.n - q.sum()]
        return (np.append(p, rest[0]), np.append(q, rest[1])) if any(rest) else (p, q)
    message = f"got a {type(now).__name__} and a {type(reference).__name__}, expected two of a kind"
    raise TypeError(message)


def _grouped(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> Pair:
    """Counts of both by the groups that `psi` is over, from counts by bins in ascending order."""
    below = np.cumsum(q) - q  # a bin belongs to the group in which its middle lies, so a tie is never parted
    group = np.searchsorted(np.array(TAILS), (below + q / 2.0) / q.sum())
    # Bins that the reference has not are no part of what lies beside them: they are two more groups, out of range.
    seen = np.flatnonzero(q)
    group[: seen[0]], group[seen[-1] + 1 :] = len(TAILS) + 1, len(TAILS) + 2
    wanted = np.unique(group)
    number = np.searchsorted(wanted, group)
    return _summed(number, p), _summed(number, q)


def _summed(group: npt.NDArray[np.int64], counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.bincount(group, weights=counts).astype(np.float64)


def _counts(counts: Mapping[Any, int], names: list[Any]) -> npt.NDArray[np.float64]:
    return np.array([counts.get(name, 0) for name in names], dtype=np.float64)


def _bins(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    magnitude = (values.view(np.int64) & _MAGNITUDE) >> _SHIFT
    number = np.maximum(magnitude - (_ZERO - 1), 0).astype(np.int32)
    signed: npt.NDArray[np.int32] = np.where(values < 0.0, -number, number)
    return signed


def _raised(bins: Mapping[int, int], up: int) -> dict[int, int]:
    """The bins of so many levels above: a bin m above zero is ((m - 1) >> up) + 1 there, one below m >> up."""
    raised: dict[int, int] = {}
    for number, n in bins.items():
        higher = ((number - 1) >> up) + 1 if number > 0 else number >> up
        raised[higher] = raised.get(higher, 0) + n
    return raised


def _lowest(first: int) -> float:
    """The smallest number of a bin of level 0 above zero, by its place among them."""
    exponent, mantissa = divmod(first, 1 << _BITS)
    if exponent - 40 > 1023:
        return sys.float_info.max
    return math.ldexp(1.0 + mantissa / (1 << _BITS), exponent - 40)


def _full(columns: npt.NDArray[np.float64]) -> list[Sketch]:
    """Sketches of rows without missing values."""
    lows, highs = columns.min(axis=1).tolist(), columns.max(axis=1).tolist()
    with np.errstate(over="ignore"):
        totals = columns.sum(axis=1).tolist()
    numbers = np.sort(_bins(columns), axis=1)
    first = np.ones(numbers.shape, dtype=bool)  # of a run of equal ones
    np.not_equal(numbers[:, 1:], numbers[:, :-1], out=first[:, 1:])
    levels = np.zeros(len(numbers), dtype=np.int64)
    over = np.flatnonzero(first.sum(axis=1) > MAX_BINS)
    if over.size:
        rows, levels[over] = _fitted(numbers[over])
        numbers[over] = rows
        first[over, 1:] = rows[:, 1:] != rows[:, :-1]
    n = numbers.shape[1]
    starts = np.flatnonzero(first)
    values = numbers.ravel()[starts].tolist()
    counts = np.diff(starts, append=numbers.size).tolist()
    made, start = [], 0
    ends = np.cumsum(first.sum(axis=1)).tolist()
    for end, level, total, low, high in zip(ends, levels.tolist(), totals, lows, highs, strict=True):
        bins = dict(zip(values[start:end], counts[start:end], strict=True))
        made.append(Sketch(n, 0, _clipped(total), low, high, bins, level))
        start = end
    return made


def _fitted(rows: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Sorted rows of bins at the least levels at which they are no more than `MAX_BINS`, and these levels.

    Neighbours are one bin from that level on at which the highest bit in which they differ is shifted out. So as many
    bins as fit are parted by the largest such differences, and the largest of the rest says how far to shift.
    """
    above = rows > 0
    places = np.where(above, rows + (_FAR - 1), rows)  # bins that never merge, as zero and 1, differ in a higher bit
    differences = (places[:, 1:] ^ places[:, :-1]).view(np.uint32)
    rest = np.partition(differences, -MAX_BINS, axis=1)[:, -MAX_BINS]
    levels = np.frexp(rest.astype(np.float64))[1].astype(np.int64)  # how many bits it has
    up = levels.astype(np.int32)[:, None]
    return np.where(above, ((rows - 1) >> up) + 1, rows >> up), levels


def _with_missing(sketch: Sketch, missing: int) -> Sketch:
    sketch.missing = missing
    return sketch


def _clipped(total: float) -> float:
    """A sum that JSON can hold."""
    return min(max(total, -_LARGEST), _LARGEST) if total == total else 0.0  # noqa: PLR0124  # NaN: inf - inf


def numbers_of(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """The values as doubles; None and integers too large for one become NaN."""
    try:
        return np.array(values, dtype=np.float64)  # takes None as NaN
    except OverflowError:
        return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.nan


def _cut(text: str) -> str:
    """A category's name: bounded, and nothing that UTF-8 cannot hold."""
    text = text[:MAX_TEXT]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _bounded(summary: Categories) -> Categories:
    surplus = len(summary.counts) - MAX_CATEGORIES
    if surplus > 0:
        for text in sorted(summary.counts, key=_order)[-surplus:]:
            summary.others += summary.counts.pop(text)
    return summary


def _order(text: str) -> tuple[int, str]:
    return zlib.crc32(text.encode()), text
