"""Alarms: each becomes part of an incident, and may change the model; all in the transaction of what raised it."""

from collections.abc import Iterable

from agents.loop import Loop, wall_ms
from learning.incidents import Incidents
from learning.records import CONTROL_KEY, Control, encode
from learning.reports import Alarm, Incident, Summary
from streaming.unit import Unit
from tables import monitors

AUTHOR = "headwater"


def raised(loop: Loop, unit: Unit, alarm: Alarm) -> None:
    """Make an alarm part of an incident, tell of it, and react as the pipeline says."""
    incidents = monitors.incidents(unit, loop.pipeline)
    since = incidents.since(alarm.offset)
    changed = incidents.raised(alarm)
    if not changed:  # it was raised before
        return
    loop.metrics.count("alarms_total", kind=alarm.kind)
    _save(loop, unit, incidents, changed)
    control = reaction(loop, since, alarm) if incidents.knows_enough() else None
    if control is not None:
        unit.emit(loop.pipeline.training_log_topic, 0, CONTROL_KEY, encode(control))


def publish(loop: Loop, unit: Unit, incident: Incident) -> None:
    """Write an incident's record."""
    unit.emit(loop.pipeline.incidents_topic, 0, incident.id.encode(), encode(incident))


def reaction(loop: Loop, since: int, alarm: Alarm) -> Control | None:
    """The control record that an alarm calls for; None where only people are told.

    While people have frozen the model it stays as it is: a new one would have nothing to learn from.
    """
    react = loop.pipeline.react
    if react is None or alarm.kind != "loss" or not loop.learner.learning:
        return None
    why = f"alarm {alarm.id}: {alarm.text}"[:1_000]
    if react.action == "boost":
        return Control("boost", wall_ms(), AUTHOR, why, factor=react.factor, examples=react.examples)
    return Control("relearn", wall_ms(), AUTHOR, why, since=since)


def seen(loop: Loop, unit: Unit, offset: int) -> None:
    """Remember where an example lies, for a reaction that learns the newest ones again."""
    incidents = monitors.incidents(unit, loop.pipeline)
    incidents.example(offset)
    unit.state[monitors.NAME][monitors.INCIDENTS] = incidents


def told(loop: Loop, unit: Unit, offset: int, control: Control) -> None:
    """Remember a control record that lies there, as something that may explain an alarm or was done about one."""
    incidents, survey = monitors.incidents(unit, loop.pipeline), monitors.survey(unit, loop.pipeline)
    _save(loop, unit, incidents, incidents.said(survey.until_ms, offset, control))


def opened(loop: Loop, unit: Unit, time_ms: int, summary: Summary) -> None:
    """Remember that a worker opened a partition: a restart, a deploy or a rebalance."""
    incidents = monitors.incidents(unit, loop.pipeline)
    _save(loop, unit, incidents, incidents.opened(time_ms, summary.worker, summary.partition))


def _save(loop: Loop, unit: Unit, incidents: Incidents, changed: Iterable[Incident]) -> None:
    """Keep them, and tell of what has changed, in one cut."""
    for incident in changed:
        publish(loop, unit, incident)
    unit.state[monitors.NAME][monitors.INCIDENTS] = incidents
