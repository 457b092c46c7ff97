"""The training log to quality and drift: one owner in the group scores what was predicted against what came."""

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from faust.types import StreamT

from agents import alarms
from agents.loop import Loop, Records, heard_of
from learning.intake import Invalid
from learning.learn import ModelError
from learning.records import Control, DriftEvent, Example, Value, decode_log, encode
from learning.reports import Alarm
from learning.scored import Heard, Scored
from learning.vectors import Floats
from learning.watch import frozen_points
from streaming.unit import Chunk, Unit
from tables import monitors

log = logging.getLogger(__name__)

T = TypeVar("T", Alarm, DriftEvent)


def register(loop: Loop) -> None:
    """Run on the training log."""

    async def agent(chunks: StreamT[Chunk]) -> None:
        async for chunk in chunks:
            # The frozen copy is made by the learner, so the learner must have been where these records are.
            await loop.engine.follower.wait_for(chunk.begin()[-1].offset + 1)
            await loop.each_of_many(chunk, step)

    loop.app.agent(loop.app.topic(loop.pipeline.training_log_topic, maxsize=2), name="watch")(agent)


def step(loop: Loop, unit: Unit, records: Records) -> list[Invalid | None]:
    """Some records of the log, in order. Invalid for each that the model did not learn, so that somebody looks at it.

    What is worked out for all at once comes first; what it leads to, as hardly anything does, is then done in order.
    """
    heard, refused = _heard(loop, unit, records)
    if not heard:
        return refused
    scored = loop.rows.columns([each for each in heard.values() if type(each) is bytes])
    others = {offset: each for offset, each in heard.items() if type(each) is not bytes}
    losses, watch = monitors.losses(unit, loop.pipeline), monitors.watch(unit, loop.pipeline)
    last = next(reversed(heard))
    done_to = losses.offset  # where the guarantee is at_least_once, some come again
    alarmed = _by_offset(losses.observe_all(scored, last))
    drifted = _by_offset(watch.observe_all(scored, _frozen(loop, scored), last))
    unit.state[monitors.NAME][monitors.LOSSES], unit.state[monitors.NAME][monitors.WATCH] = losses, watch
    told = {offset: each for offset, each in others.items() if isinstance(each, Control) and offset > done_to}
    seen = _learned(loop, scored, others, done_to) if loop.pipeline.react is not None else ()
    for offset in sorted({*alarmed, *drifted, *told, *seen}):
        for alarm in alarmed.get(offset, ()):
            alarms.raised(loop, unit, alarm)
        if offset in told:
            alarms.told(loop, unit, offset, told[offset])
        for event in drifted.get(offset, ()):
            loop.metrics.count("drift_total", signal=event.signal)
            unit.emit(loop.pipeline.drift_topic, 0, event.signal.encode(), encode(event))
        if offset in seen:
            alarms.seen(loop, unit, offset)
    return refused


def _heard(loop: Loop, unit: Unit, records: Records) -> tuple[dict[int, Heard], list[Invalid | None]]:
    """What stands in the records that can be read, by offset; and of each record why it is refused, if it is."""
    heard: dict[int, Heard] = {}
    refused: list[Invalid | None] = [None] * len(records)
    kept, errors = heard_of(unit), loop.model_errors
    for place, record in enumerate(records):
        offset = record.offset
        each = kept.pop(offset, None)
        if each is None:
            try:
                each = loop.rows.heard(offset, record.timestamp, decode_log(record.value or b""))
            except msgspec.DecodeError as exc:
                refused[place] = Invalid(reason="malformed", message=f"no record of a training log: {exc}")
                errors.pop(offset, None)
                continue
        heard[offset] = each
        if errors and offset in errors:
            refused[place] = Invalid(reason="model_error", message=errors.pop(offset))
    return heard, refused


def _learned(loop: Loop, scored: Scored, others: Mapping[int, Heard], done_to: int) -> set[int]:
    """Offsets of those that the model learns while it learns."""
    rows, learns = scored.behind(done_to), loop.learner.learns
    without = [at for at, each in others.items() if at > done_to and isinstance(each, Example) and learns(each)]
    return {*rows.offsets[rows.learned].tolist(), *without}


def _by_offset(found: Iterable[T]) -> dict[int, list[T]]:
    by_offset: dict[int, list[T]] = {}
    for each in found:
        by_offset.setdefault(each.offset, []).append(each)
    return by_offset


def _frozen(loop: Loop, scored: Scored) -> Floats:
    """What the frozen copy, as it was at each example, says about those that tell how good a model is.

    A negative that is left out has no vector, or would be one too many of its kind.
    """
    said: list[Value | None] = [None] * len(scored.offsets)
    learned, offsets = np.flatnonzero(scored.learned), scored.offsets.tolist()
    for places in _by_copy(loop, learned.tolist(), offsets):
        frozen = loop.learner.frozen_at(offsets[places[0]])
        if frozen is None:
            continue
        vectors = scored.vectors if len(places) == len(said) else scored.vectors[places]
        for place, value in zip(places, loop.learner.predict_all_with(frozen, vectors), strict=True):
            if isinstance(value, ModelError):
                log.error("the frozen copy raised at offset %d: %s", offsets[place], value)
            else:
                said[place] = value
    return frozen_points(said, scored)


def _by_copy(loop: Loop, places: list[int], offsets: Sequence[int]) -> Iterable[list[int]]:
    """Runs of places with one frozen copy; one run as a rule, since hardly anything but a rollback changes it."""
    if places and offsets[places[0]] >= loop.learner.frozen_version:
        return [places]
    return [list(run) for _, run in itertools.groupby(places, lambda i: id(loop.learner.frozen_at(offsets[i])))]
