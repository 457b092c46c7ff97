"""Pipelines to be fuzzed, one for each task: two that are built in, and three of one stream of readings."""

from datetime import datetime, timedelta
from typing import Any, Literal

from river import anomaly, drift, linear_model, preprocessing, tree

from features import count, distinct, ewm, field, function, hashed, last, maximum, mean, one_hot, ratio, since_last, std
from pipelines.card_fraud import card_fraud
from pipelines.definition import Event, Label, Pipeline, on_feature, on_loss, on_prediction
from pipelines.flights import flights


class Reading(Event, topic="readings", key="sensor", id="name", time="at"):
    """An event whose time is a number, whose id may be missing, and which has a field of every other kind."""

    name: int | None = None
    sensor: str
    at: int
    x: float
    n: int = 0
    on: bool = False
    mode: Literal["a", "b"] = "a"
    note: str | None = None
    when: datetime | None = None


class Read(Label, topic="reads", key="sensor", id="name", time="at"):
    """What came of it."""

    name: int
    sensor: str
    at: int


class Amount(Read, topic="amounts"):
    """A number."""

    outcome: float


class Kind(Read, topic="kinds"):
    """One of several classes, any text."""

    outcome: str


class Odd(Read, topic="odds"):
    """Whether it was an anomaly, by a property of the user's that does not think of everything."""

    score: float

    @property
    def outcome(self) -> bool:
        """Raises for 0."""
        return 1.0 / self.score > 0.5


def inverse(event: Any) -> float:
    """A feature of the user's that raises for 0."""
    return 1.0 / float(event.n)


def regressor() -> Any:
    """A linear regression over scaled features."""
    return preprocessing.StandardScaler() | linear_model.LinearRegression()


def classifier() -> Any:
    """A tree for many classes."""
    return tree.HoeffdingTreeClassifier(grace_period=20)


def detector() -> Any:
    """Half-space trees over features from 0 to 1."""
    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(n_trees=3, height=4, window_size=20, seed=1)


def _readings(name: str, label: type[Label], model: Any, **options: Any) -> Pipeline:
    return Pipeline(
        name=name,
        event=Reading,
        label=label,
        horizon=timedelta(minutes=10),
        features=[
            field("x"),
            field("n"),
            field("on"),
            one_hot("mode"),
            hashed("sensor", 4),
            ratio("x", "n"),
            mean("x", "1m", "10m"),
            std("x", "10m", including=True),
            maximum("n", "10m"),
            distinct("n", "10m"),
            count("1m", by=("sensor", "mode")),
            last("x"),
            ewm("x", "1m"),
            since_last(),
            *options.pop("more", []),
        ],
        model=model,
        window=50,
        baseline_examples=20,
        **options,
    )


PIPELINES: dict[str, Pipeline] = {
    "flights": flights,
    "card_fraud": card_fraud,
    "regression": _readings(
        "amounts", Amount, regressor, corrected="learn", drift=[on_loss(), on_feature("x"), on_prediction()]
    ),
    "multiclass": _readings(
        "kinds",
        Kind,
        classifier,
        drift=[on_loss(drift.binary.DDM), on_prediction()],
        more=[function("inverse", inverse)],
    ),
    "anomaly": _readings("odds", Odd, detector, expired="negative", drift=[on_prediction()]),
}
