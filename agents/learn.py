"""The training log to the model: in every worker, outside the consumer group, one example after the other."""

import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from faust.types import StreamT

from agents.loop import TURN, Loop
from learning.learn import ModelError
from learning.records import Example, decode_log
from streaming.follower import Lesson

log = logging.getLogger(__name__)

REMEMBERED = 1_000  # model errors that wait for the owner of the log


def register(loop: Loop) -> None:
    """Run on the channel that the training-log follower feeds."""

    async def agent(lessons: StreamT[Lesson]) -> AsyncIterator[None]:
        async for lesson in lessons:
            try:
                await learn(loop, lesson)
            except Exception as error:  # noqa: BLE001  # a lesson passed over would be another model
                await loop.app.fail(error)
            yield

    loop.app.agent(loop.engine.lessons, name="learn")(agent)


async def learn(loop: Loop, lesson: Lesson) -> None:
    """All records of a lesson, in order; then say how far the model has come."""
    started = time.perf_counter()
    for record in lesson.records:
        step(loop, record)
        if time.perf_counter() - started > TURN:
            await loop.engine.breathe()
            started = time.perf_counter()
    await loop.engine.follower.applied(lesson.position)
    loop.metrics.gauge("model_version", loop.learner.version)
    loop.metrics.gauge("model_lag", max(0, lesson.end - lesson.position))


def step(loop: Loop, record: "ConsumerRecord[Any, Any]") -> None:
    """One record of the log. What the model raises on is reported and passed over, by every worker alike."""
    try:
        entry = decode_log(record.value or b"")
        loop.learner.apply(record.offset, entry)
    except (ModelError, msgspec.DecodeError) as error:
        loop.metrics.count("model_errors_total")
        loop.model_errors[record.offset] = str(error)
        if len(loop.model_errors) > REMEMBERED:  # of errors replayed at a start, the owner has reported the older
            del loop.model_errors[next(iter(loop.model_errors))]
        log.error("the record at offset %d of the training log was not learned: %s", record.offset, error)  # noqa: TRY400
        return
    if isinstance(entry, Example):
        loop.metrics.count("training_examples_total")
