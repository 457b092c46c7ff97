"""A pipeline for one test of the command line: invented flights, so that producing and backtests take a moment."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from features import field, hour_of_day, mean
from tests.integration.flights_run import RUN, named

FLIGHTS = 1_000
UNLABELLED = range(0, FLIGHTS, 50)
START = datetime(2013, 1, 1, 6, tzinfo=UTC)
ORIGINS = ("EWR", "JFK", "LGA", "BOS", "PHL", "IAD", "BWI")


def history() -> Iterator[Any]:
    """Departures a minute apart, and arrivals two hours later, as late as the departures were; some never arrive."""
    items: list[tuple[datetime, Any]] = []
    for number in range(FLIGHTS):
        left, origin = START + timedelta(minutes=number), ORIGINS[number % len(ORIGINS)]
        delay = 30.0 * math.sin(number * number)
        event = pipeline.events.struct(
            flight_id=f"f{number}",
            origin=origin,
            destination="LAX",
            carrier="AA",
            departed_at=left,
            departure_delay=delay,
            distance=2475.0,
        )
        items.append((left, event))
        if number not in UNLABELLED:
            at = left + timedelta(hours=2)
            label = {"flight_id": f"f{number}", "origin": origin, "arrived_at": at, "arrival_delay": delay}
            items.append((at, pipeline.labels.struct(**label)))
    yield from (item for _, item in sorted(items, key=lambda pair: pair[0]))


pipeline = named(
    RUN,
    source=history,
    features=[field("departure_delay"), hour_of_day("departed_at"), mean("departure_delay", "3h")],
    baseline_examples=300,
    drift=[],
)
