"""A unit's summary against each number sketched by itself, whatever the number follows from."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

from features import Feature, Profile, count, field, hashed, hour_of_day, one_hot, ratio
from learning import summary as summaries
from learning.records import Prediction
from learning.sketch import categories, sketch
from learning.summary import Collector
from pipelines.definition import Event, Label, Pipeline

START = datetime(2026, 1, 1, tzinfo=UTC)
LONG = "x" * 100  # longer than what is kept of a category's name


class Means(Enum):
    CARD = "card"
    CASH = "cash"


class Sale(Event, topic="sales", key="shop", id="sale_id", time="at"):
    """An event with fields of every kind that is watched, and one that is none."""

    sale_id: str
    shop: int
    at: datetime
    amount: float
    pieces: int
    price: float | None
    member: bool
    means: Means
    place: Literal["here", "there"]
    town: str


class Returned(Label, topic="returns", key="shop", id="sale_id", time="at"):
    """Its outcome."""

    sale_id: str
    shop: int
    at: datetime

    @property
    def outcome(self) -> bool:
        """Whether it is returned."""
        return True


EVERY: dict[str, list[Feature]] = {
    "indicators and others": [
        count("1h"),
        one_hot("town", "a", LONG, "nowhere"),
        field("amount"),
        hashed("town", 5),
        one_hot("means"),
        one_hot("member"),
        ratio("amount", "pieces"),
        one_hot("place"),
        one_hot("shop", 1, 2),
        field("member"),
        hour_of_day("at"),
    ],
    "indicators alone": [one_hot("town", "a"), hashed("means", 2)],
    "one more": [one_hot("town", "a"), count("1h")],
    "none of them": [field("pieces"), field("amount"), count("1h")],
    "indicators of what is not watched": [one_hot("pieces", 0, 1), hashed("pieces", 3), field("pieces")],
}

SALES = st.lists(
    st.builds(
        Sale,
        sale_id=st.just("s"),
        shop=st.integers(0, 3),
        at=st.integers(0, 200).map(lambda hours: START + timedelta(hours=hours)),
        amount=st.floats(-1e6, 1e6),
        pieces=st.integers(-3, 2**60),
        price=st.none() | st.floats(),
        member=st.booleans(),
        means=st.sampled_from(Means),
        place=st.sampled_from(["here", "there"]),
        town=st.sampled_from(["a", "b", "", "a" * 90, LONG, LONG + "y"]),
    ),
    min_size=1,
    max_size=60,
)


def pipeline(features: list[Feature]) -> Pipeline:
    return Pipeline(
        name="sales",
        event=Sale,
        label=Returned,
        horizon=timedelta(hours=1),
        features=features,
        model=linear_model.LogisticRegression,
    )


@pytest.mark.parametrize("which", EVERY)
@given(sales=SALES)
@settings(deadline=None, max_examples=40)
def test_a_summary_is_the_sketch_of_each_number_by_itself(which: str, sales: list[Sale]) -> None:
    sales_ = pipeline(EVERY[which])
    collector, vectors, profiles = Collector(sales_, 0, "w"), [], dict[str, Profile]()
    for sale in sales:
        time_ms, key = sales_.events.time_of(sale), sales_.events.key_of(sale)
        vector, _ = sales_.feature_set.compute(sale, key, time_ms, profiles)
        collector.prediction(Prediction("s", key, time_ms, 0.5, 0, vector, "s"), sale)
        vectors.append(vector)
    (made,) = collector.take(0)
    assert made.features == list(map(sketch, zip(*vectors, strict=True)))
    of: Callable[[str], list[Any]] = lambda name: [getattr(sale, name) for sale in sales]  # noqa: E731
    assert made.numbers == {name: sketch(of(name)) for name in ("amount", "pieces", "price")}
    assert made.categories == {name: categories(of(name)) for name in ("shop", "member", "means", "place", "town")}


class OneByOne:
    """Where summaries end, asked before each event: at a new day unless it is a small one, and where it is full."""

    def __init__(self, most: int, few: int) -> None:
        self.most, self.few = most, few
        self.day = 0
        self.sizes: list[int] = [0]

    def add(self, day: int) -> None:
        if self.sizes[-1] >= (self.few if day > self.day else self.most):
            self.sizes.append(0)
        self.sizes[-1] += 1
        self.day = max(self.day, day)

    def take(self) -> list[int]:
        made, self.sizes = self.sizes, [0]
        return [size for size in made if size]


@given(
    days=st.lists(st.integers(0, 6) | st.just("cut"), max_size=80),
    few=st.integers(1, 4),
    most=st.integers(4, 9),
)
@settings(deadline=None)
def test_summaries_end_where_they_would_if_each_event_were_asked(
    days: list[int | Literal["cut"]], few: int, most: int
) -> None:
    """And each event is in one of them, however many are gathered before they are summed up."""
    sales = pipeline([field("amount")])
    with pytest.MonkeyPatch.context() as patch:
        for name, number in (("FEW", few), ("MOST", most), ("GATHERED", 2 * most)):
            patch.setattr(summaries, name, number)
        collector, expected = Collector(sales, 0, "w"), OneByOne(most, few)
        since, seen = 0, list[float]()
        for place, day in enumerate([*days, "cut"]):
            if day != "cut":
                time_ms = int(day) * summaries.DAY_MS + place
                seen.append(float(place))
                collector.prediction(Prediction("s", "1", time_ms, 0.5, place, [float(place)], "s"), a_sale(place))
                expected.add(int(day))
                continue
            made = [each for each in collector.take(0) if each.events]
            assert [each.events for each in made] == expected.take()
            ends = [since]
            for each in made:
                ends.append(ends[-1] + each.events)
            for each, (first, last) in zip(made, pairwise(ends), strict=True):
                assert each.features == [sketch(seen[first:last])]
                assert each.version == seen[last - 1]
            since = ends[-1]
        assert since == len(seen)


def a_sale(number: int) -> Sale:
    return Sale(
        sale_id="s", shop=1, at=START, amount=float(number), pieces=2, price=None, member=True, means=Means.CARD,
        place="here", town="a",
    )  # fmt: skip


def test_a_vector_that_is_none_of_the_pipelines_is_an_error() -> None:
    collector = Collector(pipeline([field("amount"), count("1h")]), 0, "w")
    collector.prediction(Prediction("s", "1", 0, 0.5, 0, [1.0], "s"), a_sale(1))
    with pytest.raises(TypeError, match="got 38 bytes for 1 vectors of 2 floats, expected 47 for each"):
        collector.take(0)


def test_what_a_summary_has_twice_is_not_shared() -> None:
    """Whoever adds to a sketch changes it."""
    sales = pipeline(EVERY["none of them"])
    collector = Collector(sales, 0, "w")
    collector.prediction(Prediction("s", "1", 0, 0.5, 0, [2.0, 1.0, 0.0], "s"), a_sale(1))
    (made,) = collector.take(0)
    assert made.numbers["amount"] == made.features[1]
    assert made.numbers["amount"].bins is not made.features[1].bins
