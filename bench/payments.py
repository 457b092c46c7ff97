"""The stream of the benchmarks that need as many keys and as many events as they ask for: payments by customers.

Everything about payment number n follows from n, so whoever sees a prediction knows when its event was due.
"""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from river import forest, linear_model, preprocessing, tree

from features import count, field, maximum, mean, minimum, since_last, std
from pipelines.definition import Event, Label, Pipeline, on_loss

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
PREFIX = "p"  # of a payment's id, before its number


class Payment(Event, topic="payments", key="customer", id="payment", time="at"):
    """Somebody pays. Times in ms since 1970."""

    payment: str
    customer: str
    at: int
    amount: float


class Verdict(Label, topic="verdicts", key="customer", id="payment", time="at"):
    """Whether it was one to look at."""

    payment: str
    customer: str
    at: int
    outcome: bool


def customer(number: int) -> str:
    """The name of a customer."""
    return f"c{number:07d}"


def payment(number: int, customers: int, at: int) -> Payment:
    """Payment of this number. Customers take turns, in an order that jumps."""
    who = number * 2_654_435_761 % customers
    return Payment(payment=f"{PREFIX}{number}", customer=customer(who), at=at, amount=20.0 + number * 7_919 % 997 / 10)


def verdict(event: Payment, at: int) -> Verdict:
    """What came of it."""
    return Verdict(payment=event.payment, customer=event.customer, at=at, outcome=event.amount > 70)


def number_of(identity: str) -> int:
    """The number of the payment with this id."""
    return int(identity.removeprefix(PREFIX))


def over_days(events: int, customers: int, days: float) -> list[Payment]:
    """Payments spread evenly over so many days, of random customers."""
    chance = random.Random(1)
    return [
        Payment(
            payment=f"{PREFIX}{number}",
            customer=customer(chance.randrange(customers)),
            at=START_MS + int(days * DAY_MS * number / events),
            amount=round(chance.lognormvariate(4, 0.5), 2),
        )
        for number in range(events)
    ]


def logistic() -> Any:
    """The model of all that does not compare models."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def hoeffding() -> Any:
    """One tree."""
    return tree.HoeffdingTreeClassifier()


def adaptive() -> Any:
    """One tree that replaces branches which have become worse."""
    return tree.HoeffdingAdaptiveTreeClassifier(seed=1)


def arf() -> Any:
    """Ten trees."""
    return forest.ARFClassifier(n_models=10, seed=1)


def windows_of(*windows: str) -> list[Any]:
    """Count, mean and deviation in each window."""
    return [count(*windows), mean("amount", *windows), std("amount", *windows)]


def features_of(number: int) -> list[Any]:
    """Ten to two hundred features: five over each window of 1 h, 2 h and so on. Must be a multiple of five."""
    made: list[Any] = []
    for hours in range(1, number // 5 + 1):
        window = f"{hours}h"
        made += [*windows_of(window), minimum("amount", window), maximum("amount", window)]
    return made


def pipeline(features: Sequence[Any], model: Any = logistic, days: int = 1) -> Pipeline:
    """The stream with these features, this model, and a horizon of so many days."""
    return Pipeline(
        name="payments",
        event=Payment,
        label=Verdict,
        horizon=timedelta(days=days),
        features=features,
        model=model,
        drift=[on_loss()],
    )


FEATURES = [field("amount"), *windows_of("1h", "1d", "7d"), since_last()]
payments = pipeline(FEATURES)
forests = pipeline(FEATURES, arf)
weekly = pipeline(FEATURES, days=7)
