"""Is this purchase made with a stolen card? Cards and terminals with habits, three kinds of thieves, late chargebacks.

A made-up world, the same for the same seed. The thieves change their ways at `CHANGES`, and a model has to follow.
"""

import heapq
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Annotated, Any, NamedTuple

import msgspec
from river import linear_model, optim, preprocessing

from features import count, distinct, field, function, hour_of_day, mean, minimum, since_last, std, total
from pipelines.definition import Event, Label, Pipeline, on_feature, on_loss, on_prediction
from pipelines.streams import ms_of

START = datetime(2024, 1, 1, tzinfo=UTC)
CHANGES = (START + timedelta(days=30), START + timedelta(days=60))
"""From when on thieves try a card out before they use it, and from when on they use copied cards at one terminal."""

PURCHASES = 100_000  # about 88 days
CARDS = 2_000
TERMINALS = 600
WEB_SHOPS = 100  # the first terminals are shops without a counter
PURCHASES_A_DAY = 0.55  # of one card
REPORTED = 0.93  # share of frauds that somebody notices
MISTAKEN = 0.0005  # share of genuine purchases that are charged back, until the customer remembers
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Purchase(Event, topic="purchases", key="card", id="purchase_id", time="bought_at"):
    """Somebody pays with a card."""

    purchase_id: str
    card: str
    terminal: str
    online: bool
    amount: Annotated[float, msgspec.Meta(gt=0)]
    bought_at: datetime


class Chargeback(Label, topic="chargebacks", key="card", id="purchase_id", time="reported_at"):
    """The bank takes a purchase back as fraud, or finds later that it was none.

    Nobody reports a genuine purchase: after the horizon without a chargeback, that is what it counts as.
    """

    purchase_id: str
    card: str
    fraud: bool
    reported_at: datetime

    @property
    def outcome(self) -> bool:
        """Whether it was fraud."""
        return self.fraud


class Card(NamedTuple):
    """What the owner of a card is used to."""

    name: str
    amount: float  # logarithm of the usual amount
    hour: float  # the usual hour of the day
    terminals: tuple[int, ...]


class Habit(NamedTuple):
    """The owner buys something, and will again."""

    card: Card


class Theft(NamedTuple):
    """Thieves start something, and others will later."""


class Planned(NamedTuple):
    """A thief uses a card."""

    card: Card
    terminal: int
    amount: float


class Report(NamedTuple):
    """The bank says whether a purchase was fraud."""

    purchase_id: str
    card: str
    fraud: bool


Happening = Habit | Theft | Planned | Report


class World:
    """What is going to happen, in a heap by time."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._agenda: list[tuple[int, int, Happening]] = []
        self._planned = 0
        self._bought = 0
        self._cards = [self._new_card(number) for number in range(CARDS)]
        start = ms_of(START)
        for card in self._cards:
            self._plan(self._next_purchase(start, card), Habit(card))
        self._plan(self._next_theft(start), Theft())

    def run(self, purchases: int) -> Iterator[Purchase | Chargeback]:
        """So many purchases, and all the chargebacks that come of them."""
        while self._agenda:
            time_ms, _, happening = heapq.heappop(self._agenda)
            if isinstance(happening, Report):
                yield Chargeback(**happening._asdict(), reported_at=_moment(time_ms))
            elif self._bought >= purchases:
                continue  # only the bank goes on working
            elif isinstance(happening, Theft):
                self._steal(time_ms)
                self._plan(self._next_theft(time_ms), happening)
            elif isinstance(happening, Planned):
                yield self._buy(time_ms, happening.card, happening.terminal, happening.amount, fraud=True)
            else:
                card = happening.card
                amount = self._random.lognormvariate(card.amount, 0.6)
                yield self._buy(time_ms, card, self._terminal(card), amount, fraud=False)
                self._plan(self._next_purchase(time_ms, card), happening)

    def _plan(self, time_ms: int, happening: Happening) -> None:
        self._planned += 1  # settles what happens first at the same millisecond, in the order it was planned
        heapq.heappush(self._agenda, (time_ms, self._planned, happening))

    def _new_card(self, number: int) -> Card:
        random = self._random
        terminals = tuple(random.randrange(TERMINALS) for _ in range(5))
        return Card(f"C{number:04d}", random.gauss(3.3, 0.6), random.gauss(15.0, 3.0) % 24, terminals)

    def _next_purchase(self, time_ms: int, card: Card) -> int:
        """A Poisson process whose rate follows the hour of the day: of a denser one, some times are left out."""
        while True:
            time_ms += self._gap(3 * PURCHASES_A_DAY)
            away = abs((time_ms % DAY) / HOUR - card.hour)
            away = min(away, 24 - away)
            if self._random.random() < 0.03 + 0.97 * math.exp(-((away / 4.4) ** 2)):
                return time_ms

    def _next_theft(self, time_ms: int) -> int:
        return time_ms + self._gap(2.5)

    def _gap(self, times_a_day: float) -> int:
        return 1 + int(self._random.expovariate(times_a_day) * DAY)

    def _terminal(self, card: Card) -> int:
        """Mostly one that the card knows, the first ones most."""
        if self._random.random() < 0.15:
            return self._random.randrange(TERMINALS)
        return card.terminals[min(int(self._random.expovariate(0.7)), len(card.terminals) - 1)]

    def _buy(self, time_ms: int, card: Card, terminal: int, amount: float, *, fraud: bool) -> Purchase:
        self._bought += 1
        purchase_id = f"P{self._bought:07d}"
        self._plan_report(time_ms, purchase_id, card, fraud=fraud)
        return Purchase(
            purchase_id=purchase_id,
            card=card.name,
            terminal=f"T{terminal:03d}",
            online=terminal < WEB_SHOPS,
            amount=max(round(amount, 2), 0.5),
            bought_at=_moment(time_ms),
        )

    def _plan_report(self, time_ms: int, purchase_id: str, card: Card, *, fraud: bool) -> None:
        """Fraud is noticed days later, or never; what is taken for fraud by mistake is put right later still."""
        noticed = time_ms + int(self._random.lognormvariate(0.7, 0.6) * DAY)
        if self._random.random() < (REPORTED if fraud else MISTAKEN):
            self._plan(noticed, Report(purchase_id, card.name, True))
            if not fraud:
                self._plan(noticed + 2 * DAY, Report(purchase_id, card.name, False))

    def _steal(self, time_ms: int) -> None:
        """One of three ways; which is the usual one changes at `CHANGES`."""
        ways = (self._spend_fast, self._try_out, self._copy_at_a_terminal)
        era = sum(time_ms >= ms_of(change) for change in CHANGES)
        usual = self._random.random() < 0.85
        ways[era if usual else self._random.randrange(3)](time_ms)

    def _spend_fast(self, time_ms: int) -> None:
        """A stolen card is good for a few hours, so it buys much, anywhere."""
        card = self._random.choice(self._cards)
        for _ in range(self._random.randint(4, 9)):
            time_ms += self._minutes(5, 40)
            amount = math.exp(card.amount) * self._random.uniform(2.0, 7.0)
            self._plan(time_ms, Planned(card, self._random.randrange(WEB_SHOPS, TERMINALS), amount))

    def _try_out(self, time_ms: int) -> None:
        """A stolen number is tried with small sums at web shops; one that works buys something dear."""
        card = self._random.choice(self._cards)
        for _ in range(self._random.randint(3, 6)):
            time_ms += self._minutes(1, 5)
            self._plan(time_ms, Planned(card, self._random.randrange(WEB_SHOPS), self._random.uniform(0.5, 2.5)))
        time_ms += self._minutes(10, 60)
        self._plan(time_ms, Planned(card, self._random.randrange(WEB_SHOPS), self._random.uniform(40.0, 180.0)))

    def _copy_at_a_terminal(self, time_ms: int) -> None:
        """Copies of many cards are used once each, for ordinary sums, at one terminal within an hour or two."""
        terminal = self._random.randrange(WEB_SHOPS, TERMINALS)
        for _ in range(self._random.randint(5, 10)):
            time_ms += self._minutes(2, 15)
            self._plan(time_ms, Planned(self._random.choice(self._cards), terminal, self._random.uniform(15.0, 60.0)))

    def _minutes(self, least: int, most: int) -> int:
        return self._random.randint(least * MINUTE, most * MINUTE)


def history(purchases: int = PURCHASES, seed: int = 7) -> Iterator[Purchase | Chargeback]:
    """Purchases and chargebacks, each when it happened. The same seed gives the same ones, and a longer history."""
    return World(seed).run(purchases)


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(milliseconds=time_ms % 1000)


def log_amount(purchase: Purchase) -> float:
    """Sums of money spread over orders of magnitude, which a linear model cannot weigh."""
    return math.log(purchase.amount)


def model() -> Any:
    """A logistic regression that starts from one fraud in fifty and learns slowly.

    For the first week only chargebacks come, and from nothing but those a fast one learns that everything is fraud.
    """
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.003), intercept_init=-4.0)


card_fraud = Pipeline(
    name="card_fraud",
    description="Is this purchase made with a stolen card?",
    event=Purchase,
    label=Chargeback,
    horizon=timedelta(days=7),
    expired="negative",
    features=[
        field("amount"),
        function("log_amount", log_amount),
        hour_of_day("bought_at"),
        field("online"),
        count("10m", "1h", "1d"),
        total("amount", "1h", "1d"),
        mean("amount", "7d"),
        std("amount", "7d"),
        minimum("amount", "1h"),
        distinct("terminal", "1h", "1d"),
        since_last(),
        count("1h", "7d", by="terminal", local=True),
        mean("amount", "1h", by="terminal", local=True),
    ],
    model=model,
    drift=[on_loss(), on_prediction(), on_feature("log_amount")],
    threshold=0.2,
    source=history,
)
