"""What a unit gathers, against the same worked out event by event."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import pytest

from features import Profile
from learning.records import Prediction
from learning.reports import Summary
from learning.sketch import categories, sketch
from learning.summary import FEW, GATHERED, MOST, Collector, Fields
from pipelines.flights import Departure, flights

START = datetime(2013, 1, 1, tzinfo=UTC)
WIDTH = len(flights.feature_set.names)


def departure(number: int, at: datetime) -> Departure:
    return Departure(
        flight_id=str(number),
        origin=("JFK", "LGA")[number % 2],
        destination=f"D{number % 3}",
        carrier="AA",
        departed_at=at,
        departure_delay=float(number % 40 - 5),
        distance=100.0 + number,
    )


class Filled(NamedTuple):
    """What was scored."""

    events: list[Departure]
    vectors: list[list[float]]


def fill(collector: Collector, n: int, step: timedelta = timedelta(seconds=1)) -> Filled:
    filled, profiles = Filled([], []), dict[str, Profile]()
    for i in range(n):
        event = departure(i, START + i * step)
        time_ms = flights.events.time_of(event)
        vector, _ = flights.feature_set.compute(event, event.origin, time_ms, profiles)
        collector.prediction(Prediction(str(i), event.origin, time_ms, i / n, i, vector, "s"), event, late=i == 3)
        filled.events.append(event)
        filled.vectors.append(vector)
    return filled


def test_a_summary_is_what_one_would_count_by_hand() -> None:
    collector = Collector(flights, 2, "here")
    events, vectors = fill(collector, 50)
    for kind in ("matched", "matched", "late"):
        collector.label(kind)
    collector.dead_letter("malformed")
    collector.duplicate()
    (made,) = collector.take(77, {"departures": 4}, 5)
    start = flights.events.time_of(events[0])
    tile = flights.horizon_ms // 24
    assert made == Summary(
        partition=2,
        worker="here",
        wall_ms=77,
        opened=True,
        events=50,
        since_ms=start,
        until_ms=start + 49_000,
        version=49,
        cohorts={start // tile * tile: 50},
        labels={"matched": 2, "late": 1},
        dead_letters={"malformed": 1},
        duplicates=1,
        late=1,
        lag={"departures": 4},
        model_lag=5,
        features=list(map(sketch, zip(*vectors, strict=True))),
        prediction=sketch(i / 50 for i in range(50)),
        numbers={
            "departure_delay": sketch(e.departure_delay for e in events),
            "distance": sketch(e.distance for e in events),
        },
        categories={
            name: categories(getattr(e, name) for e in events) for name in ("origin", "destination", "carrier")
        },
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=Summary) == made


def test_take_empties_and_an_idle_unit_says_nothing() -> None:
    collector = Collector(flights, 0, "w")
    assert [summary.opened for summary in collector.take(1)] == [True]
    assert collector.take(2) == []
    assert collector.take(3, {"departures": 0}) == []
    assert [summary.lag for summary in collector.take(4, {"departures": 9})] == [{"departures": 9}]
    collector.label("expired")
    assert [(summary.labels, summary.opened) for summary in collector.take(5)] == [({"expired": 1}, False)]
    assert collector.take(6) == []


def test_many_events_are_several_summaries_and_labels_are_in_one() -> None:
    collector = Collector(flights, 0, "w")
    fill(collector, MOST + 10)
    collector.label("matched")
    made = collector.take(1)
    assert [summary.events for summary in made] == [MOST, 10]
    assert [summary.labels for summary in made] == [{}, {"matched": 1}]
    assert [summary.opened for summary in made] == [False, True]


def test_summaries_end_with_the_day_of_event_time_unless_they_are_small() -> None:
    collector = Collector(flights, 0, "w")
    fill(collector, 600, timedelta(minutes=10))  # 144 a day
    assert [summary.events for summary in collector.take(1)] == [144, 144, 144, 144, 24]
    sparse = Collector(flights, 0, "w")
    fill(sparse, FEW - 1, timedelta(hours=12))
    assert [summary.events for summary in sparse.take(1)] == [FEW - 1]


def test_more_than_is_gathered_at_once_makes_the_same_summaries() -> None:
    """However often the unit is cut, and whatever is summed up together, each summary is that of its own events."""
    step, n = timedelta(minutes=2), 2 * GATHERED + 500  # 720 a day
    whole = Collector(flights, 0, "w")
    events, vectors = fill(whole, n, step)
    made = whole.take(1)
    sizes = [summary.events for summary in made]
    assert sizes == [720] * (n // 720) + [n % 720]
    first = 0
    for summary, size in zip(made, sizes, strict=True):
        own, columns = events[first : first + size], zip(*vectors[first : first + size], strict=True)
        first += size
        start = flights.events.time_of(own[0])
        assert (summary.since_ms, summary.until_ms) == (start, start + (size - 1) * 120_000)
        assert summary.version == first - 1
        assert sum(summary.cohorts.values()) == size
        assert summary.numbers["distance"] == sketch(e.distance for e in own)
        assert summary.categories["destination"] == categories(e.destination for e in own)
        numbers = range(first - size, first)
        assert summary.prediction == sketch(i / n for i in numbers)
        assert summary.features == list(map(sketch, columns))


@pytest.mark.parametrize(("value", "number"), [(0.25, 0.25), ({"a": 0.6, "b": 0.4}, 0.6), ({}, 0.0)])
def test_a_prediction_is_one_number(value: float | dict[str, float], number: float) -> None:
    collector = Collector(flights, 0, "w")
    event = departure(0, START)
    collector.prediction(Prediction("0", "JFK", 0, value, 0, [0.0] * WIDTH, "s"), event)
    (made,) = collector.take(1)
    assert made.prediction == sketch([number])


def test_ids_and_times_are_no_fields_to_watch() -> None:
    fields = Fields(flights)
    assert fields.numbers == ["departure_delay", "distance"]
    assert fields.categories == ["origin", "destination", "carrier"]


def test_a_unit_that_has_caught_up_says_so() -> None:
    """Its last word was the lag that it no longer had, which the page and the lag rule held on to."""
    collector = Collector(flights, 0, "here")
    said = [collector.take(1, {"departures": lag}) for lag in (900, 0, 0)]
    assert [[summary.lag["departures"] for summary in one] for one in said] == [[900], [0], []]
