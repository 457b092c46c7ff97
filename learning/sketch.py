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
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, compress, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learning.reports import Categories, Sketch
from pipelines.streams import text_of

Distances = tuple[float, float]
Whole = npt.NDArray[np.int64]

MAX_BINS = 64
MAX_CATEGORIES = 64
MAX_TEXT = 80  # characters of a category that are kept
TAILS = (0.01, *(i / 10 for i in range(1, 10)), 0.99)
"""Shares of the reference at which `psi` parts the line: the usual tenths, and both ends, where faults show first."""
_TAILS = np.array(TAILS)

_BITS = 6  # of the mantissa: 64 bins in each power of two
_SHIFT = 52 - _BITS
_ZERO = (1023 - 40) << _BITS  # bins below this one are zero
_MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF
_AS_BITS, _AS_DOUBLE = struct.Struct("<q"), struct.Struct("<d")
_WIDTH = 1 << 19  # more than there are bins below and above zero, and missing values
_MISSING = (1 << 18) - 1  # in place of a bin, behind the last
_FAR = 1 << 20
_NEW = 32  # bits, where a sketch begins
_LARGEST = 1.7e308


def bin_of(value: float, level: int = 0) -> int:
    """Number of the bin that a finite number lies in; larger numbers never have smaller ones.

    >>> bin_of(0.0), bin_of(1.0), bin_of(1.01), bin_of(-1.0), bin_of(1.0, level=3)
    (0, 2561, 2561, -2561, 321)
    """
    bits: int = _AS_BITS.unpack(_AS_DOUBLE.pack(value))[0]
    number = max(((bits & _MAGNITUDE) >> _SHIFT) - (_ZERO - 1), 0)
    return ((number - 1) >> level) + 1 if value >= 0.0 and number else -number >> level


_ONE = bin_of(1.0)


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
    return sketches_of_parts(np.ascontiguousarray(matrix.T, dtype=np.float64), [0])[0]


def sketches_of_parts(columns: npt.NDArray[np.float64], starts: Sequence[int]) -> list[list[Sketch]]:
    """For each part of a matrix of shape (columns, values) one sketch for each column, all in one go.

    Args:
        columns: the matrix, in C order; of fewer than 2**31 values, in fewer than 2**12 parts.
        starts: where each part begins, ascending from 0; none is empty unless the matrix is.
    """
    count, n = columns.shape
    if not n:
        return [[Sketch() for _ in range(count)] for _ in starts]
    missing = np.zeros((count, len(starts)), dtype=np.int64)
    finite = np.isfinite(columns)
    whole = bool(finite.all())
    numbers = _bins(columns if whole else np.where(finite, columns, 0.0))
    if not whole:
        numbers[~finite] = _MISSING
        missing = np.add.reduceat(~finite, starts, axis=1, dtype=np.int64)
    runs = _runs(numbers, np.array(starts))
    ranges = [_range(columns[:, first:last], whole) for first, last in pairwise((*starts, n))]
    sizes = np.diff(starts, append=n)
    lost, kept = missing.tolist(), (sizes - missing).tolist()
    made: list[list[Sketch]] = [[] for _ in starts]
    first = 0
    for place, (level, last) in enumerate(zip(runs.levels, runs.ends, strict=True)):
        column, part = divmod(place, len(starts))
        low, high, total = (side[column] for side in ranges[part])
        bins = dict(zip(runs.bins[first:last], runs.counts[first:last], strict=True))
        made[part].append(Sketch(kept[column][part], lost[column][part], total, low, high, bins, level))
        first = last
    return made


def indicator(n: int, ones: int) -> Sketch:
    """The sketch of n numbers of which so many are 1.0, and the others 0.0."""
    bins = {number: count for number, count in ((0, n - ones), (_ONE, ones)) if count}
    return Sketch(n, 0, float(ones), float(0 < n == ones), float(ones > 0), bins)


def add(into: Sketch, other: Sketch) -> None:
    """Make the first the sketch of the values of both."""
    if other.n:
        level = max(into.level, other.level)
        bins = at_level(into, level) if into.level < level else into.bins
        theirs = at_level(other, level) if other.level < level else other.bins
        for number, n in theirs.items():
            bins[number] = bins.get(number, 0) + n
        while len(bins) > MAX_BINS:
            level, bins = level + 1, _raised(bins, 1)
        into.level, into.bins = level, bins
    _add_range(into, other)


def merge(a: Sketch, b: Sketch) -> Sketch:
    """The sketch of the values of both, which stay as they are."""
    both = copy_of(a)
    add(both, b)
    return both


def merge_all(groups: Sequence[Sequence[Sketch]]) -> list[Sketch]:
    """For each group the sketch of the values of all in it: what `merge` makes of them one by one, all at once."""
    sketches = [sketch for group in groups for sketch in group]
    rows = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    levels = np.array([max((sketch.level for sketch in group), default=0) for group in groups], dtype=np.int64)
    of, bins, counts = _laid_out(sketches, rows, levels)
    places, place = np.unique(of * _WIDTH + bins, return_inverse=True)
    of = (places + _WIDTH // 2) // _WIDTH
    totals = np.bincount(place, weights=counts, minlength=len(places)).astype(np.int64)
    runs = _fitted(of, places - of * _WIDTH, totals, len(groups))
    merged, first = [], 0
    for group, level, up, last in zip(groups, levels.tolist(), runs.levels, runs.ends, strict=True):
        both = Sketch(bins=dict(zip(runs.bins[first:last], runs.counts[first:last], strict=True)), level=level + up)
        for each in group:
            _add_range(both, each)
        merged.append(both)
        first = last
    return merged


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
    return categories_of(Counter(values))


def categories_of(found: Mapping[Any, int]) -> Categories:
    """The same of values that are counted already."""
    if _are_names(found):
        return _bounded(Categories(sum(found.values()), 0, dict(found)))
    counts: dict[str, int] = {}
    for value, n in found.items():
        if value is not None:
            text = _cut(text_of(value))
            counts[text] = counts.get(text, 0) + n
    return _bounded(Categories(sum(counts.values()), found.get(None, 0), counts))


def add_categories(into: Categories, other: Categories) -> None:
    """Make the first the summary of the values of both."""
    _count_into(into, other)
    _bounded(into)


def merge_all_categories(group: Sequence[Categories]) -> Categories:
    """The summary of the values of all."""
    both = Categories(counts={})
    for each in group:
        _count_into(both, each)
    # A side with others has its full number of counted ones, of which none may come in from beyond the largest hash.
    return _bounded(both)


def merge_categories(a: Categories, b: Categories) -> Categories:
    """The summary of the values of both, which stay as they are."""
    return merge_all_categories((a, b))


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


def distances(now: Sketch | Categories, reference: Sketch | Categories) -> Distances:
    """`ks` and `psi`, at the cost of one."""
    if not now.n or not reference.n:
        return 0.0, 0.0
    p, q = aligned(now, reference)
    differences = p / now.n - q / reference.n
    if isinstance(now, Categories):
        return float(np.abs(differences).sum() / 2.0), _psi(p, q)
    return float(np.abs(np.cumsum(differences)).max()), _psi(*_grouped(p, q))


def all_distances(pairs: Sequence[tuple[Sketch | Categories, Sketch | Categories]]) -> list[Distances]:
    """`distances` of each pair, to the last bit; those of sketches all at once, as a survey of many signals needs them.

    Args:
        pairs: what is now, and its reference.
    """
    found = [(0.0, 0.0)] * len(pairs)
    sketched: list[tuple[int, Sketch, Sketch]] = []
    for place, (now, reference) in enumerate(pairs):
        if isinstance(now, Sketch) and isinstance(reference, Sketch):
            if now.n and reference.n and now.bins and reference.bins:
                sketched.append((place, now, reference))
        else:
            found[place] = distances(now, reference)
    if sketched:
        for (place, _, _), each in zip(sketched, _sketch_distances(sketched), strict=True):
            found[place] = each
    return found


def _sketch_distances(pairs: Sequence[tuple[int, Sketch, Sketch]]) -> list[Distances]:
    """Of sketches that are not empty. All their bins lie behind one another, each pair's together and ascending."""
    rows = len(pairs)
    nows, references = [now for _, now, _ in pairs], [reference for _, _, reference in pairs]
    levels = np.array([max(now.level, reference.level) for _, now, reference in pairs], dtype=np.int64)
    of, bins, counts = _laid_out(nows, np.arange(rows), levels)
    of_reference, reference_bins, reference_counts = _laid_out(references, np.arange(rows), levels)
    places = np.concatenate((of * _WIDTH + bins, of_reference * _WIDTH + reference_bins))
    found, place = np.unique(places, return_inverse=True)
    p = np.bincount(place[: len(of)], weights=counts, minlength=len(found))
    q = np.bincount(place[len(of) :], weights=reference_counts, minlength=len(found))
    row = (found + _WIDTH // 2) // _WIDTH
    starts = np.searchsorted(row, np.arange(rows))
    ns = np.array([now.n for now in nows], dtype=np.float64)
    reference_ns = np.array([reference.n for reference in references], dtype=np.float64)
    lengths = np.diff(starts, append=len(row))
    steps = np.zeros((rows, lengths.max()))
    steps[row, np.arange(len(row)) - np.repeat(starts, lengths)] = p / ns[row] - q / reference_ns[row]
    furthest = np.abs(np.cumsum(steps, axis=1)).max(axis=1)

    # The groups of `_grouped`: what lies below a bin is counted within its pair.
    to = np.cumsum(q)
    to -= (to[starts] - q[starts])[row]
    totals = np.add.reduceat(q, starts)
    below = to - q
    group = np.searchsorted(_TAILS, (below + q / 2.0) / totals[row])
    group[to == 0.0] = len(TAILS) + 1
    group[below == totals[row]] = len(TAILS) + 2
    width = len(TAILS) + 3
    group += row * width
    there = np.bincount(group, minlength=rows * width) > 0
    sizes = there.reshape(rows, width).sum(axis=1)
    of_group = np.repeat(np.arange(rows), sizes)
    ps, qs = (
        (np.bincount(group, weights=side, minlength=rows * width)[there] + 0.5) / (total + 0.5 * sizes)[of_group]
        for side, total in ((p, np.add.reduceat(p, starts)), (q, totals))
    )
    terms = (ps - qs) * np.log(ps / qs)
    ends = np.cumsum(sizes).tolist()
    indices = [float(terms[first:last].sum()) for first, last in pairwise((0, *ends))]
    return list(zip(furthest.tolist(), indices, strict=True))


def _laid_out(sketches: Sequence[Sketch], rows: Whole, levels: Whole) -> tuple[Whole, Whole, Whole]:
    """All bins of some sketches behind one another: the row of each, its number and how many values lie in it.

    Args:
        sketches: whose.
        rows: the row that each is of.
        levels: by row, the level of the bins; no sketch has a higher one.
    """
    sizes = [len(sketch.bins) for sketch in sketches]
    up = levels[rows] - np.array([sketch.level for sketch in sketches], dtype=np.int64)
    n = sum(sizes)
    bins = np.fromiter(chain.from_iterable([sketch.bins for sketch in sketches]), np.int64, n)
    counts = np.fromiter(chain.from_iterable([sketch.bins.values() for sketch in sketches]), np.int64, n)
    return np.repeat(rows, sizes), _raised_all(bins, np.repeat(up, sizes)), counts


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
    group = np.searchsorted(_TAILS, (below + q / 2.0) / q.sum())
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
    magnitude = values.view(np.int64) & _MAGNITUDE
    magnitude >>= _SHIFT
    magnitude -= _ZERO - 1
    np.maximum(magnitude, 0, out=magnitude)
    number: npt.NDArray[np.int32] = magnitude.astype(np.int32)
    np.negative(number, out=number, where=values < 0.0)
    return number


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


def _add_range(into: Sketch, other: Sketch) -> None:
    """All but the bins."""
    if other.n:
        into.low = min(into.low, other.low) if into.n else other.low
        into.high = max(into.high, other.high) if into.n else other.high
        into.total = _clipped(into.total + other.total)
    into.n += other.n
    into.missing += other.missing


class _Runs(NamedTuple):
    """Bins and counts of many sketches, behind one another.

    Attributes:
        bins: their numbers, ascending in each sketch.
        counts: how many values lie in each.
        levels: of each sketch.
        ends: where the bins of each end.
    """

    bins: list[int]
    counts: list[int]
    levels: list[int]
    ends: list[int]


def _runs(numbers: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> _Runs:
    """Sketches of bins of level 0, of shape (columns, values): columns first, and parts within."""
    count, n = numbers.shape
    parts = len(starts)
    numbers += np.repeat(np.arange(parts, dtype=np.int32) * _WIDTH, np.diff(starts, append=n))
    numbers.sort(axis=1)  # parts stay apart
    flat = numbers.ravel()
    first = np.ones(flat.size, dtype=bool)  # of equal ones
    np.not_equal(flat[1:], flat[:-1], out=first[1:])
    first[::n] = True
    places = np.flatnonzero(first)
    counts = np.diff(places, append=flat.size)
    part = (flat[places] + _WIDTH // 2) // _WIDTH
    bins = (flat[places] - part * _WIDTH).astype(np.int64)
    row = places // n * parts + part
    if (lost := bins == _MISSING).any():
        bins, counts, row = bins[~lost], counts[~lost], row[~lost]
    return _fitted(row, bins, counts, count * parts)


def _fitted(row: Whole, bins: Whole, counts: Whole, rows: int) -> _Runs:
    """The bins of each row, ascending, merged by twos until no more than `MAX_BINS` are left in it.

    Two neighbours are one bin from that level on at which the highest bit in which they differ is shifted out. So it is
    enough to know, for each pair of them, which one that is.
    """
    above = bins > 0
    lifted = np.where(above, bins + (_FAR - 1), bins)  # zero and 1, which never merge, differ in a bit of their own
    bits = np.full(bins.size, _NEW)
    bits[1:] = np.frexp((lifted[1:] ^ lifted[:-1]).astype(np.int32).view(np.uint32).astype(np.float64))[1]
    bits[1:][row[1:] != row[:-1]] = _NEW
    by_bits = np.bincount(row * (_NEW + 1) + bits, minlength=rows * (_NEW + 1)).reshape(rows, _NEW + 1)
    left = by_bits[:, :0:-1].cumsum(axis=1)[:, ::-1]  # how many bins there are at each level
    levels = (left > MAX_BINS).sum(axis=1)
    kept = np.flatnonzero(bits > levels[row])
    return _Runs(
        _raised_all(bins, levels[row])[kept].tolist(),
        np.add.reduceat(counts, kept).tolist() if kept.size else [],
        levels.tolist(),
        np.cumsum(left[np.arange(rows), levels]).tolist(),
    )


def _raised_all(bins: Whole, up: Whole) -> Whole:
    """As `_raised`, bin by bin."""
    above = bins > 0
    raised: Whole = ((bins - above) >> up) + above
    return raised


def _range(columns: npt.NDArray[np.float64], whole: bool) -> tuple[list[float], list[float], list[float]]:
    """Smallest and largest value and sum of each row, of the finite values; 0.0 where there is none."""
    if not whole:
        rows = (column[np.isfinite(column)] for column in columns)
        found = [_range(row.reshape(1, -1), whole=True) if row.size else ([0.0], [0.0], [0.0]) for row in rows]
        lows, highs, totals = ([side[0] for side in sides] for sides in zip(*found, strict=True))
        return lows, highs, totals
    with np.errstate(over="ignore"):
        totals = columns.sum(axis=1).tolist()
    return columns.min(axis=1).tolist(), columns.max(axis=1).tolist(), list(map(_clipped, totals))


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


def _are_names(values: Collection[Any]) -> bool:
    """Whether each is its own name already, as most texts are; asked of all at once, since of a key there are many."""
    return set(map(type, values)) == {str} and "".join(values).isascii() and max(map(len, values)) <= MAX_TEXT


def _cut(text: str) -> str:
    """A category's name: bounded, and nothing that UTF-8 cannot hold."""
    text = text[:MAX_TEXT]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _count_into(into: Categories, other: Categories) -> None:
    into.n += other.n
    into.missing += other.missing
    into.others += other.others
    counts = into.counts
    for text, n in other.counts.items():
        counts[text] = counts.get(text, 0) + n


def _bounded(summary: Categories) -> Categories:
    counts = summary.counts
    if len(counts) > MAX_CATEGORIES:
        hashes = np.fromiter(map(zlib.crc32, map(str.encode, counts)), np.uint32, len(counts))
        last = np.partition(hashes, MAX_CATEGORIES - 1)[MAX_CATEGORIES - 1]
        kept = dict(compress(counts.items(), (hashes <= last).tolist()))
        if len(kept) > MAX_CATEGORIES:  # several have the last hash
            for text in sorted(kept, key=_order)[MAX_CATEGORIES:]:
                del kept[text]
        summary.others += sum(counts.values()) - sum(kept.values())
        summary.counts = kept
    return summary


def _order(text: str) -> tuple[int, str]:
    return zlib.crc32(text.encode()), text
