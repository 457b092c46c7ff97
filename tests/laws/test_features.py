"""The feature room against an independent slow version that keeps every event, and the laws of its binary form."""

import math
import struct
import zlib
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import (
    FeatureSet,
    Profile,
    count,
    distinct,
    ewm,
    field,
    last,
    maximum,
    mean,
    minimum,
    one_hot,
    ratio,
    since_last,
    std,
    total,
)
from features.proof import every_feature

START = 1_700_000_000_000
WINDOWS = {"12s": 1_000, "2m": 10_000, "1h": 300_000}  # and the length of their tiles in ms
HALF_LIFE = 60_000


class Sale(msgspec.Struct, frozen=True, kw_only=True):
    """An event."""

    shop: str
    customer: str
    amount: float
    at: int


TYPES = {"shop": str, "customer": str, "amount": float, "at": int}


def feature_set(by: tuple[str, ...] = ()) -> FeatureSet:
    windows = tuple(WINDOWS)
    options: dict[str, Any] = {"by": by, "local": bool(by)}
    features = [field("amount"), last("amount", **options), since_last(**options)]
    features += [ewm("amount", "1m", **options), ewm("amount", "1m", including=True, **options)]
    for including in (False, True):
        options["including"] = including
        features += [count(*windows, **options)]
        features += [make("amount", *windows, **options) for make in (total, mean, std, minimum, maximum)]
        features += [distinct("customer", *windows, **options)]
    return FeatureSet(features, TYPES, "shop", "at")


class Oracle:
    """Keeps every event for ever and looks at all of them each time."""

    def __init__(self) -> None:
        self.events: dict[str, list[Sale]] = defaultdict(list)
        self.accepted: dict[tuple[str, str], list[Sale]] = defaultdict(list)

    def vector(self, sale: Sale, entity: str) -> tuple[list[float], bool]:
        before = self.events[entity]
        newest = max((e.at for e in before), default=0)
        latest = [e for e in before if e.at == newest]
        row = [sale.amount, latest[-1].amount if latest else 0.0, max(0, sale.at - newest) / 1000 if before else 0.0]
        row += [self._decayed(before), self._decayed([*before, sale])]
        excluding = self._windows(sale, entity)
        before.append(sale)
        late = False
        for name, tile in WINDOWS.items():
            head = max(e.at for e in before) // tile
            if sale.at // tile >= head - 12:
                self.accepted[entity, name].append(sale)
            else:
                late = True
        return [*row, *excluding, *self._windows(sale, entity)], late

    @staticmethod
    def _decayed(events: list[Sale]) -> float:
        if not events:
            return 0.0
        newest = max(e.at for e in events)
        weights = [0.5 ** ((newest - e.at) / HALF_LIFE) for e in events]
        return math.fsum(w * e.amount for w, e in zip(weights, events, strict=True)) / math.fsum(weights)

    def _windows(self, sale: Sale, entity: str) -> list[float]:
        columns: list[list[float]] = [[] for _ in range(7)]
        for name, tile in WINDOWS.items():
            times = [e.at for e in self.events[entity]] + [sale.at]
            oldest = max(max(times) // tile, sale.at // tile) - 12
            held = [e for e in self.accepted[entity, name] if e.at // tile >= max(oldest, sale.at // tile - 12)]
            inside = [e for e in held if e.at // tile <= sale.at // tile]
            amounts = [e.amount for e in inside]
            n = len(amounts)
            average = math.fsum(amounts) / n if n else 0.0
            bits = {zlib.crc32(e.customer.encode()) % 64 for e in inside}
            columns[0].append(float(n))
            columns[1].append(math.fsum(amounts))
            columns[2].append(average)
            columns[3].append(math.sqrt(math.fsum((a - average) ** 2 for a in amounts) / n) if n else 0.0)
            columns[4].append(min(amounts, default=0.0))
            columns[5].append(max(amounts, default=0.0))
            columns[6].append(64 * math.log(64 / (64 - min(len(bits), 63))))
        return [value for column in columns for value in column]


sales = st.lists(
    st.builds(
        lambda gap, shop, customer, amount: (gap, shop, f"c{customer}", amount),
        st.one_of(st.integers(-200_000, 400_000), st.integers(-14_000, 1_500), st.integers(-5_000_000, 10_000_000)),
        st.sampled_from(["a", "b"]),
        st.integers(0, 80),
        st.one_of(st.floats(-1e3, 1e3, allow_nan=False, width=32), st.integers(-5, 5).map(float)),
    ),
    max_size=60,
)


def stream(steps: list[tuple[int, str, str, float]]) -> list[Sale]:
    at, made = START, []
    for gap, shop, customer, amount in steps:
        made.append(Sale(shop=shop, customer=customer, amount=amount, at=at + gap))
        at = max(at, at + gap)
    return made


@given(steps=sales)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_feature_equals_the_slow_version_late_events_included(
    steps: list[tuple[int, str, str, float]], loops: str
) -> None:
    features, oracle = feature_set(), Oracle()
    profiles: dict[str, Profile] = {}
    for sale in stream(steps):
        vector, late = features.compute(sale, sale.shop, sale.at, profiles)
        expected, expected_late = oracle.vector(sale, sale.shop)
        assert late == expected_late
        scale = 1e3
        for name, got, want in zip(features.names, vector, expected, strict=True):
            # A square root turns a rounding error of 1e-16 times the square into one of 1e-8.
            tolerance = 1e-6 * scale if name.startswith("std") else 1e-9 * scale
            assert got == pytest.approx(want, rel=1e-9, abs=tolerance), name


@given(steps=sales, cut=st.integers(0, 60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_profile_read_back_continues_to_the_last_bit(
    steps: list[tuple[int, str, str, float]], cut: int, loops: str
) -> None:
    features = feature_set()
    kept: dict[str, Profile] = {}
    restored: dict[str, Profile] = {}
    for number, sale in enumerate(stream(steps)):
        if number >= cut:
            restored = {key: features.load(key, features.dump(profile)) for key, profile in restored.items()}
        assert features.compute(sale, sale.shop, sale.at, kept) == features.compute(sale, sale.shop, sale.at, restored)
    assert kept == restored


@given(steps=sales, others=sales)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("loops", ["compiled"], indirect=True)
def test_compiled_and_python_are_the_same_bits_and_read_each_others_profiles(
    steps: list[tuple[int, str, str, float]], others: list[tuple[int, str, str, float]], loops: str
) -> None:
    windows = tuple(WINDOWS)
    features = FeatureSet(
        [
            *every_feature("amount", "customer", ()),
            *every_feature("amount", "customer", ("customer",)),
            field("amount"),
            one_hot("shop", "a", "b"),
            ratio("amount", "at"),
            std(ratio("amount", "at"), *windows),
            distinct("shop", "1h", by=("customer",), local=True, including=True),
        ],
        TYPES,
        "shop",
        "at",
    )
    python, compiled = features._compute, features._compiler.faster()
    ours: dict[str, Profile] = {}
    theirs: dict[str, Profile] = {}
    for number, sale in enumerate(stream([*steps, *others])):
        (vector, late), (expected, expected_late) = (
            compute(sale, sale.shop, sale.at, profiles) for compute, profiles in ((compiled, ours), (python, theirs))
        )
        assert struct.pack(f"{len(vector)}d", *vector) == struct.pack(f"{len(expected)}d", *expected)
        assert (late, type(late)) == (expected_late, bool)
        assert ours == theirs
        if number % 7 == 0:
            ours, theirs = theirs, ours


@given(sales)
@settings(max_examples=100)
def test_entities_do_not_see_each_other(steps: list[tuple[int, str, str, float]]) -> None:
    """What an entity's features are does not depend on other entities' events."""
    features = feature_set(by=("customer",))
    together: dict[str, Profile] = {}
    alone: dict[str, dict[str, Profile]] = defaultdict(dict)
    for sale in stream(steps):
        assert features.compute(sale, sale.shop, sale.at, together) == features.compute(
            sale, sale.shop, sale.at, alone[sale.customer]
        )


@given(st.lists(st.tuples(st.integers(0, 3_000_000), st.floats(-100, 100)), min_size=1, max_size=40))
@settings(max_examples=100)
def test_counts_do_not_depend_on_the_order_of_arrival_within_the_window(steps: list[tuple[int, float]]) -> None:
    features = FeatureSet([count("1h"), maximum("amount", "1h")], TYPES, "shop", "at")
    rows = [Sale(shop="a", customer="c", amount=amount, at=START + gap) for gap, amount in steps]
    newest = Sale(shop="a", customer="c", amount=0.0, at=START + 3_000_000)

    def final(order: list[Sale]) -> list[float]:
        profiles: dict[str, Profile] = {}
        for sale in order:
            features.compute(sale, "a", sale.at, profiles)
        return features.compute(newest, "a", newest.at, profiles)[0]

    assert final(rows) == final(sorted(rows, key=lambda sale: sale.at)) == final(rows[::-1])


def test_cost_per_event_does_not_grow_with_events_in_the_window() -> None:
    """State has one size, whatever was counted: what is not kept cannot be walked through."""
    features = feature_set()
    profiles: dict[str, Profile] = {}
    sizes = set()
    for number in range(5_000):
        sale = Sale(shop="a", customer=f"c{number}", amount=1.0, at=START + number)
        features.compute(sale, "a", sale.at, profiles)
        sizes.add(len(features.dump(profiles["a"])))
    assert len(sizes) == 1


def test_rounding_errors_do_not_pile_up() -> None:
    """A window that saw a huge value is as exact as before once the value has left."""
    features = FeatureSet([total("amount", "12s"), std("amount", "12s")], TYPES, "shop", "at")
    profiles: dict[str, Profile] = {}
    amounts = [1e16] + [0.1] * 40
    for number, amount in enumerate(amounts):
        sale = Sale(shop="a", customer="c", amount=amount, at=START + 1_000 * number)
        vector, _ = features.compute(sale, "a", sale.at, profiles)
    assert vector == [pytest.approx(1.2, rel=1e-12), pytest.approx(0.0, abs=1e-9)]
