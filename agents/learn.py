"""The training log to the model: in every worker, outside the consumer group, one example after the other.

What a control record says is done at its place in the log, so all workers switch at the same version.
"""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from faust.types import StreamT

from agents.loop import TURN, Loop
from learning import rollback
from learning.learn import Learner, ModelError, Turn
from learning.negatives import is_kept
from learning.records import Control, Example, LogRecord, decode_log
from learning.scored import Heard
from streaming.follower import Lesson, read_again

log = logging.getLogger(__name__)

REMEMBERED = 1_000  # model errors that wait for the owner of the log
KEPT = 4_096  # records read that wait for it; as a rule there are those of one commit


def register(loop: Loop) -> None:
    """Run on the channel that the training-log follower feeds."""

    async def agent(lessons: StreamT[Lesson]) -> None:
        async for lesson in lessons:
            try:
                await learn(loop, lesson)
            except Exception as error:  # noqa: BLE001  # a lesson passed over would be another model
                await loop.app.fail(error)

    loop.app.agent(loop.engine.lessons, name="learn")(agent)


async def learn(loop: Loop, lesson: Lesson) -> None:
    """All records of a lesson, in order; then say how far the model has come."""
    started = time.perf_counter()
    for record in lesson.records:
        await step(loop, record)
        if time.perf_counter() - started > TURN:
            await loop.engine.breathe()
            started = time.perf_counter()
    await loop.engine.follower.applied(lesson.position)
    loop.tell_model()
    loop.model_lag = max(0, lesson.end - lesson.position)
    loop.metrics.gauge("model_lag", loop.model_lag)


async def step(loop: Loop, record: "ConsumerRecord[Any, Any]") -> None:
    """One record of the log. What the model raises on is reported and passed over, by every worker alike."""
    learner = loop.learner
    # A worker that starts reads again what it told of when it was new.
    tracer = loop.tracer if loop.tracer is not None and loop.engine.ready else None
    started_ns = 0 if tracer is None else time.time_ns()
    try:
        entry = decode_log(record.value or b"")
        if (heard := loop.heard) is not None:
            _keep(heard, record.offset, loop.rows.heard(record.offset, record.timestamp, entry))
        turn = learner.turn_at(record.offset, entry)
        if turn is None:
            learner.apply(record.offset, entry)
        else:
            learner.take_turn(turn, await made_again(loop, turn))
    except (ModelError, msgspec.DecodeError) as error:
        loop.metrics.count("model_errors_total")
        loop.model_errors[record.offset] = str(error)
        if len(loop.model_errors) > REMEMBERED:  # of errors replayed at a start, the owner has reported the older
            del loop.model_errors[next(iter(loop.model_errors))]
        log.error("the record at offset %d of the training log was not learned: %s", record.offset, error)  # noqa: TRY400
        return
    if isinstance(entry, Control):
        log.warning(
            "%s by %s at offset %d (%s): the model has %d examples and %s",
            told(entry),
            entry.by,
            record.offset,
            entry.why or "no reason given",
            learner.examples,
            "learns" if learner.learning else "does not learn",
        )
    elif isinstance(entry, Example):
        learned = learner.learns(entry)
        if not learned:
            loop.metrics.count("negatives_left_out_total")
            _warn_of_missing(loop, record.offset, entry)
        elif learner.learning:
            loop.count_example()
        if tracer is not None:
            tracer.learned(record.offset, entry, started_ns, learning=learned and learner.learning)
        if loop.on_example is not None:
            loop.on_example(entry)


def _keep(heard: dict[int, Heard], offset: int, entry: Heard) -> None:
    """Have the watch, which comes after, not decode it once more; it does decode what is not there."""
    if len(heard) >= KEPT:  # the watch is far behind, as after a start
        heard.clear()
    heard[offset] = entry


def _warn_of_missing(loop: Loop, offset: int, example: Example) -> None:
    """Say once that the log lacks the vectors of negatives which this pipeline would learn."""
    share = loop.pipeline.negatives
    if loop.missing_negatives or example.kept or not is_kept(example.id, share):
        return
    loop.missing_negatives = True
    log.warning(
        "the example at offset %d of the training log has no vector, and negatives=%g would have it learned: the share"
        " was smaller when it was written, expected no smaller one. Probabilities are too high until the model has"
        " learned enough of the new share; give the pipeline a new name, or `headwater relearn` what has come since",
        offset,
        share,
    )


def told(control: Control) -> str:
    """What a control record says, in a word or a few."""
    match control.action:
        case "rollback":
            return f"rollback to version {control.to}"
        case "relearn":
            return f"relearn since offset {control.since}"
        case "boost":
            return f"boost of the learning rate by {control.factor} for {control.examples} examples"
        case action:
            return action


async def made_again(loop: Loop, turn: Turn) -> Learner:
    """The model that a turn leads to. Raises EngineError where the log that it needs is gone.

    Meanwhile this worker goes on predicting, by the version just before the turn.
    """
    started = time.monotonic()
    turns, version = (*loop.learner.turns, turn), turn.offset + 1
    if loop.snapshots is None:
        learner, (_, runs) = Learner(loop.pipeline), rollback.lineage(turns, version)
    else:
        learner, runs = await loop.snapshots.before(turns, version)
    base = learner.version
    await rollback.fold(learner, turns, runs, lambda start, stop: history(loop, start, stop))
    log.info("the model of version %d made again from version %d in %.1f s", version, base, time.monotonic() - started)
    return learner


async def history(loop: Loop, start: int, stop: int) -> AsyncGenerator[tuple[int, LogRecord], None]:
    """Records of the log once more; what is none is passed over as it was before. Gives the loop its turns."""
    since = time.perf_counter()
    chunks = read_again(loop.config, loop.pipeline.training_log_topic, start, stop)
    async with aclosing(chunks):
        async for records in chunks:
            for record in records:
                try:
                    entry = decode_log(record.value or b"")
                except msgspec.DecodeError:
                    continue
                yield record.offset, entry
                if time.perf_counter() - since > TURN:
                    await loop.engine.breathe()
                    since = time.perf_counter()
