"""Does the price of electricity in New South Wales go up? Elec2: 45,312 half hours with real drift, labels at once.

Its results are published for many learners, so it shows that what is measured here is what others measure.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from river import dummy, linear_model, optim, preprocessing

from features import field
from pipelines.data import rows
from pipelines.definition import Event, Label, Pipeline, on_loss, on_prediction

MARKET = "NSW"
START = datetime(1996, 5, 7, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
REPEATED_FROM, REPEATED = 17_424, 48
"""The data set has one Sunday twice: here the time steps back by a day, and from here on three prices are known."""

# River calls a probability of exactly one half False, and so have the published results.
ABOVE_HALF = math.nextafter(0.5, 1.0)
INPUTS = ("date", "day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")


class HalfHour(Event, topic="elec2-half-hours", key="market", id="row", time="started_at"):
    """Prices and demand, normalised in the data set. Times repeat there, so the id is the number of the row."""

    row: int
    market: str
    started_at: datetime
    date: float
    day: float
    period: float
    nswprice: float
    nswdemand: float
    vicprice: float
    vicdemand: float
    transfer: float


class Movement(Label, topic="elec2-movements", key="market", id="row", time="started_at"):
    """Whether the price was above its mean of the last 24 hours."""

    row: int
    market: str
    started_at: datetime
    up: bool

    @property
    def outcome(self) -> bool:
        """Whether it went up."""
        return self.up


def history() -> Iterator[HalfHour | Movement]:
    """Every half hour, and its label directly after it."""
    for number, row in enumerate(rows("elec2.csv.gz")):
        place = number - REPEATED if number >= REPEATED_FROM else number
        started_at = START + place * HALF_HOUR
        inputs = {name: float(row[name]) for name in INPUTS}
        yield HalfHour(row=number, market=MARKET, started_at=started_at, **inputs)
        yield Movement(row=number, market=MARKET, started_at=started_at, up=row["class"] == "UP")


def logistic() -> Any:
    """The logistic regression of River's benchmark."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005))


def alma() -> Any:
    """The approximate large margin algorithm of River's benchmark."""
    return preprocessing.StandardScaler() | linear_model.ALMAClassifier()  # type: ignore[no-untyped-call]


def last_label() -> Any:
    """Says what was last: 85 % right here, so accuracy alone shows no learning."""
    return dummy.NoChangeClassifier()


def _pipeline(name: str, model: Any, description: str) -> Pipeline:
    return Pipeline(
        name=name,
        description=description,
        event=HalfHour,
        label=Movement,
        horizon=timedelta(days=2),  # longer than time steps back
        features=[field(name) for name in INPUTS],
        model=model,
        drift=[on_loss(), on_prediction()],
        threshold=ABOVE_HALF,
        source=history,
    )


elec2 = _pipeline("elec2", logistic, "Does the price of electricity go up? Logistic regression.")
elec2_alma = _pipeline("elec2_alma", alma, "Does the price of electricity go up? ALMA.")
elec2_last_label = _pipeline("elec2_last_label", last_label, "Does the price of electricity go up? As last time.")
