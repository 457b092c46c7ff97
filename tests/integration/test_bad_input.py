"""What cannot be used goes to the dead letters as it came; everything else goes on."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from app.children import free_port
from app.metrics import parse
from learning.records import Prediction
from tests.chaos.run import Run
from tests.integration.test_loop import resolved

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

NOON = 1_357_041_600_000  # 2013-01-01T12:00:00Z
GOOD: dict[str, Any] = {
    "flight_id": "good",
    "origin": "JFK",
    "destination": "LAX",
    "carrier": "AA",
    "departed_at": "2013-01-01T12:00:00Z",
    "departure_delay": 3.0,
    "distance": 2475.0,
}


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Run]:
    made = Run(kafka, tmp_path)
    yield made
    made.end()


def event(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not None}).encode()


def label(name: str, delay: float = 20.0, at: str = "2013-01-01T18:00:00Z") -> bytes:
    row = {"flight_id": name, "origin": "JFK", "arrived_at": at, "arrival_delay": delay}
    return json.dumps(row).encode()


BAD: list[tuple[str, bytes | None, bytes | None]] = [
    ("malformed", b"JFK", b'{"flight_id": '),
    ("malformed", b"JFK", b"\xff\xfe\x00"),
    ("malformed", b"JFK", event().replace(b"3.0", b"NaN")),
    ("malformed", b"JFK", event().replace(b"3.0", b"Infinity")),
    ("invalid", b"JFK", b"[]"),
    ("invalid", b"JFK", event(departure_delay="three")),
    ("invalid", b"JFK", event(distance=None)),
    ("invalid", b"JFK", event(flight_id="")),
    ("empty_value", b"JFK", b""),
    ("empty_value", b"JFK", None),
    ("missing_key", None, event(flight_id="keyless")),
    ("key_mismatch", b"LGA", event(flight_id="elsewhere")),
    ("time_too_old", b"JFK", event(flight_id="old", departed_at="1969-12-31T23:59:59Z")),
    ("time_ahead", b"JFK", event(flight_id="ahead", departed_at="2031-01-01T00:00:00Z")),
    ("too_large", b"JFK", event(flight_id="large", padding="x" * 1_020_000)),
    ("feature_error", b"JFK", event(flight_id="careless", destination="BAD")),
]
PARTITION = 1  # any will do; the worker takes a record where it finds it


async def send(run: Run, topic: str, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=run.config.bootstrap, max_request_size=4_000_000)
    await producer.start()
    for key, value in records:
        await producer.send_and_wait(
            topic, value, key, partition=PARTITION, timestamp_ms=NOON, headers=[("trace", b"t1")]
        )
    await producer.stop()


async def samples_when(url: str, name: str, value: float) -> dict[str, float]:
    """The worker's metrics, once one of them has this value."""
    found: dict[str, float] = {}
    for _ in range(60):
        await asyncio.sleep(0.5)
        try:
            found = dict(parse(await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())))
        except OSError:
            continue
        if found.get(name) == value:
            return found
    return found


def test_bad_events_are_dead_letters_and_good_ones_are_predicted(run: Run) -> None:
    departures, arrivals = run.pipeline.events.topic, run.pipeline.labels.topic
    good = [
        (b"JFK", event()),
        (b"JFK", event(flight_id="extended", unknown={"field": [1]})),
        (b"JFK", event()),  # seen before
    ]
    mixed = [good[0], *[(key, value) for _, key, value in BAD], *good[1:]]
    port = free_port()

    async def scenario() -> None:
        await run.prepare()
        await send(run, departures, mixed)
        worker = run.start("flights_run:careless", HEADWATER_WEB_PORT=str(port), HEADWATER_DEAD_LETTER_LIMIT="1")
        url = f"http://127.0.0.1:{port}/metrics"
        seen = await samples_when(url, "events_total", len(mixed))
        assert seen["events_total"] == len(mixed), run.last_words()
        assert seen["predictions_total"] == 2
        assert seen["duplicate_events_total"] == 1
        for reason in {reason for reason, _, _ in BAD}:
            count = sum(reason == other for other, _, _ in BAD)
            assert seen[f'dead_letters_total{{reason="{reason}"}}'] == count, reason
        # Its time was years ahead; had it counted, nobody's label would be waited for any more.
        await send(run, arrivals, [(b"JFK", label("good")), (b"JFK", b"{"), (b"JFK", label("extended", delay=1.0))])
        await run.until(2, 2, patience=20)
        assert worker.poll() is None, run.last_words()

        made = [msgspec.json.decode(r.value, type=Prediction) for r in await run.read(run.pipeline.predictions_topic)]
        assert [p.id for p in made] == ["good", "extended"]
        lessons = [resolved(r.value) for r in await run.read(run.pipeline.training_log_topic)]
        assert [(lesson.id, lesson.outcome) for lesson in lessons] == [("good", True), ("extended", False)]
        letters = await run.read(run.pipeline.dead_letters_topic)
        assert len(letters) == len(BAD) + 1
        for offset, (letter, (reason, key, value)) in enumerate(zip(letters, BAD, strict=False), 1):
            headers = dict(letter.headers)
            assert headers["reason"].decode() == reason
            assert (letter.key, letter.value) == (key, value)
            assert headers["topic"].decode() == departures
            assert int(headers["partition"]) == PARTITION == letter.partition
            assert int(headers["offset"]) == offset
            assert headers["original-trace"] == b"t1"
        assert b"KeyError: 'no such airport'" in dict(letters[len(BAD) - 1].headers)["traceback"]
        assert dict(letters[-1].headers)["topic"].decode() == arrivals

    asyncio.run(scenario())


def test_what_a_producer_has_taken_back_is_neither_predicted_nor_watched(run: Run) -> None:
    """Events of an aborted transaction never were. The consumer once read them, and lessons that a dead worker left."""

    async def scenario() -> None:
        await run.prepare()
        producer = AIOKafkaProducer(bootstrap_servers=run.config.bootstrap, transactional_id=f"{run.name}-user")
        await producer.start()
        topic = run.pipeline.events.topic
        for number in range(3):
            with contextlib.suppress(ZeroDivisionError):
                async with producer.transaction():
                    for name in (f"taken-back-{number}a", f"taken-back-{number}b"):
                        await producer.send_and_wait(topic, event(flight_id=name), b"JFK", PARTITION, NOON)
                    raise ZeroDivisionError
            async with producer.transaction():
                await producer.send_and_wait(topic, event(flight_id=f"kept-{number}"), b"JFK", PARTITION, NOON)
        await producer.stop()
        port = free_port()
        run.start(HEADWATER_WEB_PORT=str(port))
        await samples_when(f"http://127.0.0.1:{port}/metrics", "predictions_total", 3.0)
        await run.until(3, 0, patience=10)
        made = [msgspec.json.decode(r.value, type=Prediction) for r in await run.read(run.pipeline.predictions_topic)]
        assert [p.id for p in made] == ["kept-0", "kept-1", "kept-2"]

    asyncio.run(scenario())


def test_a_model_that_raises_is_reported_and_passed_over(run: Run) -> None:
    events = [
        (b"JFK", event(flight_id="unpredictable", distance=666.0)),
        (b"JFK", event(flight_id="unlearnable", distance=667.0)),
        (b"JFK", event()),
    ]

    async def scenario() -> None:
        await run.prepare()
        await send(run, run.pipeline.events.topic, events)
        await send(run, run.pipeline.labels.topic, [(b"JFK", label("unlearnable")), (b"JFK", label("good"))])
        worker = run.start("flights_run:fragile")
        await run.until(2, 2, patience=30)
        letters = await run.there(run.pipeline.dead_letters_topic, 2)
        assert worker.poll() is None, run.last_words()
        found = {dict(r.headers)["topic"].decode(): dict(r.headers) for r in letters}
        assert set(found) == {run.pipeline.events.topic, run.pipeline.training_log_topic}
        assert {h["reason"] for h in found.values()} == {b"model_error"}
        assert b"cannot predict this" in found[run.pipeline.events.topic]["traceback"]
        assert b"cannot learn this" in found[run.pipeline.training_log_topic]["traceback"]

    asyncio.run(scenario())


def test_a_definition_that_fails_on_everything_stops_the_worker_with_a_message(run: Run) -> None:
    async def scenario() -> None:
        await run.prepare()
        await send(run, run.pipeline.events.topic, [(b"JFK", event(flight_id=f"f{i}")) for i in range(150)])
        worker = run.start("flights_run:wrong")
        assert await asyncio.to_thread(worker.wait, 60) != 0
        words = run.last_words()
        assert "100% of the last" in words
        assert "so the definition of" in words
        assert "no_such_field" in words

    asyncio.run(scenario())
