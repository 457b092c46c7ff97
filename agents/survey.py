"""The units' summaries to drift of the data: the log's owner adds them up, and raises alarms before labels come."""

from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from agents import alarms
from agents.loop import Loop
from learning.intake import Invalid
from learning.records import decoded
from learning.reports import Summary
from streaming.unit import Unit
from tables import monitors

_decoder = msgspec.json.Decoder(Summary)


def register(loop: Loop) -> None:
    """Run on the summaries."""
    loop.run_on(loop.pipeline.summaries_topic, "survey", step)


def step(loop: Loop, unit: Unit, record: "ConsumerRecord[Any, Any]") -> None:
    """One summary. Raises Invalid for a record that is none."""
    try:
        summary = decoded(_decoder, record.value or b"")
    except msgspec.DecodeError as exc:
        raise Invalid(reason="malformed", message=f"no summary of a unit: {exc}") from exc
    survey = monitors.survey(unit, loop.pipeline)
    if summary.opened and record.offset > survey.offset:
        alarms.opened(loop, unit, survey.until_ms, summary)
    for alarm in survey.add(record.offset, summary):
        alarms.raised(loop, unit, alarm)
    unit.state[monitors.NAME][monitors.SURVEY] = survey
