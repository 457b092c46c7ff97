"""Events to predictions: reads one event, scores it at the model's version, lets the prediction wait for its label."""

import time
from typing import Any

from aiokafka import ConsumerRecord

from agents.loop import Loop
from learning.records import encode
from learning.score import Duplicate, score
from streaming.unit import Unit
from tables import profiles


def register(loop: Loop) -> None:
    """Run on the events topic."""
    loop.run_on(loop.pipeline.events.topic, "score", step)


def step(loop: Loop, unit: Unit, record: "ConsumerRecord[Any, Any]") -> None:
    """One event. Raises Invalid."""
    config, pipeline, metrics = loop.config, loop.pipeline, loop.metrics
    loop.count_event()
    tracer = loop.tracer
    started_ns = 0 if tracer is None else time.time_ns()
    event, key, identity, time_ms = loop.read(pipeline.events, record)
    name = identity or f"{record.topic}-{record.partition}-{record.offset}"
    join = loop.pending(unit)
    journey = None if tracer is None else tracer.begin(name, started_ns, loop.learner)
    learner = loop.learner if journey is None else journey.learner
    scored = score(pipeline, learner, unit.state[profiles.NAME], join, event, key, name, time_ms)
    if isinstance(scored, Duplicate):
        metrics.count("duplicate_events_total")
        loop.collector(unit).duplicate()
        return
    loop.count_prediction()
    loop.collector(unit).prediction(scored.prediction, event, late=scored.late)
    loop.shown.append(scored.prediction)
    if scored.late:
        metrics.count("late_events_total")
    emit = unit.emit_now if config.predictions == "immediate" else unit.emit
    emit(pipeline.predictions_topic, unit.partition, record.key, encode(scored.prediction))
    if scored.resolution is not None:
        loop.resolved(unit, scored.resolution)
    if journey is not None:
        journey.scored(unit, record, scored.prediction)
