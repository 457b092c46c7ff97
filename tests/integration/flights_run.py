"""The flights pipeline under the name of one test run, so that runs on one broker keep apart. Loaded by workers."""

import os
from typing import Any

from river import linear_model

from features import count, distinct, ewm, field, function, hour_of_day, mean, one_hot, since_last, std
from pipelines.definition import Pipeline
from pipelines.flights import Arrival, Departure, flights

RUN = os.environ.get("HEADWATER_TEST_RUN", "run")

FEATURES: list[Any] = [
    field("departure_delay"),
    field("distance"),
    hour_of_day("departed_at"),
    one_hot("carrier", "AA", "B6", "DL", "EV", "UA"),
    mean("departure_delay", "30m", "3h", "1d"),
    std("departure_delay", "3h"),
    distinct("destination", "3h"),
    count("30m", "3h", "1d", by=("origin", "carrier")),
    ewm("departure_delay", "1h"),
    since_last(),
]


def named(run: str, **overrides: Any) -> Pipeline:
    """The flights pipeline with topics that begin with the run's name."""

    class Left(Departure, topic=f"{run}.departures"):
        """A departure of this run."""

    class Landed(Arrival, topic=f"{run}.arrivals"):
        """An arrival of this run."""

    settings: dict[str, Any] = {
        "horizon": flights.horizon,
        "features": FEATURES,
        "model": flights.model,
        "drift": flights.drift,
        "baseline_examples": 2_000,
    }
    return Pipeline(name=run, event=Left, label=Landed, **{**settings, **overrides})


def breaking(event: Any) -> float:
    """A feature of a user who did not think of everything: raises on one flight in the bad-input test."""
    if event.destination == "BAD":
        message = "no such airport"
        raise KeyError(message)
    return float(event.distance) / 100


def always_breaking(event: Any) -> float:
    """A feature that is wrong for every event."""
    return float(event.no_such_field)


pipeline = named(RUN)
sampled = named(RUN, negatives=0.25, baseline_examples=500)
careless = named(RUN, features=[*FEATURES, function("breaking", breaking)])
wrong = named(RUN, features=[*FEATURES, function("always_breaking", always_breaking)])


class Fragile(linear_model.LogisticRegression):
    """A user's model that cannot predict for one distance, nor learn from another."""

    def predict_proba_one(self, x: Any, **options: Any) -> Any:
        """Raise, or predict."""
        if x["distance"] == 666.0:
            message = "cannot predict this"
            raise ArithmeticError(message)
        return super().predict_proba_one(x, **options)  # type: ignore[no-untyped-call]

    def learn_one(self, x: Any, y: Any, w: Any = 1.0) -> None:
        """Raise, or learn."""
        if x["distance"] == 667.0:
            message = "cannot learn this"
            raise ArithmeticError(message)
        super().learn_one(x, y, w)


fragile = named(RUN, model=Fragile)
