"""When a unit is saved: each interval, or each few while it has nothing to say."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from streaming.config import EngineConfig
from streaming.engine import Engine, Owned
from streaming.telemetry import NullMetrics
from streaming.unit import Unit

INTERVALS = 12


def saved(monkeypatch: pytest.MonkeyPatch, every: int, says: set[int]) -> list[int]:
    """After which intervals it was saved, where it says something in some of them."""
    config = EngineConfig(bootstrap="nowhere:1", app_id="app", checkpoint_interval=0.5)
    engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=lambda exc: asyncio.sleep(0))
    unit = Unit("log", 0, {}, {TopicPartition("log", 0): 0})
    now, found = 0, list[int]()

    async def interval(_: float) -> None:
        nonlocal now
        now += 1
        unit.mark(TopicPartition("log", 0), now)
        if now in says:
            unit.emit("out", 0, None, b"a report")
        if now == INTERVALS:
            unit.close()

    async def checkpoint(_: Owned) -> None:
        unit.cut()
        found.append(now)

    monkeypatch.setattr(engine, "_checkpoint", checkpoint)
    owned = Owned(unit, cast("Any", None), asyncio.Lock())
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", interval)
        asyncio.run(engine._checkpoint_forever(owned, 0.0, every))
    return found


def test_each_interval_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved(monkeypatch, 1, set()) == list(range(1, INTERVALS))


def test_what_it_says_waits_for_no_more_than_an_interval_and_the_rest_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved(monkeypatch, 4, set()) == [4, 8]
    assert saved(monkeypatch, 4, {1, 3, 4, 9}) == [1, 3, 4, 8, 9]
