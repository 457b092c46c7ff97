"""The whole loop on a real Kafka with real flights: each event predicted once, each label learned once, all of it
reproducible to the last bit, whatever is done to the workers."""

import asyncio
import collections
import itertools
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.worker import prepared
from learning.backtest import backtest
from learning.learn import Learner
from learning.records import Control, DriftEvent, Example, Prediction, Resolved, decode_log
from learning.watch import Watch
from pipelines.card_fraud import Purchase
from pipelines.definition import Pipeline
from pipelines.flights import Departure, history
from streaming.config import EngineConfig
from tests.folds import advance
from tests.integration import cards_run
from tests.integration.flights_run import named
from tests.kafka import committed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

EVENTS = 20_000
PARTITIONS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def year() -> list[Any]:
    """The first 20,000 departures, and the arrivals that come within a day after the last of them, in time order."""
    departed: set[str] = set()
    items: list[Any] = []
    for item in history():
        if isinstance(item, Departure):
            if len(departed) < EVENTS:
                departed.add(item.flight_id)
                items.append(item)
        elif item.flight_id in departed:
            items.append(item)
        if len(items) >= 2 * EVENTS - 200 and len(departed) == EVENTS:
            break
    return items


class Run:
    """Topics, workers and what they wrote, for one test."""

    def __init__(self, kafka: str, logs: Path, make: Callable[[str], Pipeline] = named) -> None:
        self.name = f"r{uuid.uuid4().hex[:8]}"
        self.pipeline = make(self.name)
        self.config = EngineConfig(bootstrap=kafka, app_id=f"headwater-{self.name}", partitions=PARTITIONS)
        self.workers: list[subprocess.Popen[bytes]] = []
        self._logs = logs

    async def prepare(self) -> None:
        assert await prepared(self.pipeline, self.config) == PARTITIONS

    def start(self, pipeline: str = "flights_run:pipeline", **settings: str) -> "subprocess.Popen[bytes]":
        environment = {
            "HEADWATER_BROKER": self.config.bootstrap,
            "HEADWATER_PIPELINE": f"tests.integration.{pipeline}",
            "HEADWATER_TEST_RUN": self.name,
            "HEADWATER_SESSION_TIMEOUT": "6",
            "HEADWATER_WEB_PORT": "0",
            **settings,
        }
        with self.log(len(self.workers)).open("wb") as out:
            worker = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "worker"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=out,
                stderr=out,
            )
        self.workers.append(worker)
        return worker

    def log(self, number: int) -> Path:
        return self._logs / f"worker-{number}.log"

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    async def produce(self, items: list[Any], *, seconds: float = 0.0) -> None:
        """Write the items in order, spread over so many seconds."""
        producer = AIOKafkaProducer(bootstrap_servers=self.config.bootstrap, linger_ms=5)
        await producer.start()
        pauses = max(1, len(items) // 500)
        for number, item in enumerate(items):
            stream = self.pipeline.events if isinstance(item, Departure | Purchase) else self.pipeline.labels
            value, key = stream.encode(item), stream.key_of(item).encode()
            await producer.send(stream.topic, value, key, timestamp_ms=stream.time_of(item))
            if number % 500 == 499:
                await asyncio.sleep(seconds / pauses)
        await producer.stop()

    async def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic, in offset order within each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.config.bootstrap, isolation_level="read_committed")
        await consumer.start()
        try:
            await consumer._client.force_metadata_update()
            numbers = consumer.partitions_for_topic(topic) or await self._partitions(consumer, topic)
            return await committed(consumer, topic, sorted(numbers))
        finally:
            await consumer.stop()

    async def _partitions(self, consumer: Any, topic: str) -> set[int]:
        await consumer.topics()
        numbers: set[int] = consumer.partitions_for_topic(topic) or {0}
        return numbers

    async def until(self, predictions: int, examples: int, *, patience: float = 90.0) -> None:
        """Wait until there is so much, or time is over; what is missing then is for the assertions to say."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            made = len(await self.read(self.pipeline.predictions_topic))
            learned = len(await self.read(self.pipeline.training_log_topic))
            if made >= predictions and learned >= examples:
                return
            assert any(worker.poll() is None for worker in self.workers), self.last_words()
            await asyncio.sleep(1.0)

    def last_words(self) -> str:
        return "\n".join(self.log(n).read_text(errors="replace")[-3000:] for n in range(len(self.workers)))


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


def labels_of(items: list[Any]) -> list[Any]:
    return [item for item in items if not isinstance(item, Departure)]


async def assert_all_true(run: Run, items: list[Any]) -> list[Prediction]:
    """Everything that is promised under exactly_once, from what a reader of committed records sees."""
    made = await run.read(run.pipeline.predictions_topic)
    log = await run.read(run.pipeline.training_log_topic)
    predictions = [msgspec.json.decode(record.value, type=Prediction) for record in made]
    lessons = [(record.offset, resolved(record.value)) for record in log]

    events = [item.flight_id for item in items if isinstance(item, Departure)]
    counted = collections.Counter(p.id for p in predictions)
    assert set(events) - set(counted) == set(), "events lost"
    assert [name for name, n in counted.items() if n > 1] == [], "events predicted twice"
    assert set(counted) - set(events) == set(), "predictions of no event"

    learned = collections.Counter(record.id for _, record in lessons)
    labelled = {item.flight_id for item in labels_of(items)}
    assert labelled - set(learned) == set(), "labels lost"
    assert [name for name, n in learned.items() if n > 1] == [], "labels learned twice"
    assert set(learned) - labelled == set(), "lessons of no label"

    for number in range(PARTITIONS):
        versions = [p.version for p, r in zip(predictions, made, strict=True) if r.partition == number]
        assert versions == sorted(versions), "a model version decreased"

    assert_reproducible(run.pipeline, predictions, lessons)
    by_id = {p.id: p for p in predictions}
    for _, record in lessons:
        assert isinstance(record, Example)
        origin = by_id[record.id]
        assert (record.features, record.prediction, record.version) == (
            origin.features,
            origin.prediction,
            origin.version,
        )
    await assert_watched(run, lessons)
    return predictions


def assert_reproducible(pipeline: Pipeline, predictions: list[Prediction], lessons: list[tuple[int, Any]]) -> None:
    """Replay the log to each prediction's version and ask again: the same number, to the last bit."""
    learner, waiting = Learner(pipeline), iter(lessons)
    ahead = next(waiting, None)
    for prediction in sorted(predictions, key=lambda p: p.version):
        while ahead is not None and ahead[0] < prediction.version:
            advance(pipeline, learner, lessons, *ahead)
            ahead = next(waiting, None)
        assert learner.predict(prediction.features) == prediction.prediction, prediction.id


async def assert_watched(run: Run, lessons: list[tuple[int, Any]], *, drifting: bool = True) -> None:
    """Drift events and quality are those of one pass over the log, each once, whoever owned it when."""
    pipeline, learner = run.pipeline, Learner(run.pipeline)
    watch, expected = Watch(pipeline), []
    for offset, record in lessons:
        if isinstance(record, Example):
            frozen = learner.predict_frozen(record.features)
            expected += watch.observe(offset, record, frozen)
        advance(pipeline, learner, lessons, offset, record)
    assert learner.frozen is not None
    monitors = f"{run.config.app_id}-monitors-changelog"
    for _ in range(60):
        saved = [Watch.load(pipeline, record.value) for record in await run.read(monitors)]
        if saved and saved[-1].offset >= watch.offset:
            break
        await asyncio.sleep(0.5)
    assert saved[-1].offset == watch.offset, "the log is not watched to its end"
    assert saved[-1].report() == watch.report()
    drifts = [msgspec.json.decode(r.value, type=DriftEvent) for r in await run.read(pipeline.drift_topic)]
    assert len(expected) > 0 or not drifting
    assert drifts == expected


def assert_as_backtest(pipeline: Pipeline, items: list[Any], predictions: list[Prediction]) -> None:
    """The vectors are those of a run without Kafka, bit for bit."""
    vectors: dict[str, list[float]] = {}
    structs = {Departure: pipeline.events.struct}
    own = (
        msgspec.convert(msgspec.to_builtins(i), structs.get(type(i), pipeline.labels.struct), strict=False)
        for i in items
    )
    backtest(pipeline, own, on_prediction=lambda p: vectors.update({p.id: p.features}))
    assert {p.id: p.features for p in predictions} == vectors


def test_an_uninterrupted_worker_agrees_with_the_backtest_to_the_last_bit(run: Run, year: list[Any]) -> None:
    async def scenario() -> None:
        await run.prepare()
        await run.produce(year)
        worker = run.start()
        await run.until(EVENTS, len(labels_of(year)))
        assert_as_backtest(run.pipeline, year, await assert_all_true(run, year))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0, run.last_words()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ended_while_busy_loses_nothing_and_repeats_nothing(
    run: Run, year: list[Any], how: signal.Signals
) -> None:
    chance = random.Random(11)

    async def scenario() -> None:
        await run.prepare()
        producing = asyncio.create_task(run.produce(year, seconds=20))
        for _ in range(2):
            worker = run.start()
            await asyncio.sleep(chance.uniform(8.0, 11.0))
            worker.send_signal(how)
            worker.wait(40)
        run.start()
        await producing
        await run.until(EVENTS, len(labels_of(year)))
        assert_as_backtest(run.pipeline, year, await assert_all_true(run, year))

    asyncio.run(scenario())


def test_two_workers_then_one_then_two(run: Run, year: list[Any]) -> None:
    async def scenario() -> None:
        await run.prepare()
        producing = asyncio.create_task(run.produce(year, seconds=30))
        first, second = run.start(), run.start()
        await asyncio.sleep(14)
        first.send_signal(signal.SIGTERM)
        await asyncio.sleep(7)
        run.start()
        await producing
        await run.until(EVENTS, len(labels_of(year)))
        assert second.poll() is None, run.last_words()
        assert_as_backtest(run.pipeline, year, await assert_all_true(run, year))

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
