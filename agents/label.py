"""Labels to examples: joins each outcome with the prediction that waits for it, and writes it to the training log."""

import time
from typing import Any

from aiokafka import ConsumerRecord

from agents.loop import Loop
from learning import intake
from learning.intake import Invalid
from streaming.unit import Unit


def register(loop: Loop) -> None:
    """Run on the labels topic."""
    loop.run_on(loop.pipeline.labels.topic, "label", step)


def step(loop: Loop, unit: Unit, record: "ConsumerRecord[Any, Any]") -> None:
    """One label. Raises Invalid."""
    pipeline, tracer = loop.pipeline, loop.tracer
    started_ns = 0 if tracer is None else time.time_ns()
    label, key, identity, time_ms = loop.read(pipeline.labels, record)
    outcome = intake.read_outcome(pipeline, label)
    if identity is None:
        raise Invalid(reason="invalid", message="got a label without id, expected its event's id")
    resolution = loop.pending(unit).resolve(identity, key, outcome, time_ms)
    loop.resolved(unit, resolution)
    if tracer is not None:
        tracer.labelled(unit, record, identity, resolution.kind, started_ns)
