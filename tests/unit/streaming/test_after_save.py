"""Who wants to know that a checkpoint is durable is told when it is, and not before."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from streaming.config import EngineConfig
from streaming.engine import Engine, Owned
from streaming.errors import CheckpointError
from streaming.telemetry import NullMetrics
from streaming.unit import Cut, Unit


class Writer:
    """Writes, or does not."""

    def __init__(self, told: list[str], *, fails: bool) -> None:
        self._told = told
        self._fails = fails

    async def write(self, cut: Cut) -> None:
        """Say so."""
        if self._fails:
            message = "fenced"
            raise OSError(message)
        self._told.append("written")


def checkpoint(*, fails: bool, told: list[str]) -> None:
    """One checkpoint of a unit in which something came."""

    async def scenario() -> None:
        config = EngineConfig(bootstrap="nowhere:1", app_id="app")
        engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=lambda exc: asyncio.sleep(0))
        unit = Unit("events", 0, {}, {TopicPartition("events", 0): 0})
        unit.before_cut = lambda _: told.append("cut")
        unit.after_save = lambda _: told.append("saved")
        unit.emit("out", 0, None, b"a prediction")
        await engine._checkpoint(Owned(unit, cast("Any", Writer(told, fails=fails)), asyncio.Lock()))

    asyncio.run(scenario())


def test_after_a_checkpoint_its_unit_is_told() -> None:
    told: list[str] = []
    checkpoint(fails=False, told=told)
    assert told == ["cut", "written", "saved"]


def test_after_a_checkpoint_that_failed_nobody_is_told_that_it_was_saved() -> None:
    told: list[str] = []
    with pytest.raises(CheckpointError):
        checkpoint(fails=True, told=told)
    assert told == ["cut"]
