"""Whether an alarm was worth acting on: the model reset at alarms, beside never and as often by the calendar.

A detector that fires whenever it likes makes any model that forgets look good (Bifet, "Classifier Concept Drift
Detection and the Illusion of Progress", 2017). So what alarms bring is what they bring beyond as many resets at
equal distances, and beyond none.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from learning.backtest import backtest
from learning.losses import LossAlarm
from learning.quality import Report
from learning.records import LogRecord, Prediction
from learning.reports import Alarm
from learning.summary import Collector
from learning.survey import Survey

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

EVENTS = 200
"""Events after which the collector is cut, as a worker's checkpoints would."""


class Illusion(msgspec.Struct, frozen=True):
    """What three ways to reset a model reached over the same stream.

    Attributes:
        alarms: those of the run with resets at alarms.
        examples: records of the training log.
        resets: how often the model began anew, with alarms and by the calendar alike.
        at_alarms: measures of the model that was reset at alarms.
        never: of the one that was not reset.
        periodic: of the one that was reset as often, at equal distances.
    """

    alarms: list[Alarm]
    examples: int
    resets: int
    at_alarms: Report
    never: Report
    periodic: Report


class Alarms:
    """Alarms over a backtest, as the watch raises them over the topics.

    Attributes:
        raised: all so far.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self._struct = pipeline.events.struct
        self._collector = Collector(pipeline, 0, "backtest")
        self._survey = Survey(pipeline)
        self._losses = LossAlarm(pipeline)
        self._event: Any = None
        self._gathered = self._summaries = 0
        self.raised: list[Alarm] = []

    def through(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same items; which event a prediction is of is seen here."""
        for item in items:
            if isinstance(item, self._struct):
                self._event = item
            yield item

    def prediction(self, prediction: Prediction) -> None:
        """For `backtest(on_prediction=...)`."""
        self._collector.prediction(prediction, self._event)
        self._gathered += 1
        if self._gathered % EVENTS == 0:
            for summary in self._collector.take(prediction.time_ms):
                self.raised += self._survey.add(self._summaries, summary)
                self._summaries += 1

    def record(self, offset: int, record: LogRecord) -> None:
        """For `backtest(on_record=...)`."""
        time_ms = getattr(record, "label_time_ms", 0)
        alarm = self._losses.observe(offset, record, time_ms)
        if alarm is not None:
            self.raised.append(alarm)


def compare(pipeline: "Pipeline", items: Callable[[], Iterable[Any]]) -> Illusion:
    """Run over the same events and labels three times; `items` gives them anew each time."""
    alarms = Alarms(pipeline)
    acted = resets = 0

    def at_alarms(_offset: int) -> bool:
        nonlocal acted, resets
        reset = len(alarms.raised) > acted
        acted = len(alarms.raised)
        resets += reset
        return reset

    first = backtest(
        pipeline, alarms.through(items()), on_prediction=alarms.prediction, on_record=alarms.record, reset=at_alarms
    )
    never = backtest(pipeline, items())
    distance = max(first.examples // (resets + 1), 1)
    places = {distance * (number + 1) for number in range(resets)}
    periodic = backtest(pipeline, items(), reset=places.__contains__) if resets else never
    return Illusion(alarms.raised, first.examples, resets, first.metrics, never.metrics, periodic.metrics)
