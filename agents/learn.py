"""The training log to the model: in every worker, outside the consumer group, one example after the other.

What a control record says is done at its place in the log, so all workers switch at the same version.
"""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from faust.types import StreamT

from agents.loop import TURN, Loop, Records
from learning import rollback
from learning.learn import Learner, ModelError, Turn
from learning.negatives import is_kept
from learning.records import Control, Correction, Example, LogRecord, decode_log
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
    records, pace, done = lesson.records, loop.paces[step], 0
    started = now = time.perf_counter()
    while done < len(records):
        part, begun = records[done : done + pace.at_once], now
        await step(loop, part)
        done += len(part)
        now = time.perf_counter()
        pace.took(len(part), now - begun)
        if now - started > TURN / 2:
            await loop.engine.breathe()
            started = now = time.perf_counter()
    await loop.engine.follower.applied(lesson.position)
    loop.tell_model()
    loop.model_lag = max(0, lesson.end - lesson.position)
    loop.metrics.gauge("model_lag", loop.model_lag)


async def step(loop: Loop, records: Records) -> None:
    """Some records of the log, in order; examples that follow each other at once, as nearly all do.

    What the model raises on is reported and passed over, by every worker alike.
    """
    started_ns = time.time_ns()
    heard = loop.heard
    offsets: list[int] = []
    examples: list[Example] = []
    for record in records:
        offset = record.offset
        try:
            entry = decode_log(record.value or b"")
        except msgspec.DecodeError as error:
            _passed_over(loop, offset, error)
            continue
        if heard is not None:
            _keep(heard, offset, loop.rows.heard(offset, record.timestamp, entry))
        if isinstance(entry, Example):
            offsets.append(offset)
            examples.append(entry)
            continue
        _learn_examples(loop, offsets, examples, started_ns)
        offsets, examples = [], []
        await _take(loop, offset, entry)
    _learn_examples(loop, offsets, examples, started_ns)


async def _take(loop: Loop, offset: int, entry: Correction | Control) -> None:
    """A record that is no example."""
    learner = loop.learner
    try:
        turn = learner.turn_at(offset, entry)
        if turn is None:
            learner.apply(offset, entry)
        else:
            learner.take_turn(turn, await made_again(loop, turn))
    except ModelError as error:
        _passed_over(loop, offset, error)
        return
    if isinstance(entry, Control):
        log.warning(
            "%s by %s at offset %d (%s): the model has %d examples and %s",
            told(entry),
            entry.by,
            offset,
            entry.why or "no reason given",
            learner.examples,
            "learns" if learner.learning else "does not learn",
        )


def _learn_examples(loop: Loop, offsets: list[int], examples: list[Example], started_ns: int) -> None:
    """Examples with no other record between them; their turn has begun so many nanoseconds after 1970."""
    if not examples:
        return
    learner, before = loop.learner, loop.learner.examples
    errors = learner.apply_all(offsets, examples)
    learned = learner.examples - before
    loop.metrics.count("training_examples_total", learned)
    for offset, error in errors.items():
        _passed_over(loop, offset, error)
    if learned + len(errors) < len(examples):
        _tell_of_left_out(loop, offsets, examples)
    # A worker that starts reads again what it told of when it was new.
    tracer = loop.tracer if loop.tracer is not None and loop.engine.ready else None
    if tracer is None and loop.on_example is None:
        return
    for offset, example in zip(offsets, examples, strict=True):
        if offset in errors:
            continue
        if tracer is not None:
            tracer.learned(offset, example, started_ns, learning=learner.learning and learner.learns(example))
        if loop.on_example is not None:
            loop.on_example(example)


def _tell_of_left_out(loop: Loop, offsets: list[int], examples: list[Example]) -> None:
    """Count the negatives that are not learned, and warn of those that should be."""
    for offset, example in zip(offsets, examples, strict=True):
        if not loop.learner.learns(example):
            loop.metrics.count("negatives_left_out_total")
            _warn_of_missing(loop, offset, example)


def _passed_over(loop: Loop, offset: int, error: Exception) -> None:
    """Report a record that was not learned; the log's owner makes a dead letter of it."""
    loop.metrics.count("model_errors_total")
    loop.model_errors[offset] = str(error)
    if len(loop.model_errors) > REMEMBERED:  # of errors replayed at a start, the owner has reported the older
        del loop.model_errors[next(iter(loop.model_errors))]
    log.error("the record at offset %d of the training log was not learned: %s", offset, error)


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
