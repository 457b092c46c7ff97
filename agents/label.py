"""Labels to examples: joins each outcome with the prediction that waits for it, and writes it to the training log."""

from collections.abc import AsyncIterator
from typing import Any

from aiokafka import ConsumerRecord
from faust.types import StreamT

from agents.loop import Loop
from learning import intake
from learning.intake import Invalid
from streaming.unit import Chunk, Unit


def register(loop: Loop) -> None:
    """Run on the labels topic."""

    async def agent(chunks: StreamT[Chunk]) -> AsyncIterator[None]:
        async for chunk in chunks:
            await loop.each(chunk, lambda unit, record: step(loop, unit, record))
            yield

    loop.app.agent(loop.app.topic(loop.pipeline.labels.topic, maxsize=8), name="label")(agent)


def step(loop: Loop, unit: Unit, record: "ConsumerRecord[Any, Any]") -> None:
    """One label. Raises Invalid."""
    config, pipeline = loop.config, loop.pipeline
    label, key, identity, time_ms = intake.read(
        pipeline.labels,
        record.key,
        record.value,
        record.timestamp,
        max_ahead_ms=config.max_ahead_ms,
        max_bytes=config.max_bytes,
    )
    outcome = intake.read_outcome(pipeline, label)
    if identity is None:
        raise Invalid(reason="invalid", message="got a label without id, expected its event's id")
    loop.resolved(unit, loop.pending(unit).resolve(identity, key, outcome, time_ms))
