"""The whole loop on a real Kafka with real flights: each event predicted once, each label learned once, all of it
reproducible to the last bit, whatever is done to the workers."""

import asyncio
import collections
import itertools
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from learning.negatives import corrected, is_kept
from learning.quality import measure
from learning.records import Control, Example, Prediction, Resolved, decode_log
from learning.reports import Report
from pipelines.card_fraud import Purchase
from pipelines.flights import Departure, history
from tests.chaos.items import labels_of
from tests.chaos.run import Run
from tests.folds import fold
from tests.integration import cards_run, flights_run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Run]:
    made = Run(kafka, tmp_path)
    yield made
    made.end()


def resolved(value: bytes) -> Resolved:
    """A record of the training log, of a run whose log has no control records."""
    record = decode_log(value)
    assert not isinstance(record, Control)
    return record


async def fed_through_a_kill(run: Run, items: list[Any], **settings: str) -> tuple[set[str], set[str]]:
    """Have a worker killed while the items come and another one do the rest; the ids of events and of labels."""
    await run.prepare()
    producing = asyncio.create_task(run.produce(items, seconds=8))
    worker = run.start(**settings)
    await asyncio.sleep(7)
    worker.kill()
    run.start(**settings)
    await producing
    events = {item.flight_id for item in items if isinstance(item, Departure)}
    labels = {item.flight_id for item in labels_of(items)}
    await run.until(len(events), len(labels))
    return events, labels


def test_an_uninterrupted_worker_agrees_with_the_backtest_to_the_last_bit(run: Run, year: list[Any]) -> None:
    async def scenario() -> None:
        await run.prepare()
        await run.produce(year)
        worker = run.start()
        assert (await run.assert_all_true(year)).drifts
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0, run.last_words()

    asyncio.run(scenario())


def test_a_share_of_the_negatives_is_learned_and_all_of_them_count(kafka: str, tmp_path: Path) -> None:
    """Predictions are, to the last bit, what the log makes again; and quality is over every example of it."""
    share = 0.25
    run = Run(kafka, tmp_path, lambda name: flights_run.named(name, negatives=share, baseline_examples=500))
    items = list(itertools.islice(history(), 5_000))
    waiting = {item.flight_id for item in items if isinstance(item, Departure)}
    items = [item for item in items if isinstance(item, Departure) or item.flight_id in waiting]

    async def scenario() -> None:
        await run.prepare()
        half = len(items) // 2
        await run.produce(items[:half])
        run.start("flights_run:sampled")
        await run.until(sum(isinstance(i, Departure) for i in items[:half]), len(labels_of(items[:half])))
        await run.produce(items[half:])  # predicted by a model that has learned
        seen = await run.assert_all_true(items)
        examples = [record for _, record in seen.log if isinstance(record, Example)]
        assert len(examples) == len(labels_of(items)) > 2_000
        for example in examples:
            assert example.kept == (example.outcome is True or is_kept(example.id, share))
        learned = [(offset, record) for offset, record in seen.log if isinstance(record, Example) and record.kept]
        assert len(learned) < 0.6 * len(examples)
        plain = fold(flights_run.named("plain", baseline_examples=500), learned, seen.log[-1][0] + 1)
        *_, (_, last) = sorted(seen.predictions, key=lambda made: made[1].version)
        vector = last.features
        whole = fold(run.pipeline, seen.log, seen.log[-1][0] + 1)
        assert whole.predict(vector) == corrected(float(str(plain.predict(vector))), share)
        report = await reported(run, len(examples))
        assert report.quality["total"].keys() >= {"log_loss", "roc_auc"}
        pairs = [(example.prediction, example.outcome) for example in examples]
        assert report.quality["total"]["log_loss"] == pytest.approx(measure("binary", 0.5, pairs)["log_loss"])
        assert report.quality["frozen"].keys() == report.quality["since_frozen"].keys() > set()

    try:
        asyncio.run(scenario())
    finally:
        run.end()


async def reported(run: Run, examples: int) -> Report:
    """The first report that counts so many examples, which comes within seconds."""
    for _ in range(60):
        for record in await run.read(run.pipeline.reports_topic):
            report = msgspec.json.decode(record.value, type=Report)
            if report.examples == examples:
                return report
        await asyncio.sleep(0.5)
    message = f"no report counts {examples} examples"
    raise AssertionError(message)


def test_workers_that_watch_take_over_from_those_that_did_all(run: Run, year: list[Any]) -> None:
    """Beside one that does all they are refused; after it they go on where it was, in groups of their own."""
    half = 3_000

    async def scenario() -> None:
        await run.prepare()
        await run.produce(year[:half])
        whole = run.start(HEADWATER_ROLE="all")
        await run.until(1_000, 500)
        early = run.start(HEADWATER_ROLE="watch")
        assert await run.ended(early) != 0
        assert "HEADWATER_ROLE=watch, and 1 of role `all` run" in run.said(early)
        run.send(whole, signal.SIGTERM)
        assert await run.ended(whole) == 0, run.last_words()
        run.start(HEADWATER_ROLE="serve")
        run.start(HEADWATER_ROLE="watch")
        await run.produce(year[half : 2 * half])
        await run.assert_all_true(year[: 2 * half])

    asyncio.run(scenario())


def test_immediate_predictions_are_all_there_after_a_kill(run: Run, year: list[Any]) -> None:
    """They may repeat under the same id; none is missing, and learning is still exactly once."""
    items = year[:8_000]

    async def scenario() -> None:
        events, labels = await fed_through_a_kill(run, items, HEADWATER_PREDICTIONS="immediate")
        made = [msgspec.json.decode(r.value, type=Prediction) for r in await run.read(run.pipeline.predictions_topic)]
        assert {p.id for p in made} == events
        learned = [resolved(r.value).id for r in await run.read(run.pipeline.training_log_topic)]
        assert sorted(learned) == sorted(labels)

    asyncio.run(scenario())


def test_at_least_once_misses_nothing(run: Run, year: list[Any]) -> None:
    items = year[:8_000]

    async def scenario() -> None:
        events, labels = await fed_through_a_kill(run, items, HEADWATER_GUARANTEE="at_least_once")
        made = [msgspec.json.decode(r.value, type=Prediction) for r in await run.read(run.pipeline.predictions_topic)]
        assert {p.id for p in made} == events
        assert {resolved(r.value).id for r in await run.read(run.pipeline.training_log_topic)} == labels

    asyncio.run(scenario())


def test_waits_that_are_over_expire_and_nothing_else_does(run: Run, year: list[Any]) -> None:
    """At full speed, days of event time pass in a moment; labels that are only unread must not be given up."""
    items = list(itertools.islice(year, 12_000))
    unlabelled = [i for i in items if not isinstance(i, Departure)][::10]
    dropped = {item.flight_id for item in unlabelled}
    items = [i for i in items if isinstance(i, Departure) or i.flight_id not in dropped]

    async def scenario() -> None:
        await run.prepare()
        await run.produce(items)
        run.start()
        labels = labels_of(items)
        await run.until(len(items) - len(labels), len(labels))
        await asyncio.sleep(8)  # the waits that are over are ended when it is known that no label is unread
        log = await run.read(run.pipeline.training_log_topic)
        assert sorted(resolved(r.value).id for r in log) == sorted(i.flight_id for i in labels)
        pending = {record.key: record.value for record in await run.read(f"{run.config.app_id}-pending-changelog")}
        newest = max(i.departed_at for i in items if isinstance(i, Departure))
        over = {
            i.flight_id
            for i in items
            if isinstance(i, Departure) and i.flight_id in dropped and newest - i.departed_at > 2 * run.pipeline.horizon
        }
        assert len(over) > 50
        states = {key.decode(): value[1:2] if value else b"" for key, value in pending.items()}
        assert {states.get(name) for name in over} <= {b"e", b""}, "waits that were over were not ended"

    asyncio.run(scenario())


def test_silence_within_the_horizon_is_learned_as_genuine(kafka: str, tmp_path: Path) -> None:
    """Purchases of thousands of cards, few of them ever labelled: what expires teaches, once, and not too early."""
    run = Run(kafka, tmp_path, cards_run.named)
    assert run.pipeline.source is not None
    items = list(itertools.islice(run.pipeline.source(), 15_000))
    purchases = {i.purchase_id: i for i in items if isinstance(i, Purchase)}
    reported = {i.purchase_id for i in items if not isinstance(i, Purchase)}
    newest = max(p.bought_at for p in purchases.values())
    # Each partition has its own clock, so near the end of the stream some waits are over in one and not in another.
    over = {
        name
        for name, p in purchases.items()
        if newest - p.bought_at > run.pipeline.horizon + timedelta(hours=2) and name not in reported
    }

    async def scenario() -> None:
        await run.prepare()
        await run.produce(items)
        run.start("cards_run:pipeline")
        await run.until(len(purchases), len(over))
        for _ in range(30):
            log = [decode_log(r.value) for r in await run.read(run.pipeline.training_log_topic)]
            silent = [r for r in log if isinstance(r, Example) and r.source == "expiry"]
            names = collections.Counter(r.id for r in silent)
            if over <= set(names):
                break
            await asyncio.sleep(1)
        assert over - set(names) == set(), "waits that were over were not ended"
        assert max(names.values()) == 1
        assert set(names) & {r.id for r in log if isinstance(r, Example) and r.source == "label"} == set()
        for record in silent:
            assert record.outcome is False
            assert newest - purchases[record.id].bought_at >= run.pipeline.horizon, "a wait was ended too early"

    try:
        asyncio.run(scenario())
    finally:
        run.end()
