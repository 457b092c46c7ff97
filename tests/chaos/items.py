"""What the chaos runs are fed with: the flights of 2013, and then again and again, each time under other ids."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from pipelines.flights import Departure, history

YEAR = timedelta(days=365)


def flights() -> Iterator[Any]:
    """Departures and arrivals in time order, without end."""
    for lap in itertools.count():
        for item in history():
            yield later(item, lap) if lap else item


def later(item: Any, years: int) -> Any:
    """The same flight so many years later."""
    name = f"{item.flight_id}+{years}"
    if isinstance(item, Departure):
        return replace(item, flight_id=name, departed_at=item.departed_at + years * YEAR)
    return replace(item, flight_id=name, arrived_at=item.arrived_at + years * YEAR)


def labels_of(items: list[Any]) -> list[Any]:
    """The arrivals among them."""
    return [item for item in items if not isinstance(item, Departure)]
