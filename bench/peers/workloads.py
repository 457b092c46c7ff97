"""The work that all systems are given: events, labels, features and models, as pipelines that Headwater runs.

Every event has a label, and all features are of the event's key: a window of another entity, as `card_fraud` has of its
terminals, would take a repartition topic in Quix Streams and a second stateful step in Bytewax, and none in Headwater.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from river import forest, linear_model, preprocessing, tree

from features import count, distinct, field, function, hour_of_day, mean, minimum, since_last, std, total
from pipelines import card_fraud as cards_world
from pipelines import flights as flights_world
from pipelines.card_fraud import Purchase, log_amount
from pipelines.definition import Label, Pipeline
from pipelines.flights import Arrival, Departure

DECIDED_AFTER = timedelta(days=1)  # some 1,100 purchases wait at any time


class Verdict(Label, topic="verdicts", key="card", id="purchase_id", time="decided_at"):
    """A day after every purchase somebody says whether it was fraud."""

    purchase_id: str
    card: str
    fraud: bool
    decided_at: datetime

    @property
    def outcome(self) -> bool:
        """Whether it was fraud."""
        return self.fraud


def logistic() -> Any:
    """What River's own examples begin with."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def hoeffding_tree() -> Any:
    """One tree that grows."""
    return tree.HoeffdingTreeClassifier()


def small_forest() -> Any:
    """Three trees that adapt."""
    return forest.ARFClassifier(n_models=3, seed=1)


def _cards(name: str, model: Callable[[], Any]) -> Pipeline:
    return Pipeline(
        name=name,
        event=Purchase,
        label=Verdict,
        horizon=timedelta(days=7),
        features=[
            field("amount"),
            function("log_amount", log_amount),
            hour_of_day("bought_at"),
            field("online"),
            count("10m", "1h", "1d", "7d"),
            total("amount", "1h", "1d"),
            mean("amount", "1h", "7d"),
            std("amount", "7d"),
            minimum("amount", "1h"),
            distinct("terminal", "1h", "1d"),
            since_last(),
        ],
        model=model,
    )


cards = _cards("bench_cards", logistic)
cards_tree = _cards("bench_cards_tree", hoeffding_tree)
cards_forest = _cards("bench_cards_forest", small_forest)
flights = Pipeline(
    name="bench_flights",
    event=Departure,
    label=Arrival,
    horizon=timedelta(days=2),
    features=flights_world.FEATURES,
    model=logistic,
)


def purchases(events: int) -> Iterator[Purchase | Verdict]:
    """So many purchases of `card_fraud`'s world, and a verdict on each a day later. More events begin with the same."""
    bought: list[Purchase] = []
    fraud: dict[str, bool] = {}
    for item in cards_world.history(events):
        if isinstance(item, Purchase):
            bought.append(item)
        else:
            fraud[item.purchase_id] = item.fraud
    verdicts = (
        Verdict(
            purchase_id=purchase.purchase_id,
            card=purchase.card,
            fraud=fraud.get(purchase.purchase_id, False),
            decided_at=purchase.bought_at + DECIDED_AFTER,
        )
        for purchase in bought
    )
    return heapq.merge(bought, verdicts, key=_moment)


def _moment(item: Purchase | Verdict) -> datetime:
    return item.bought_at if isinstance(item, Purchase) else item.decided_at


class Workload(NamedTuple):
    """What a system is given.

    Attributes:
        pipeline: features and model.
        history: given a number of events, at least so many of them with the labels that came meanwhile, in the order
            of time.
        where: how Headwater's settings name the pipeline.
        is_linear: whether the model is the scaler with logistic regression.
    """

    pipeline: Pipeline
    history: Callable[[int], Iterator[Any]]
    where: str
    is_linear: bool = True

    def items(self, events: int) -> list[Any]:
        """The first items, up to the last of so many events. Raises ValueError where the data set has fewer."""
        return self.first(self.history(events), events)

    def first(self, items: Iterable[Any], events: int) -> list[Any]:
        """The same of items that are there already."""
        found, seen = [], 0
        for item in items:
            found.append(item)
            seen += isinstance(item, self.pipeline.events.struct)
            if seen == events:
                return found
        message = f"{self.pipeline.name} has {seen} events, expected {events:,}; set EVENTS to less"
        raise ValueError(message)


def _departures(_: int) -> Iterator[Departure | Arrival]:
    return flights_world.history()


WORKLOADS = {
    "cards": Workload(cards, purchases, "bench.peers.workloads:cards"),
    "flights": Workload(flights, _departures, "bench.peers.workloads:flights"),
    "cards_tree": Workload(cards_tree, purchases, "bench.peers.workloads:cards_tree", False),
    "cards_forest": Workload(cards_forest, purchases, "bench.peers.workloads:cards_forest", False),
}
