"""Is this card payment fraud? 555,712 simulated payments of the Fraud Detection Handbook, labels seven days late."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta
from river import linear_model, optim, preprocessing

from features import count, field, function, mean
from pipelines.data import rows
from pipelines.definition import Event, Label, Pipeline, on_feature, on_loss, on_prediction

FILES = ("fraud_handbook_1.csv.gz", "fraud_handbook_2.csv.gz", "fraud_handbook_3.csv.gz")
DELAY = timedelta(days=7)  # as in the book


class Payment(Event, topic="payments", key="customer_id", id="tx_id", time="paid_at"):
    """A customer pays at a terminal."""

    tx_id: int
    customer_id: int
    terminal_id: int
    amount: Annotated[float, Meta(ge=0)]
    paid_at: datetime


class Investigation(Label, topic="investigations", key="customer_id", id="tx_id", time="closed_at"):
    """What the payment turned out to be."""

    tx_id: int
    customer_id: int
    closed_at: datetime
    fraud: bool

    @property
    def outcome(self) -> bool:
        """Whether it was fraud."""
        return self.fraud


def history() -> Iterator[Payment | Investigation]:
    """Payments when they happened, and each one's investigation seven days later."""
    waiting: deque[Investigation] = deque()
    for name in FILES:
        for row in rows(name):
            paid_at = datetime.fromisoformat(row["ts"]).replace(tzinfo=UTC)
            while waiting and waiting[0].closed_at <= paid_at:
                yield waiting.popleft()
            tx_id, customer_id = int(row["tx_id"]), int(row["customer_id"])
            yield Payment(
                tx_id=tx_id,
                customer_id=customer_id,
                terminal_id=int(row["terminal_id"]),
                amount=float(row["amount"]),
                paid_at=paid_at,
            )
            fraud = row["fraud"] == "1"
            waiting.append(Investigation(tx_id=tx_id, customer_id=customer_id, closed_at=paid_at + DELAY, fraud=fraud))
    yield from waiting


def at_weekend(payment: Payment) -> float:
    """1 on Saturday and Sunday."""
    return float(payment.paid_at.weekday() >= 5)


def at_night(payment: Payment) -> float:
    """1 before seven, as in the book."""
    return float(payment.paid_at.hour <= 6)


def model() -> Any:
    """A logistic regression that starts from one fraud in a hundred, as the first week has no labels."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005), intercept_init=-4.6)


fraud_handbook = Pipeline(
    name="fraud_handbook",
    description="Is this card payment fraud?",
    event=Payment,
    label=Investigation,
    horizon=timedelta(days=8),
    features=[
        field("amount"),
        function("at_weekend", at_weekend),
        function("at_night", at_night),
        count("1d", "7d", "30d", including=True),
        mean("amount", "1d", "7d", "30d", including=True),
        # The book has the share of frauds at a terminal here; what customers pay there shows part of it.
        count("1d", "7d", "30d", by="terminal_id", local=True),
        mean("amount", "1d", "7d", "30d", by="terminal_id", local=True),
    ],
    model=model,
    drift=[on_loss(), on_prediction(), on_feature("amount")],
    threshold=0.2,
    source=history,
)
