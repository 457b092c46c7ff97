"""The training log to quality and drift: one owner in the group scores what was predicted against what came."""

import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from aiokafka import ConsumerRecord
from faust.types import StreamT

from agents import alarms
from agents.loop import Loop, Records
from learning.costs import costs_of
from learning.intake import Invalid
from learning.learn import ModelError
from learning.records import Control, DriftEvent, Example, LogRecord, Value, decode_log, encode
from learning.reports import Alarm
from streaming.unit import Chunk, Unit
from tables import monitors

log = logging.getLogger(__name__)

T = TypeVar("T", Alarm, DriftEvent)
Read = Sequence[tuple["ConsumerRecord[Any, Any]", LogRecord]]


def register(loop: Loop) -> None:
    """Run on the training log."""

    async def agent(chunks: StreamT[Chunk]) -> AsyncIterator[None]:
        async for chunk in chunks:
            # The frozen copy is made by the learner, so the learner must have been where these records are.
            await loop.engine.follower.wait_for(chunk.begin()[-1].offset + 1)
            await loop.each_of_many(chunk, step)
            yield

    loop.app.agent(loop.app.topic(loop.pipeline.training_log_topic, maxsize=2), name="watch")(agent)


def step(loop: Loop, unit: Unit, records: Records) -> list[Invalid | None]:
    """Some records of the log, in order. Invalid for each that the model did not learn, so that somebody looks at it.

    What is worked out for all at once comes first; what it leads to is then done record by record.
    """
    entries = [_entry(loop, record) for record in records]
    read = [(record, entry) for record, (entry, _) in zip(records, entries, strict=True) if entry is not None]
    costs = costs_of(loop.pipeline, [entry for _, entry in read])
    done_to = monitors.losses(unit, loop.pipeline).offset  # where the guarantee is at_least_once, some come again
    alarmed = _observe_losses(loop, unit, read, costs)
    drifted = _observe_quality(loop, unit, read, costs)
    reacts = loop.pipeline.react is not None
    for record, entry in read:
        offset = record.offset
        for alarm in alarmed.get(offset, ()):
            alarms.raised(loop, unit, alarm)
        if isinstance(entry, Control) and offset > done_to:
            alarms.told(loop, unit, record, entry)
        for event in drifted.get(offset, ()):
            loop.metrics.count("drift_total", signal=event.signal)
            unit.emit(loop.pipeline.drift_topic, 0, event.signal.encode(), encode(event))
        if reacts and offset > done_to and isinstance(entry, Example) and loop.learner.learns(entry):
            alarms.seen(loop, unit, offset)
    return [invalid for _, invalid in entries]


def _entry(loop: Loop, record: "ConsumerRecord[Any, Any]") -> tuple[LogRecord | None, Invalid | None]:
    """What stands in a record, None where it cannot be read; and why it is refused."""
    error = loop.model_errors.pop(record.offset, None) if loop.model_errors else None
    entry = loop.heard.pop(record.offset, None) if loop.heard else None
    if entry is None:
        try:
            entry = decode_log(record.value or b"")
        except msgspec.DecodeError as exc:
            return None, Invalid(reason="malformed", message=f"no record of a training log: {exc}")
    return entry, None if error is None else Invalid(reason="model_error", message=error)


def _observe_losses(loop: Loop, unit: Unit, read: Read, costs: Sequence[float | None]) -> dict[int, list[Alarm]]:
    """The alarms that the records raise, by offset."""
    if not read:
        return {}
    losses = monitors.losses(unit, loop.pipeline)
    found = losses.observe_all([(record.offset, entry, record.timestamp) for record, entry in read], costs)
    unit.state[monitors.NAME][monitors.LOSSES] = losses
    return _by_offset(found)


def _observe_quality(loop: Loop, unit: Unit, read: Read, costs: Sequence[float | None]) -> dict[int, list[DriftEvent]]:
    """The drift events of the examples among the records, by offset."""
    found = [
        (record.offset, entry, cost)
        for (record, entry), cost in zip(read, costs, strict=True)
        if isinstance(entry, Example)
    ]
    if not found:
        return {}
    examples = [(offset, entry) for offset, entry, _ in found]
    watch = monitors.watch(unit, loop.pipeline)
    events = watch.observe_all(examples, [cost for *_, cost in found], _frozen(loop, found))
    unit.state[monitors.NAME][monitors.WATCH] = watch
    return _by_offset(events)


def _by_offset(found: Iterable[T]) -> dict[int, list[T]]:
    by_offset: dict[int, list[T]] = {}
    for each in found:
        by_offset.setdefault(each.offset, []).append(each)
    return by_offset


def _frozen(loop: Loop, examples: Sequence[tuple[int, Example, float | None]]) -> list[Value | None]:
    """What the frozen copy, as it was at each example, says about those that tell how good a model is."""
    said: list[Value | None] = [None] * len(examples)
    learns = loop.learner.learns  # a negative that is left out has no vector, or would be one too many of its kind
    places = [place for place, (_, example, cost) in enumerate(examples) if cost is not None and learns(example)]
    for at in _by_copy(loop, places, [offset for offset, *_ in examples]):
        frozen = loop.learner.frozen_at(examples[at[0]][0])
        if frozen is None:
            continue
        values = loop.learner.predict_all_with(frozen, [examples[place][1].features for place in at])
        for place, value in zip(at, values, strict=True):
            if isinstance(value, ModelError):
                log.error("the frozen copy raised at offset %d: %s", examples[place][0], value)
            else:
                said[place] = value
    return said


def _by_copy(loop: Loop, places: list[int], offsets: Sequence[int]) -> Iterable[list[int]]:
    """Runs of places with one frozen copy; one run as a rule, since hardly anything but a rollback changes it."""
    if places and offsets[places[0]] >= loop.learner.frozen_version:
        return [places]
    return [list(run) for _, run in itertools.groupby(places, lambda i: id(loop.learner.frozen_at(offsets[i])))]
