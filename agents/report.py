"""Watch, survey and incidents to reports: the log's owner says every few seconds how the pipeline is."""

import time

from agents.alarms import publish
from agents.loop import Loop, wall_ms
from learning.incidents import Incidents
from learning.losses import LossAlarm
from learning.records import encode
from learning.reports import Report
from learning.survey import Survey
from learning.watch import Watch, by_metric
from streaming.unit import Unit
from tables import monitors

EVERY = 2.0  # seconds between two reports


class Reporter:
    """Reports of the unit of the training log, as long as this worker owns it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._at = 0.0
        self._told: tuple[int, int, int] | None = None

    def consider(self, unit: Unit) -> None:
        """Write a report if something has changed and it is time; the engine calls it now and then."""
        state = unit.state[monitors.NAME]
        now = time.monotonic()
        if now - self._at < EVERY or not (state.keys() & {monitors.WATCH, monitors.SURVEY}):
            return
        self._at = now
        loop = self._loop
        pipeline = loop.pipeline
        watch, survey = monitors.watch(unit, pipeline), monitors.survey(unit, pipeline)
        losses, incidents = monitors.losses(unit, pipeline), monitors.incidents(unit, pipeline)
        changed = incidents.look(survey.until_ms, wall_ms())
        for incident in changed:
            publish(loop, unit, incident)
        told = (watch.offset, survey.offset, len(incidents.alarms))
        if told == self._told and not changed:
            return
        self._told = told
        report = made(loop, watch, survey, losses, incidents)
        incidents.sample(report)
        state[monitors.INCIDENTS] = incidents
        unit.emit(loop.pipeline.reports_topic, 0, loop.pipeline.name.encode(), encode(report))
        self._measure(report)

    def _measure(self, report: Report) -> None:
        metrics = self._loop.metrics
        for name, value in by_metric(report.quality, report.baselines).items():
            metrics.gauge("quality", value, metric=name)
        for field in report.fields:
            for statistic, value in (("psi", field.psi), ("ks", field.ks), ("missing", field.missing)):
                metrics.gauge("input", value, field=f"{field.kind}:{field.name}", statistic=statistic)
        for signal, value in report.drift.items():
            metrics.gauge("drift_level", value, signal=signal)
        metrics.gauge("label_coverage", report.coverage, pipeline=report.pipeline)
        metrics.gauge("incidents_open", len(report.incidents), pipeline=report.pipeline)


def made(loop: Loop, watch: Watch, survey: Survey, losses: LossAlarm, incidents: Incidents) -> Report:
    """The report, as of now."""
    now = wall_ms()
    health = survey.health(now)
    return watch.fill(
        Report(
            pipeline=loop.pipeline.name,
            wall_ms=now,
            time_ms=survey.until_ms,
            version=loop.learner.version,
            coverage=survey.coverage(watch.labelled()),
            fields=survey.fields(),
            drift=survey.drift() | losses.drift(),
            budget=loop.pipeline.budget,
            alarms=list(incidents.alarms),
            incidents=incidents.open_ids(),
            events_per_second=health.events_per_second,
            lag=health.lag,
            model_lag=health.model_lag,
            dead_letters=health.dead_letters,
            units=health.units,
        )
    )
