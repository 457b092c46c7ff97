"""Nothing waits for a broker without end: the pieces, without a broker."""

import asyncio
import time
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streaming import engine as engine_room
from streaming.checkpoint import TransactionalWriter
from streaming.config import EngineConfig
from streaming.engine import Engine, Owned
from streaming.errors import CheckpointError, EngineError
from streaming.follower import Follower, Lesson
from streaming.reading import read_up_to
from streaming.telemetry import NullMetrics
from streaming.unit import Unit

TP = TopicPartition("events", 0)
CONFIG = EngineConfig(bootstrap="nowhere:1", app_id="app", request_timeout=0.2)


class Away:
    """A producer whose broker is away: nothing it is asked for ever ends."""

    async def stop(self) -> None:
        await asyncio.Event().wait()

    start = begin_transaction = stop


async def fatal(error: BaseException) -> None:
    raise AssertionError from error


def engine_with(units: int) -> Engine:
    engine = Engine(CONFIG, log_topic="log", metrics=NullMetrics(), fatal=fatal)
    for number in range(units):
        tp = TopicPartition("events", number)
        unit = Unit("events", number, {}, {tp: 0})
        unit.mark(tp, 6)
        producer: Any = Away()
        writer = TransactionalWriter(producer, CONFIG)
        engine._owned["events", number] = Owned(unit, writer, asyncio.Lock())
    return engine


def test_a_checkpoint_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka tries a transaction without end, so a worker whose broker was away hung in its last checkpoint."""
    monkeypatch.setattr(engine_room, "STOPPING", 0.1)

    async def closed(units: int) -> float:
        engine, began = engine_with(units), time.monotonic()
        with pytest.raises(CheckpointError, match="it was not durable after 0 s"):
            await engine.close()
        return time.monotonic() - began

    async def scenario() -> None:
        assert await closed(1) >= 0.3
        # They wait side by side: one after the other, twenty units would take 6 s.
        assert await closed(20) < 5.0

    asyncio.run(scenario())


def test_producers_that_never_start_end_the_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.clients.producer", lambda *_: Away())

    async def scenario() -> None:
        engine = engine_with(0)
        engine.groups.append(engine_room.Group("events", ("events",), ()))
        with pytest.raises(EngineError, match="producers of 1 units were not ready after 0 s"):
            await engine.open({("events", 0)}, lambda _: asyncio.sleep(0))

    asyncio.run(scenario())


class Reader:
    """A consumer that stands at an offset and gets nothing more, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def position(self, tp: TopicPartition) -> int:
        return 3

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        return {}

    def highwater(self, tp: TopicPartition) -> int:
        return 3


async def read(reader: Any, end: int) -> None:
    async for _ in read_up_to(reader, {TP: end}, patience=0.2):
        pass


def test_a_partition_that_gives_nothing_more_ends_the_reading() -> None:
    asyncio.run(read(Reader(), 3))
    with pytest.raises(EngineError, match="events-0 is read to offset 3 and ends at 9, but nothing came for 0 s"):
        asyncio.run(read(Reader(), 9))
    with pytest.raises(EngineError, match="records were removed before they could be read: events-0 at offset 3"):
        asyncio.run(read(Reader(OffsetOutOfRangeError({TP: 3})), 9))


def test_a_follower_ends_when_what_is_waited_for_does_not_come_and_not_before() -> None:
    async def sink(_: Lesson) -> None:
        pass

    async def scenario() -> None:
        follower = Follower(CONFIG, "log", sink)
        following = asyncio.ensure_future(follower._follow(Reader()))
        await asyncio.sleep(0.5)
        assert not following.done(), "nobody waits for anything"
        waiting = asyncio.ensure_future(follower.wait_for(9))
        with pytest.raises(EngineError, match="log-0 is read to offset 3 and ends at 9"):
            await asyncio.wait_for(following, 10)
        waiting.cancel()

    asyncio.run(scenario())
