"""Reports, incidents and predictions of the flights pipeline, from a run over its real data without Kafka.

What the agents put together in a worker is put together here: collector and survey, watch, loss alarm and incidents.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from app.live import Board
from app.metrics import PrometheusMetrics
from learning.backtest import backtest
from learning.incidents import Incidents
from learning.learn import Learner
from learning.losses import LossAlarm
from learning.records import Example, LogRecord, Prediction
from learning.reports import Alarm, Report
from learning.summary import Collector
from learning.survey import Survey
from learning.watch import Watch
from pipelines import flights as data_set
from pipelines.definition import Pipeline
from pipelines.flights import Arrival, Departure, flights

JANUARY = 26_000  # its flights in the data set, a few hundred less
CUT = 500  # predictions between two summaries


def stream(events: int) -> Iterator[Any]:
    """The first of the flights and their arrivals; for a few, only the file's beginning is read: January."""
    rows = itertools.islice(data_set.read_flights(), 2 * events if events < JANUARY // 2 else None)
    with mock.patch.object(data_set, "read_flights", return_value=list(rows)):
        yield from itertools.islice(data_set.history(), 2 * events)


class FlightsRun:
    """Plays the stream.

    Args:
        events: how many flights.
        every: examples between two reports.
        freeze_after: examples after which a copy of the model stops learning.

    Attributes:
        metrics: what the owner of the log would serve at `/metrics`.
        board: fed with everything.
        reports: all of them.
    """

    def __init__(self, events: int, *, every: int, freeze_after: int) -> None:
        self.metrics = PrometheusMetrics()
        self.board = Board(flights.name, flights.description)
        self.reports: list[Report] = []
        self._pipeline = frozen_after(freeze_after)
        self._every = every
        self._learner, self._watch = Learner(self._pipeline), Watch(self._pipeline)
        self._survey, self._losses = Survey(self._pipeline), LossAlarm(self._pipeline)
        self._incidents = Incidents(self._pipeline)
        self._collector = Collector(self._pipeline, 0, "here")
        self._event: Any = None
        self._summaries = self._predictions = self._examples = 0
        backtest(self._pipeline, self._seen(events), on_prediction=self._predicted, on_record=self._recorded)
        self._report()

    def _seen(self, events: int) -> Iterator[Any]:
        for item in stream(events):
            if isinstance(item, Departure):
                self._event = item
            yield item

    def _predicted(self, prediction: Prediction) -> None:
        self._collector.prediction(prediction, self._event)
        self._predictions += 1
        self.board.add_predictions([prediction])
        self.metrics.count("events_total")
        self.metrics.count("predictions_total")
        if self._predictions % CUT == 0:
            self._cut()

    def _cut(self) -> None:
        for summary in self._collector.take(wall_ms()):
            for alarm in self._survey.add(self._summaries, summary):
                self._raise(alarm)
            self._summaries += 1

    def _recorded(self, offset: int, record: LogRecord) -> None:
        assert isinstance(record, Example)
        alarm = self._losses.observe(offset, record, wall_ms())
        if alarm is not None:
            self._raise(alarm)
        self._watch.observe(offset, record, self._learner.predict_frozen(record.features))
        self._learner.apply(offset, record)
        self._collector.label("matched")
        self._examples += 1
        self.metrics.count("labels_total", outcome="matched")
        self.metrics.observe("label_delay_seconds", (record.label_time_ms - record.time_ms) / 1000)
        self.board.add_outcome(record)
        if self._examples % self._every == 0:
            self._report()

    def _raise(self, alarm: Alarm) -> None:
        for incident in self._incidents.raised(alarm):
            self.board.add_incident(incident)

    def _report(self) -> None:
        self._cut()
        survey, now = self._survey, wall_ms()
        for incident in self._incidents.look(survey.until_ms, now):
            self.board.add_incident(incident)
        health = survey.health(now)
        report = self._watch.fill(
            Report(
                pipeline=flights.name,
                wall_ms=now,
                time_ms=survey.until_ms,
                version=self._learner.version,
                coverage=survey.coverage(self._watch.labelled()),
                fields=survey.fields(),
                drift=survey.drift() | self._losses.drift(),
                budget=flights.budget,
                alarms=list(self._incidents.alarms),
                incidents=self._incidents.open_ids(),
                events_per_second=health.events_per_second,
                lag={flights.events.topic: 0, flights.labels.topic: 0},  # there is no broker to lag behind
                units=health.units,
            )
        )
        self._incidents.sample(report)
        self.reports.append(report)
        self.board.add_report(report)
        for name, value in self._watch.report().items():
            self.metrics.gauge("quality", value, metric=name)
        self.metrics.gauge("model_version", self._learner.version)
        self.metrics.gauge("model_lag", report.model_lag)


def frozen_after(examples: int) -> Pipeline:
    """The flights pipeline with its frozen copy made after so many examples."""
    return Pipeline(
        name=flights.name,
        event=Departure,
        label=Arrival,
        horizon=flights.horizon,
        features=data_set.FEATURES,
        model=flights.model,
        baseline_examples=examples,
    )


def wall_ms() -> int:
    """The clock on the wall."""
    return int(time.time() * 1000)
