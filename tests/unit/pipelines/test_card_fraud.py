"""The made-up world of card fraud: the same every time, in order, with thieves that change their ways."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import timedelta
from itertools import islice, pairwise

import pytest

from learning.backtest import backtest
from pipelines.card_fraud import CHANGES, PURCHASES, START, Chargeback, Purchase, card_fraud, history

Items = list[Purchase | Chargeback]


@pytest.fixture(scope="module")
def items() -> Items:
    """The whole history."""
    return list(history())


def purchases_of(items: Iterable[Purchase | Chargeback]) -> dict[str, Purchase]:
    return {item.purchase_id: item for item in items if isinstance(item, Purchase)}


def frauds_of(items: Items) -> list[Purchase]:
    """The purchases whose last word was fraud."""
    bought = purchases_of(items)
    said = {item.purchase_id: item.fraud for item in items if isinstance(item, Chargeback)}
    return [bought[name] for name, fraud in said.items() if fraud]


def time_of(item: Purchase | Chargeback) -> int:
    return card_fraud.events.time_of(item) if isinstance(item, Purchase) else card_fraud.labels.time_of(item)


def test_history_is_in_time_order_and_of_the_length_asked_for(items: Items) -> None:
    assert len(purchases_of(items)) == PURCHASES
    assert all(time_of(a) <= time_of(b) for a, b in pairwise(items))
    assert isinstance(items[0], Purchase)
    assert START < items[0].bought_at < START + timedelta(hours=1)


def test_same_seed_same_history_another_seed_another(items: Items) -> None:
    assert list(islice(history(), 5_000)) == items[:5_000]
    assert list(islice(history(seed=8), 100)) != items[:100]


def test_longer_history_begins_with_the_shorter(items: Items) -> None:
    short = purchases_of(history(300))
    assert list(short.values()) == list(purchases_of(items).values())[:300]


def test_history_is_lazy() -> None:
    assert len(list(islice(history(10**12), 1_000))) == 1_000


def test_every_chargeback_comes_days_after_its_purchase_on_the_same_card(items: Items) -> None:
    bought = purchases_of(items)
    delays = []
    for item in items:
        if isinstance(item, Chargeback):
            assert bought[item.purchase_id].card == item.card
            delays.append(item.reported_at - bought[item.purchase_id].bought_at)
    assert min(delays) > timedelta(hours=2)
    assert timedelta(days=1) < sorted(delays)[len(delays) // 2] < timedelta(days=4)
    assert sum(delay > timedelta(days=7) for delay in delays) > 10  # some come after the horizon


def test_fraud_is_rare(items: Items) -> None:
    assert 0.01 < len(frauds_of(items)) / PURCHASES < 0.02


def test_some_chargebacks_were_a_mistake(items: Items) -> None:
    said = defaultdict(list)
    for item in items:
        if isinstance(item, Chargeback):
            said[item.purchase_id].append(item)
    assert {tuple(item.fraud for item in items) for items in said.values()} == {(True,), (True, False)}
    settled = [last.reported_at - first.reported_at for first, *rest in said.values() for last in rest]
    assert len(settled) > 20
    assert set(settled) == {timedelta(days=2)}


def test_thieves_change_their_ways(items: Items) -> None:
    tiny: Counter[int] = Counter()
    in_shops: Counter[int] = Counter()
    bursts: Counter[tuple[int, str]] = Counter()
    total: Counter[int] = Counter()
    for purchase in frauds_of(items):
        era = sum(purchase.bought_at >= change for change in CHANGES)
        total[era] += 1
        tiny[era] += purchase.amount < 3
        in_shops[era] += not purchase.online
        bursts[era, f"{purchase.terminal} {purchase.bought_at:%m-%d}"] += 1
    assert tiny[0] / total[0] < 0.2
    assert tiny[1] / total[1] > 0.5
    assert in_shops[0] / total[0] > 0.7
    assert in_shops[1] / total[1] < 0.4
    together = Counter[int]()
    for (era, _), number in bursts.items():
        together[era] += number if number >= 4 else 0
    assert together[0] / total[0] < 0.3
    assert together[2] / total[2] > 0.6


def test_silence_is_learned_as_genuine() -> None:
    result = backtest(card_fraud, history(40_000))
    assert result.predictions == result.events == 40_000
    assert result.dead_letters == result.model_errors == result.late_events == 0
    assert result.expired > 30_000
    assert result.examples == result.matched + result.expired
    assert result.metrics["roc_auc"] > 0.8
    assert result.metrics["log_loss"] < result.baselines["base_rate"]["log_loss"]
