"""A pipeline for one test of incidents: invented flights, an hour as its cycle, whose distances change their unit."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from river import linear_model, optim, preprocessing

from features import field, mean
from pipelines.definition import relearn
from tests.integration.flights_run import RUN, named

HOURS = 34
AN_HOUR = 330  # windows have 300 events at least
CHANGE = 24  # hour from which on distances come in metres
FLIGHTS = HOURS * AN_HOUR
START = datetime(2013, 1, 1, 6, tzinfo=UTC)
LABEL_AFTER = timedelta(minutes=4)


def history() -> Iterator[Any]:
    """Departures eleven seconds apart; those that go far arrive late, mostly. Labels come minutes later."""
    random, items = Random(3), []
    for number in range(FLIGHTS):
        left = START + number * timedelta(hours=1) / AN_HOUR
        kilometres, far = random.uniform(200.0, 2_200.0), random.random()
        late = far < 1.0 / (1.0 + math.exp(-(kilometres - 1_200.0) / 100.0))
        event = pipeline.events.struct(
            flight_id=f"f{number}",
            origin="JFK",
            destination=random.choice(("LAX", "SFO", "ORD")),
            carrier=random.choice(("AA", "DL", "UA")),
            departed_at=left,
            departure_delay=random.gauss(10.0, 5.0),
            distance=kilometres * (1_000.0 if number >= CHANGE * AN_HOUR else 1.0),
        )
        label = pipeline.labels.struct(
            flight_id=f"f{number}",
            origin="JFK",
            arrived_at=left + LABEL_AFTER,
            arrival_delay=60.0 if late else 0.0,
        )
        items += [(left, event), (left + LABEL_AFTER, label)]
    yield from (item for _, item in sorted(items, key=lambda pair: pair[0]))


def model() -> Any:
    """Converges within some hundred examples."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05))


def reacting(run: str) -> Any:
    """The pipeline under the name of one run."""
    return named(
        run,
        source=history,
        features=[field("departure_delay"), field("distance"), mean("departure_delay", "3h")],
        model=model,
        drift=[],
        react=relearn(300),
        budget=1.0,
        cycle=timedelta(hours=1),
        horizon=timedelta(hours=1),
        baseline_examples=1_500,
    )


pipeline = reacting(RUN)
