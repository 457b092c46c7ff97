"""The training log to quality and drift: one owner in the group scores what was predicted against what came."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from faust.types import StreamT

from agents import alarms
from agents.loop import Loop
from learning.intake import Invalid
from learning.learn import ModelError
from learning.records import Control, Example, Value, decode_log, encode
from streaming.unit import Chunk, Unit
from tables import monitors

log = logging.getLogger(__name__)


def register(loop: Loop) -> None:
    """Run on the training log."""

    async def agent(chunks: StreamT[Chunk]) -> AsyncIterator[None]:
        async for chunk in chunks:
            # The frozen copy is made by the learner, so the learner must have been where these records are.
            await loop.engine.follower.wait_for(chunk.begin()[-1].offset + 1)
            await loop.each(chunk, step)
            yield

    loop.app.agent(loop.app.topic(loop.pipeline.training_log_topic, maxsize=2), name="watch")(agent)


def step(loop: Loop, unit: Unit, record: "ConsumerRecord[Any, Any]") -> None:
    """One record of the log. Raises Invalid for one that the model did not learn, so that somebody looks at it."""
    error = loop.model_errors.pop(record.offset, None)
    try:
        entry = decode_log(record.value or b"")
    except msgspec.DecodeError as exc:
        raise Invalid(reason="malformed", message=f"no record of a training log: {exc}") from exc
    state = unit.state[monitors.NAME]
    losses = monitors.losses(unit, loop.pipeline)
    new = record.offset > losses.offset  # where the guarantee is at_least_once, some come again
    alarm = losses.observe(record.offset, entry, record.timestamp)
    state[monitors.LOSSES] = losses
    if alarm is not None:
        alarms.raised(loop, unit, alarm)
    if isinstance(entry, Control) and new:
        alarms.told(loop, unit, record, entry)
    if isinstance(entry, Example):
        watch = monitors.watch(unit, loop.pipeline)
        for event in watch.observe(record.offset, entry, _frozen(loop, record.offset, entry)):
            loop.metrics.count("drift_total", signal=event.signal)
            unit.emit(loop.pipeline.drift_topic, 0, event.signal.encode(), encode(event))
        state[monitors.WATCH] = watch
        if loop.pipeline.react is not None and new:
            alarms.seen(loop, unit, record.offset)
    if error is not None:
        raise Invalid(reason="model_error", message=error)


def _frozen(loop: Loop, offset: int, example: Example) -> Value | None:
    """What the frozen copy says about an example that it has not learned."""
    frozen = loop.learner.frozen_at(offset)
    if frozen is None:
        return None
    try:
        return loop.learner.predict_with(frozen, example.features)
    except ModelError as error:
        log.error("the frozen copy raised at offset %d: %s", offset, error)  # noqa: TRY400
        return None
