"""What the page knows: the pipeline's reports and incidents, and the latest predictions with their outcomes.

Whoever reads Kafka pushes; the page reads. All on one event loop, so nothing here waits or locks. Memory is bounded
whatever is pushed: history is thinned as it grows.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from learning.records import Example, Prediction
from learning.reports import Alarm, Incident, Report, Seen

DAY_MS = 86_400_000


class Board:
    """The state of one pipeline as its page shows it.

    Attributes:
        pipeline: its name.
        description: what it predicts.
        reported: how many reports have been pushed.
        thinned: grows when history has been thinned: who kept a copy of it must take it anew.
    """

    def __init__(
        self,
        pipeline: str,
        description: str = "",
        *,
        points: int = 360,
        span_ms: int = DAY_MS,
        waiting: int = 8,
        resolved: int = 24,
    ) -> None:
        """Nothing known yet.

        Args:
            pipeline: its name.
            description: what it predicts.
            points: history is kept at this many points, and up to twice as many.
            span_ms: how far back it reaches, by the writer's clock.
            waiting: how many predictions without outcome are kept.
            resolved: how many with.
        """
        self.pipeline = pipeline
        self.description = description
        self.reported = 0
        self.thinned = 0
        self._points = points
        self._span_ms = span_ms
        self._history: list[Report] = []
        self._latest: Report | None = None
        self._incidents: dict[str, Incident] = {}
        self._alarms: dict[str, Alarm] = {}
        self._waiting: dict[str, Prediction] = {}
        self._resolved: deque[Example] = deque(maxlen=resolved)
        self._most_waiting = waiting

    @property
    def latest(self) -> Report | None:
        """The newest report, whole; None where there is none."""
        return self._latest

    def reports(self) -> list[Report]:
        """History, oldest first, without what only the newest is asked for: fields, calibration, alarms, units."""
        return list(self._history)

    def incidents(self) -> list[Incident]:
        """The newest first."""
        return sorted(self._incidents.values(), key=lambda i: (i.opened_wall_ms, i.id), reverse=True)

    def alarms(self) -> list[Alarm]:
        """The latest hundred, oldest first."""
        return sorted(self._alarms.values(), key=lambda alarm: (alarm.wall_ms, alarm.id))

    def recent(self) -> list[Seen]:
        """Latest predictions that wait for their outcome, newest first; then the latest outcomes."""
        waiting = [Seen(p.id, p.key, p.time_ms, p.prediction, p.version) for p in reversed(self._waiting.values())]
        resolved = [Seen(e.id, e.key, e.time_ms, e.prediction, e.version, e.outcome) for e in reversed(self._resolved)]
        return [*waiting, *resolved]

    def add_report(self, report: Report) -> None:
        """Take the next report of the topic, in its order: a new owner's clock may be behind the last one's."""
        self._latest = report
        self._history.append(msgspec.structs.replace(report, fields=[], calibration=[], alarms=[], units={}))
        if len(self._history) > 2 * self._points:
            self._thin()
        for alarm in report.alarms:
            self._keep_alarm(alarm)
        self.reported += 1

    def add_incident(self, incident: Incident) -> None:
        """Take an incident, or its next record. Of closed ones the latest fifty are kept, of open ones all."""
        self._incidents[incident.id] = incident
        for alarm in incident.alarms:
            self._keep_alarm(alarm)
        closed = [i for i in self.incidents() if i.state == "closed"]
        for old in closed[50:]:
            del self._incidents[old.id]

    def add_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Take predictions, oldest first; of a whole chunk the last few are enough."""
        for p in predictions:
            self._waiting.pop(p.id, None)
            self._waiting[p.id] = p
        while len(self._waiting) > self._most_waiting:
            del self._waiting[next(iter(self._waiting))]

    def add_outcome(self, example: Example) -> None:
        """Take a record of the training log; it has the prediction in it, which may be long gone here."""
        self._waiting.pop(example.id, None)
        self._resolved.append(example)

    def _keep_alarm(self, alarm: Alarm) -> None:
        self._alarms[alarm.id] = alarm
        while len(self._alarms) > 100:
            del self._alarms[next(iter(self._alarms))]

    def _thin(self) -> None:
        """Drop what is older than `span_ms`, and of the rest keep the last report of each span of a fixed grid.

        The grid does not move with time: on one that did, every new report would take the place of the one before.
        """
        newest = max(report.wall_ms for report in self._history)
        kept = [report for report in self._history if report.wall_ms > newest - self._span_ms]
        width = 1_000
        while len({report.wall_ms // width for report in kept}) > self._points:
            width *= 2
        by_span: dict[int, Report] = {}
        for report in kept:
            by_span.pop(report.wall_ms // width, None)  # its place is at the end, where it came
            by_span[report.wall_ms // width] = report
        self._history = list(by_span.values())
        self.thinned += 1
