"""The training log to quality and drift: one owner in the group scores what was predicted against what came."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from faust.types import StreamT

from agents.loop import Loop
from learning.intake import Invalid
from learning.learn import ModelError
from learning.records import Example, Value, decode_log, encode
from learning.watch import Watch
from streaming.unit import Chunk, Unit
from tables import monitors

log = logging.getLogger(__name__)


def register(loop: Loop) -> None:
    """Run on the training log."""

    async def agent(chunks: StreamT[Chunk]) -> AsyncIterator[None]:
        async for chunk in chunks:
            # The frozen copy is made by the learner, so the learner must have been where these records are.
            await loop.engine.follower.wait_for(chunk.records[-1].offset + 1)
            await loop.each(chunk, step)
            report(loop, chunk)
            yield

    loop.app.agent(loop.app.topic(loop.pipeline.training_log_topic, maxsize=2), name="watch")(agent)


def step(loop: Loop, unit: Unit, record: "ConsumerRecord[Any, Any]") -> None:
    """One record of the log. Raises Invalid for one that the model did not learn, so that somebody looks at it."""
    error = loop.model_errors.pop(record.offset, None)
    try:
        entry = decode_log(record.value or b"")
    except msgspec.DecodeError as exc:
        raise Invalid(reason="malformed", message=f"no record of a training log: {exc}") from exc
    if isinstance(entry, Example):
        watch = watch_of(loop, unit)
        for event in watch.observe(record.offset, entry, _frozen(loop, record.offset, entry)):
            loop.metrics.count("drift_total", signal=event.signal)
            unit.emit(loop.pipeline.drift_topic, 0, event.signal.encode(), encode(event))
        unit.state[monitors.NAME][monitors.KEY] = watch
    if error is not None:
        raise Invalid(reason="model_error", message=error)


def watch_of(loop: Loop, unit: Unit) -> Watch:
    """The watch of the log's unit."""
    watch: Watch | None = unit.state[monitors.NAME].get(monitors.KEY)
    return Watch(loop.pipeline) if watch is None else watch


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


def report(loop: Loop, chunk: Chunk) -> None:
    """Set the quality gauges."""
    unit = loop.engine.unit_of(chunk.tp)
    if unit is not None and monitors.KEY in unit.state[monitors.NAME]:
        for name, value in unit.state[monitors.NAME][monitors.KEY].report().items():
            loop.metrics.gauge("quality", value, metric=name)
