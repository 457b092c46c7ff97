"""Definitions, names, values that can be worked out by hand, and errors that say what to do."""

import enum
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal

import msgspec
import pytest

from features import (
    Feature,
    FeatureDefinitionError,
    FeatureError,
    FeatureSet,
    Profile,
    count,
    day_of_week,
    distinct,
    ewm,
    field,
    function,
    hashed,
    hour_of_day,
    last,
    mean,
    one_hot,
    ratio,
    since_last,
    std,
    total,
)
from features.definition import parse_window


class Colour(enum.Enum):
    """A category."""

    RED = "red"
    BLUE = "blue"


class Ride(msgspec.Struct, kw_only=True):
    """An event."""

    station: str = "s1"
    bike: str = "b1"
    at: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    minutes: float = 1.0
    people: int = 2
    paid: bool = True
    colour: Colour = Colour.RED
    size: Literal["s", "m"] = "s"
    note: str | None = None


TYPES: dict[str, Any] = {
    "station": str,
    "bike": str,
    "at": datetime,
    "minutes": Annotated[float, msgspec.Meta(ge=0)],
    "people": int,
    "paid": bool,
    "colour": Colour,
    "size": Literal["s", "m"],
    "note": str | None,
}


def build(*features: Feature) -> FeatureSet:
    return FeatureSet(features, TYPES, "station", "at")


def vector(feature_set: FeatureSet, *rides: Ride) -> dict[str, float]:
    profiles: dict[str, Profile] = {}
    row: list[float] = []
    for ride in rides:
        row, _ = feature_set.compute(ride, ride.station, int(ride.at.timestamp() * 1000), profiles)
    return dict(zip(feature_set.names, row, strict=True))


def test_features_of_the_event_alone() -> None:
    features = build(
        field("minutes"),
        field("paid"),
        hour_of_day("at"),
        day_of_week("at"),
        one_hot("colour"),
        one_hot("size"),
        one_hot("bike", "b1", "b2"),
        ratio("minutes", "people"),
        ratio(field("minutes"), function("nothing", lambda ride: 0)),
        function("square", lambda ride: ride.minutes**2),
    )
    ride = Ride(minutes=3.0, at=datetime(2020, 1, 1, 18, 30, tzinfo=timezone(timedelta(hours=-5))), bike="b9")
    assert vector(features, ride) == {
        "minutes": 3.0,
        "paid": 1.0,
        "hour_of_day(at)": 18.5,
        "day_of_week(at)": 2.0,
        "one_hot(colour=red)": 1.0,
        "one_hot(colour=blue)": 0.0,
        "one_hot(size=s)": 1.0,
        "one_hot(size=m)": 0.0,
        "one_hot(bike=b1)": 0.0,
        "one_hot(bike=b2)": 0.0,
        "ratio(minutes,people)": 1.5,
        "ratio(minutes,nothing)": 0.0,
        "square": 9.0,
    }


def test_a_hashed_category_is_in_one_bucket_and_always_the_same() -> None:
    features = build(hashed("bike", 8))
    rows = [tuple(vector(features, Ride(bike=f"b{i}")).values()) for i in range(100)]
    assert all(sum(row) == 1.0 for row in rows)
    assert len(set(rows)) == 8
    assert rows[0] == tuple(vector(build(hashed("bike", 8)), Ride(bike="b0")).values())


def test_windows_are_as_of_just_before_the_event_unless_it_is_included() -> None:
    features = build(count("30m"), count("30m", including=True), mean("minutes", "30m"), last("minutes"), since_last())
    first, second = Ride(minutes=4.0), Ride(minutes=6.0, at=Ride().at + timedelta(minutes=10))
    assert list(vector(features, first).values()) == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert list(vector(features, first, second).values()) == [1.0, 2.0, 4.0, 4.0, 600.0]


def test_an_event_leaves_its_window() -> None:
    features = build(count("30m", "3h"))
    assert list(vector(features, Ride(), Ride(at=Ride().at + timedelta(minutes=45))).values()) == [0.0, 1.0]


def test_an_event_too_late_for_a_window_is_said_to_be_late_and_not_added() -> None:
    features, profiles = build(count("30m", "1d", including=True)), dict[str, Profile]()
    now = int(Ride().at.timestamp() * 1000)
    assert features.compute(Ride(), "s1", now, profiles) == ([1.0, 1.0], False)
    assert features.compute(Ride(), "s1", now - 3_600_000, profiles) == ([0.0, 1.0], True)
    assert features.compute(Ride(), "s1", now, profiles) == ([2.0, 3.0], False)


def test_entities_other_than_the_key() -> None:
    features = build(count("1h"), count("1h", by="bike", local=True), count("1h", by=("station", "bike")))
    rides = [Ride(), Ride(bike="b2"), Ride(station="s2"), Ride()]
    assert list(vector(features, *rides).values()) == [2.0, 2.0, 1.0]


@pytest.mark.parametrize("station", ["bike\x1fb1", "\x1f", "\x1fbike\x1fb1", "a\x1eb"])
def test_a_key_cannot_be_mistaken_for_another_entity(station: str) -> None:
    features = build(count("1h"), mean("minutes", "1h", by="bike", local=True))
    profiles: dict[str, Profile] = {}
    features.compute(Ride(station=station), station, 1_000, profiles)
    features.compute(Ride(station="s1"), "s1", 1_000, profiles)
    assert len(profiles) == 3
    assert {key: features.load(key, features.dump(p)) for key, p in profiles.items()} == profiles


def test_parts_of_an_entity_cannot_be_shifted_into_each_other() -> None:
    features, profiles = build(count("1h", by=("station", "bike"))), dict[str, Profile]()
    for station, bike in [("a\x1fb", "c"), ("a", "b\x1fc"), ("a\x1e1b", "c")]:
        features.compute(Ride(station=station, bike=bike), station, 1_000, profiles)
    assert len(profiles) == 3


def test_a_failing_function_leaves_the_profile_untouched_and_is_named() -> None:
    def fails(ride: Ride) -> float:
        return 1 / (ride.people - 2)

    features, profiles = build(count("1h"), mean(function("per_extra", fails), "1h")), dict[str, Profile]()
    with pytest.raises(FeatureError, match="feature per_extra: raised ZeroDivisionError"):
        features.compute(Ride(), "s1", 1_000, profiles)
    assert profiles == {}
    features.compute(Ride(people=3), "s1", 1_000, profiles)
    before = features.dump(profiles["s1"])
    with pytest.raises(FeatureError):
        features.compute(Ride(), "s1", 2_000, profiles)
    assert features.dump(profiles["s1"]) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e200])
def test_a_number_that_cannot_be_summed_is_refused_before_it_poisons_the_window(value: float) -> None:
    features, profiles = build(total("minutes", "1h")), dict[str, Profile]()
    with pytest.raises(FeatureError, match=r"feature minutes: got .*, expected a number within"):
        features.compute(Ride(minutes=value), "s1", 1_000, profiles)
    assert profiles == {}


@pytest.mark.parametrize("value", ["1.5", None, 10**400, object()])
def test_a_function_must_give_a_number(value: Any) -> None:
    features = build(function("f", lambda ride: value))
    with pytest.raises(FeatureError, match="feature f: raised"):
        features.compute(Ride(), "s1", 1_000, {})


def test_a_time_before_1970_is_refused() -> None:
    with pytest.raises(ValueError, match="after 1970"):
        build(count("1h")).compute(Ride(), "s1", -1, {})


def test_the_first_hours_of_1970_are_as_good_as_any() -> None:
    features, profiles = build(count("12m")), dict[str, Profile]()
    assert [features.compute(Ride(), "s1", t, profiles)[0] for t in (0, 1, 2_000_000)] == [[0.0], [1.0], [0.0]]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([field("minuts")], "got field 'minuts'.*did you mean 'minutes'"),
        ([field("bike")], "field 'bike' is str, expected a number; one_hot\\(\"bike\""),
        ([field("at")], 'hour_of_day\\("at"\\)'),
        ([field("note")], "field 'note' is .*None, expected a number"),
        ([hour_of_day("minutes")], "expected a datetime"),
        ([one_hot("bike")], "its categories are not known"),
        ([one_hot("bike", "a", "a")], "got category 'a' twice"),
        ([hashed("bike", 1)], "got 1 buckets"),
        ([mean("minutes", "30x")], "got window '30x'"),
        ([mean("minutes", "0m")], "got window '0m'"),
        ([mean("minutes")], "got no window"),
        ([ewm("minutes", "soon")], "got window 'soon'"),
        ([count("1h", by="bike")], "does not contain the event key 'station'.*local=True"),
        ([count("1h", by="minutes", local=True)], "its entity field 'minutes' is float"),
        ([count("1h"), count("1h")], r"two features are named 'count\(1h\)'"),
        ([mean("minutes", "1h", name="m"), std("minutes", "1h", name="m")], "two features are named 'm'"),
        ([mean(count("1h"), "1h")], r"got count\(\) as its source|got count.* as its source"),
        ([distinct("at", "1h")], "field 'at' is datetime"),
        ([function("f", 3)], "got 3, expected a function"),  # type: ignore[arg-type]
        ([function("", lambda ride: 1.0)], "got name ''"),
        (["minutes"], "got feature 'minutes'"),
        ([], "got no features"),
    ],
)
def test_a_mistake_in_a_definition_names_the_field_and_the_remedy(features: list[Any], message: str) -> None:
    with pytest.raises(FeatureDefinitionError, match=message):
        FeatureSet(features, TYPES, "station", "at")


def test_names_can_be_chosen() -> None:
    features = build(mean("minutes", "1h", name="m"), count("1h", "2h", name="n"), ratio("minutes", "people", name="r"))
    assert features.names == ("m", "n_1h", "n_2h", "r")


def test_the_schema_changes_with_the_definitions_and_with_nothing_else() -> None:
    def one(ride: Ride) -> float:
        return 1.0

    schema = build(mean("minutes", "1h"), function("f", one)).schema
    assert schema == build(mean("minutes", "1h"), function("f", lambda ride: 2.0)).schema
    assert len(schema) == 16
    others = [
        build(mean("minutes", "2h"), function("f", one)),
        build(function("f", one), mean("minutes", "1h")),
        build(mean("minutes", "1h", including=True), function("f", one)),
        build(total("minutes", "1h", name="mean(minutes,1h)"), function("f", one)),
    ]
    assert len({schema, *(other.schema for other in others)}) == 5


def test_a_profile_of_other_features_is_refused() -> None:
    old, new = build(count("1h")), build(count("2h"))
    data = old.dump(old.new_profile(0))
    with pytest.raises(ValueError, match="the features were changed since it was written"):
        new.load("s1", data)
    with pytest.raises(ValueError, match=rf"got a profile of {len(data) - 8} bytes, expected {len(data)}"):
        old.load("s1", data[:-8])
    with pytest.raises(ValueError, match="got a profile of 3 bytes, expected 10 at least"):
        old.load("s1", data[:3])
    with pytest.raises(ValueError, match="the features were changed since it was written"):
        old.load("s1", b"\x02" + data[1:])
    with pytest.raises(ValueError, match="no longer has"):
        old.load("s1", b"\x01\x07" + data[2:])


def test_the_binary_form_does_not_change_unnoticed() -> None:
    """A change here must raise LAYOUT_VERSION, or workers will misread what older ones wrote."""
    features, profiles = build(mean("minutes", "12s")), dict[str, Profile]()
    features.compute(Ride(minutes=2.5), "s1", 5_000, profiles)
    data = features.dump(profiles["s1"])
    assert data[:2] == b"\x01\x00"
    assert len(data) == 10 + 8 * (3 + 14 + 14)
    ints = [int.from_bytes(data[10 + 8 * i : 18 + 8 * i], "little") for i in range(17)]
    assert ints == [1, 5_000, 5, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("text", "ms"), [("90s", 90_000), ("30m", 1_800_000), ("3h", 10_800_000), ("7d", 604_800_000)])
def test_windows_are_read_as_written(text: str, ms: int) -> None:
    assert parse_window(text) == ms
