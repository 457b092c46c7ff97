"""Laws of sketches: they add up as what they are of does, are bounded, and measure what slow oracles measure."""

import math
import zlib
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning import sketch as sketch_room
from learning.reports import Categories, Sketch
from learning.sketch import (
    MAX_BINS,
    MAX_CATEGORIES,
    TAILS,
    add,
    all_distances,
    at_level,
    bin_of,
    categories,
    copy_of,
    distances,
    edges,
    ks,
    merge,
    merge_all,
    merge_all_categories,
    merge_categories,
    psi,
    quantile,
    share_outside,
    sketch,
    sketches,
    sketches_of_parts,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.lists(st.one_of(FINITE, st.none(), st.just(math.nan), st.just(math.inf), st.integers(-5, 5)), max_size=150)
FEW = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=60)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(0, 300).map(str)), max_size=150)


def parts(sketch_: Sketch) -> tuple[Any, ...]:
    """All of it but the sum, which rounding makes differ."""
    return (sketch_.n, sketch_.missing, sketch_.low, sketch_.high, sketch_.bins, sketch_.level)


def parts_of(summary: Categories) -> tuple[Any, ...]:
    return (summary.n, summary.missing, summary.counts, summary.others)


@given(VALUES, VALUES, VALUES)
@settings(deadline=None, max_examples=50)
def test_merging_is_associative_commutative_and_the_same_as_sketching_all(a: Any, b: Any, c: Any) -> None:
    x, y, z = map(sketch, (a, b, c))
    whole = sketch(a + b + c)
    assert parts(merge(x, merge(y, z))) == parts(merge(merge(x, y), z)) == parts(merge(merge(z, y), x)) == parts(whole)
    assert math.isclose(merge(x, merge(y, z)).total, whole.total, rel_tol=1e-9, abs_tol=1e300) or whole.n < 2
    assert len(whole.bins) <= MAX_BINS
    assert sum(whole.bins.values()) == whole.n
    assert whole.n + whole.missing == len(a + b + c)


def slow_bins(values: list[Any]) -> tuple[dict[int, int], int]:
    """Bins and level, value by value, merged by twos until they are few enough."""
    bins = Counter(bin_of(value) for value in values if value is not None and math.isfinite(value))
    level = 0
    while len(bins) > MAX_BINS:
        level += 1
        fewer: Counter[int] = Counter()
        for number, n in bins.items():
            fewer[(abs(number) + 1) // 2 * (1 if number > 0 else -1)] += n
        bins = fewer
    return dict(bins), level


@given(VALUES)
@settings(deadline=None, max_examples=100)
def test_bins_are_those_of_counting_one_by_one(values: Any) -> None:
    made = sketch(values)
    assert (made.bins, made.level) == slow_bins(values)


@given(FINITE, st.integers(0, 20))
@settings(deadline=None, max_examples=100)
def test_the_bin_of_one_number_is_that_of_its_column(value: float, level: int) -> None:
    assert at_level(sketch([value]), level) == {bin_of(value, level): 1}


@given(st.lists(st.lists(VALUES, max_size=4), max_size=4))
@settings(deadline=None, max_examples=100)
def test_many_merged_at_once_are_those_merged_one_by_one(groups: Any) -> None:
    """To the last bit, the sums too, and bins in an order that does not depend on how they came together."""
    made = [list(map(sketch, group)) for group in groups]
    before = [[copy_of(each) for each in group] for group in made]
    one_by_one = []
    for group in made:
        both = Sketch(bins={})
        for each in group:
            add(both, each)
        one_by_one.append(both)
    merged = merge_all(made)
    assert merged == one_by_one
    assert all([*each.bins] == sorted(each.bins) for each in merged)
    assert made == before


@given(st.lists(TEXTS, max_size=4))
@settings(deadline=None, max_examples=50)
def test_many_categories_merged_at_once_are_those_merged_one_by_one(group: Any) -> None:
    both = Categories(counts={})
    for each in group:
        both = merge_categories(both, categories(each))
    assert merge_all_categories(list(map(categories, group))) == both


@given(st.lists(st.tuples(VALUES, VALUES), max_size=4), FEW, FEW, TEXTS, TEXTS)
@settings(deadline=None, max_examples=100)
def test_distances_of_many_are_those_of_each_to_the_last_bit(
    pairs: Any, few: Any, fewer: Any, texts: Any, other_texts: Any
) -> None:
    held: list[Any] = [(sketch(now), sketch(reference)) for now, reference in [*pairs, (few, fewer), (fewer, few)]]
    held.insert(1, (categories(texts), categories(other_texts)))
    assert all_distances(held) == [distances(now, reference) for now, reference in held]


def test_distances_of_many_are_those_of_each_where_levels_differ() -> None:
    random = np.random.default_rng(2)
    columns = [sketch(random.normal(m, s, n)) for m, s, n in ((0, 1, 9), (5, 1e3, 900), (1, 1e-9, 50), (-3, 1, 4_000))]
    assert len({each.level for each in columns}) > 2
    pairs = [(a, b) for a in columns for b in columns]
    assert all_distances(pairs) == [distances(a, b) for a, b in pairs]


def test_merging_is_exact_where_bins_collapse() -> None:
    values = np.random.default_rng(3).normal(size=4_000)
    pieces = [sketch(values[i : i + n]) for i, n in ((0, 10), (10, 990), (1_000, 2_999), (3_999, 1))]
    merged = Sketch()
    for piece in pieces:
        add(merged, piece)
    assert parts(merged) == parts(sketch(values))
    assert merged.level > pieces[0].level
    assert merged.total == pytest.approx(values.sum())


@given(TEXTS, TEXTS, TEXTS)
@settings(deadline=None, max_examples=50)
def test_categories_add_up_too(a: Any, b: Any, c: Any) -> None:
    x, y, z = map(categories, (a, b, c))
    whole = parts_of(categories(a + b + c))
    assert parts_of(merge_categories(x, merge_categories(y, z))) == whole
    assert parts_of(merge_categories(merge_categories(z, x), y)) == whole
    assert len(whole[2]) <= MAX_CATEGORIES
    assert whole[0] == sum(whole[2].values()) + whole[3]


@given(FINITE, FINITE, st.integers(0, 12))
@settings(deadline=None, max_examples=50)
def test_larger_numbers_never_have_smaller_bins_and_bins_hold_what_is_in_them(a: float, b: float, level: int) -> None:
    low, high = sorted((a, b))
    assert bin_of(low, level) <= bin_of(high, level)
    number = bin_of(a, level)
    first, last = sorted(edges(number, level))
    assert first <= a <= last or (number == 0 and abs(a) < 2.0**-40)
    assert list(at_level(sketch([a]), level)) == [number]


@given(st.floats(1e-9, 1e300))
@settings(deadline=None, max_examples=50)
def test_a_bin_is_at_most_a_sixty_fourth_wide(value: float) -> None:
    low, high = edges(bin_of(value), 0)
    assert (high - low) / value <= 1 / 64


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=50)
def test_a_quantile_lies_in_the_bin_of_the_exact_one(values: list[float], share: float) -> None:
    made = sketch(values)
    ranked = sorted(values)
    exact = ranked[max(math.ceil(share * len(ranked)) - 1, 0)]
    low, high = edges(bin_of(exact, made.level), made.level)
    found = quantile(made, share)
    assert min(low, high) <= found <= max(low, high) or abs(exact) < 2.0**-40
    assert made.low <= found <= made.high


def slow_ks(now: list[float], reference: list[float]) -> float:
    return max(
        abs(sum(v <= x for v in now) / len(now) - sum(v <= x for v in reference) / len(reference))
        for x in now + reference
    )


def slow_psi(now: list[float], reference: list[float]) -> float:
    """By the book: each value to its group, one by one."""
    low, high = min(reference), max(reference)

    def group(value: float) -> int:
        if not low <= value <= high:
            return 100 if value < low else 101
        if value not in reference:  # a bin that the reference has not lies where the next lower one of it ends
            below = sum(v < value for v in reference) / len(reference)
            return sum(below > tail for tail in TAILS)
        middle = sum(v < value for v in reference) + reference.count(value) / 2
        return sum(middle / len(reference) > tail for tail in TAILS)

    p, q = Counter(map(group, now)), Counter(map(group, reference))
    groups = p.keys() | q.keys()
    total = 0.0
    for each in groups:
        ps = (p[each] + 0.5) / (len(now) + 0.5 * len(groups))
        qs = (q[each] + 0.5) / (len(reference) + 0.5 * len(groups))
        total += (ps - qs) * math.log(ps / qs)
    return total


@given(FEW, FEW)
@settings(deadline=None, max_examples=50)
def test_psi_and_ks_are_those_of_slow_oracles(now: list[float], reference: list[float]) -> None:
    assert ks(sketch(now), sketch(reference)) == pytest.approx(slow_ks(now, reference))
    assert psi(sketch(now), sketch(reference)) == pytest.approx(slow_psi(now, reference))


@given(FEW, FEW)
@settings(deadline=None, max_examples=50)
def test_psi_and_ks_of_categories_are_those_of_counting(now: list[float], reference: list[float]) -> None:
    a, b = Counter(map(str, now)), Counter(map(str, reference))
    names = a.keys() | b.keys()
    half = sum(abs(a[x] / len(now) - b[x] / len(reference)) for x in names) / 2
    ps = {x: (a[x] + 0.5) / (len(now) + 0.5 * len(names)) for x in names}
    qs = {x: (b[x] + 0.5) / (len(reference) + 0.5 * len(names)) for x in names}
    x, y = categories(map(str, now)), categories(map(str, reference))
    assert ks(x, y) == pytest.approx(half)
    assert psi(x, y) == pytest.approx(sum((ps[n] - qs[n]) * math.log(ps[n] / qs[n]) for n in names))


def test_a_category_that_only_one_side_can_count_is_no_difference() -> None:
    """Two samples of the same thousand names: what one counts, the other may have among its others."""
    random = np.random.default_rng(1)
    a, b = (categories(map(str, random.integers(0, 1_000, 20_000))) for _ in range(2))
    assert ks(a, b) < 0.05


def test_nothing_is_no_distance_and_different_kinds_are_refused() -> None:
    assert ks(Sketch(), sketch([1.0])) == psi(sketch([1.0]), Sketch()) == 0.0
    assert math.isnan(quantile(Sketch(), 0.5))
    with pytest.raises(TypeError, match="two of a kind"):
        ks(sketch([1.0]), categories(["a"]))


def test_share_outside_is_of_what_lies_beyond_the_reference() -> None:
    assert share_outside(sketch([0.0, 5.0, 50.0, -50.0]), sketch([0.0, 10.0])) == 0.5
    assert share_outside(sketch([10.0, 10.01]), sketch([0.0, 10.0])) == 0.0  # the same bin


def test_numbers_that_no_double_or_no_json_holds_do_no_harm() -> None:
    made = sketch([10**400, 1.7e308, 1.7e308, None])
    assert (made.n, made.missing) == (2, 2)
    assert math.isfinite(made.total)
    assert math.isfinite(merge(made, made).total)


def test_texts_are_cut_and_can_be_written() -> None:
    made = categories(["x" * 1_000, "a\ud800", True])
    assert sorted(map(len, made.counts)) == [2, 4, 80]
    assert all(text.encode() for text in made.counts)


def test_columns_are_sketched_as_each_by_itself() -> None:
    matrix = np.random.default_rng(0).normal(size=(500, 4)) * [1.0, 1e6, 1e-6, 0.0]
    matrix[::7, 1] = np.nan
    assert [parts(s) for s in sketches(matrix)] == [parts(sketch(column)) for column in matrix.T]
    assert sketches(np.empty((0, 3))) == [Sketch(), Sketch(), Sketch()]


def test_parts_are_sketched_as_each_by_itself() -> None:
    random = np.random.default_rng(0)
    columns = random.normal(size=(5, 700)) * np.array([[1.0], [1e6], [1e-6], [0.0], [-1e300]])
    columns[1, ::7] = np.nan
    columns[2, 300:310] = math.inf
    columns[3, 310:] = np.nan  # all of a part
    starts = [0, 1, 300, 310]
    made = sketches_of_parts(columns, starts)
    ends = [*starts[1:], 700]
    assert made == [[sketch(row[a:b]) for row in columns] for a, b in zip(starts, ends, strict=True)]
    assert (made[3][3].n, made[3][3].missing, made[3][3].bins) == (0, 390, {})


@pytest.mark.parametrize("bad", [b'{"200000":1}', b'{"-200000":1}'])
def test_bins_that_no_double_has_are_no_sketch(bad: bytes) -> None:
    """All bins of a window lie behind one another, so such a number would be taken for another signal's."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b"[1,0,1.0,1.0,1.0,%s,0]" % bad, type=Sketch)
    largest = sketch([1.7976931348623157e308, -1.7976931348623157e308])
    assert msgspec.json.decode(msgspec.json.encode(largest), type=Sketch) == largest


def test_a_copy_shares_nothing() -> None:
    made = sketch([1.0])
    add(copy_of(made), sketch([2.0]))
    assert made == sketch([1.0])


@given(st.lists(st.integers(0, 400).map(str) | st.sampled_from(["plumless", "buckeroo"]), max_size=300))
@settings(deadline=None, max_examples=50)
def test_categories_with_the_smallest_hashes_are_counted(texts: list[str]) -> None:
    """One by one; of two with the same hash, as these words have it, the one that comes first in the alphabet."""
    for most in (1, MAX_CATEGORIES):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sketch_room, "MAX_CATEGORIES", most)
            made = categories(texts)
        wanted = sorted(set(texts), key=lambda text: (zlib.crc32(text.encode()), text))[:most]
        assert made.counts == {text: texts.count(text) for text in wanted}
        assert made.others == len(texts) - sum(made.counts.values())


def test_of_two_categories_with_one_hash_one_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch_room, "MAX_CATEGORIES", 1)
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    assert parts_of(categories(["plumless", "buckeroo", "plumless"])) == (3, 0, {"buckeroo": 1}, 2)
