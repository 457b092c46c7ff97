"""Alarms to incidents: what belongs together is one, with the likely cause named by rule.

The owner of the training log keeps it. An incident is open while alarms come, and closed when none has come for a week
and the pipeline's horizon, by event time or by the clock. Its record is written again whenever it changes; `headwater
incident` makes a draft of it. docs/incidents.md tells it to people.
"""

from typing import TYPE_CHECKING

import msgspec

from learning.records import Control
from learning.reports import Alarm, Cause, Incident, Measures, Report
from learning.verdict import when

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

QUIET_MS = 7 * 86_400_000
"""An incident is over when no alarm has come for so long and the horizon: what inputs do now, labels tell of then."""
KEPT_ALARMS = 20
MOST_ALARMS = 100
"""Alarms that an incident keeps: the first, which it is named for, and the newest."""
KEPT_SAMPLES = 64
KEPT_EVENTS = 50
LONGEST = 200
"""Characters of an event; the partitions that a worker opened are one."""
EVERY = 64
"""Of so many examples the place of one is remembered, for reactions that learn the newest ones again."""
LAYOUT = 1

# The first rule whose signal has an alarm names the cause: what comes first in the pipeline explains what comes after.
RULES: tuple[tuple[Cause, tuple[str, ...], str], ...] = (
    (
        "pipeline",
        ("pipeline",),
        "records wait, or workers restart, so that features, predictions and lessons are late; look there before the"
        " model",
    ),
    ("labels", ("labels",), "outcomes come late or not at all, so that quality is measured on part of the predictions"),
    (
        "data",
        ("data", "feature", "quality"),
        "the inputs are not as they were, which was seen without labels; a producer has changed, or the world",
    ),
    (
        "model",
        ("loss",),
        "predictions have become worse while the inputs are as they were: outcomes follow from them in another way",
    ),
    (
        "unknown",
        ("prediction",),
        "the predictions are not as they were while no single input is: inputs together, or the model itself",
    ),
)


class State(msgspec.Struct):
    """All that is remembered; plain data.

    Attributes:
        layout: of this state.
        open: the open incident, if there is one.
        alarms: the last ones.
        samples: measures as they were at event times, oldest first, closer together the newer they are.
        events: what was done to the pipeline, with its event time.
        examples: seen so far.
        index: offsets of every 64th of the newest ones, oldest first.
    """

    layout: int = LAYOUT
    open: Incident | None = None
    alarms: list[Alarm] = []
    samples: list[tuple[int, Measures]] = []
    events: list[tuple[int, str]] = []
    examples: int = 0
    index: list[int] = []


class Incidents:
    """The incidents of one pipeline.

    Attributes:
        alarms: the last twenty, newest last.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self._name = pipeline.name
        self._quiet_ms = QUIET_MS + pipeline.horizon_ms
        self._again = 0 if pipeline.react is None else pipeline.react.examples
        self._state = State()

    @property
    def alarms(self) -> list[Alarm]:
        """The last alarms, newest last."""
        return self._state.alarms

    def open_ids(self) -> list[str]:
        """Ids of the open incidents."""
        return [] if self._state.open is None else [self._state.open.id]

    def said(self, time_ms: int, offset: int, control: Control) -> list[Incident]:
        """Take a control record and where it lies, with the event time by then; the incidents that it changes."""
        what = f"{control.action} by {control.by} at offset {offset}" + (f": {control.why}" if control.why else "")
        return self._happened(time_ms, what)

    def opened(self, time_ms: int, worker: str, partition: int) -> list[Incident]:
        """Take that a worker opened a partition, after a start or a rebalance; the incidents that it changes."""
        what = f"{worker} opened partition"
        events = self._state.events
        if events and events[-1][1].startswith(what) and len(events[-1][1]) < LONGEST:
            (time_ms, what), self._state.events = events[-1], events[:-1]
            return self._happened(time_ms, f"{what}, {partition}")
        return self._happened(time_ms, f"{what} {partition}")

    def _happened(self, time_ms: int, what: str) -> list[Incident]:
        state = self._state
        state.events = [*state.events, (time_ms, what)][-KEPT_EVENTS:]
        if state.open is None:
            return []
        state.open = self._told(state.open)
        return [state.open]

    def example(self, offset: int) -> None:
        """Remember where an example lies."""
        state = self._state
        if state.examples % EVERY == 0:
            state.index = [*state.index, offset][-(self._again // EVERY + 2) :]
        state.examples += 1

    def knows_enough(self) -> bool:
        """Whether it has seen as many examples as the pipeline's reaction learns again."""
        return self._state.examples >= self._again

    def since(self, offset: int) -> int:
        """Where the newest examples begin that the pipeline's reaction learns again; after `offset` for none.

        There are as many as it asks for, or up to 63 more; fewer where so many have not been seen.
        """
        index = self._state.index
        if not self._again or not index:
            return offset + 1
        newest = (self._state.examples - 1) % EVERY + 1  # examples from the last entry on
        back = max(-(-(self._again - newest) // EVERY), 0)
        return index[max(len(index) - 1 - back, 0)]

    def sample(self, report: Report) -> None:
        """Remember how things are, to tell before from after."""
        samples = self._state.samples
        if samples and report.time_ms <= samples[-1][0]:
            return
        samples.append((report.time_ms, measures_of(report)))
        if len(samples) > KEPT_SAMPLES:  # of the older half every second one goes
            half = len(samples) // 2
            self._state.samples = [*samples[:half:2], *samples[half:]]

    def raised(self, alarm: Alarm) -> list[Incident]:
        """Take an alarm; the incidents that it changes. One that was taken before changes nothing."""
        state = self._state
        if any(known.id == alarm.id for known in state.alarms):
            return []
        state.alarms = [*state.alarms, alarm][-KEPT_ALARMS:]
        changed = self.look(alarm.time_ms, alarm.wall_ms)
        since = alarm.time_ms if alarm.since_ms < 0 else min(alarm.since_ms, alarm.time_ms)
        incident = state.open or Incident(
            alarm.id, self._name, "open", alarm.time_ms, alarm.wall_ms, since, "unknown", "", []
        )
        alarms = [*incident.alarms[:1], *[*incident.alarms[1:], alarm][-(MOST_ALARMS - 1) :]]
        state.open = self._told(
            msgspec.structs.replace(incident, alarms=alarms, since_ms=min(incident.since_ms, since))
        )
        return [*changed, state.open]

    def look(self, time_ms: int, wall_ms: int) -> list[Incident]:
        """Close what is over by now; the incidents that it changes."""
        incident = self._state.open
        if incident is None:
            return []
        # Alarms on labels and on events are told by different clocks, so the last one need not be the latest.
        time_since = time_ms - max(alarm.time_ms for alarm in incident.alarms)
        wall_since = wall_ms - max(alarm.wall_ms for alarm in incident.alarms)
        if max(time_since, wall_since) < self._quiet_ms:
            return []
        self._state.open = None
        return [msgspec.structs.replace(self._told(incident), state="closed", closed_wall_ms=wall_ms)]

    def dump(self) -> bytes:
        """Its whole state; `load` continues from it."""
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def load(cls, pipeline: "Pipeline", data: bytes) -> "Incidents":
        """The incidents that `dump` was asked of. Raises `ValueError` for anything else."""
        incidents = cls(pipeline)
        try:
            incidents._state = msgspec.msgpack.decode(data, type=State)
        except msgspec.DecodeError as error:
            message = f"the state of incidents cannot be read: {error}"
            raise ValueError(message) from error
        if incidents._state.layout != LAYOUT:
            message = f"got incidents of layout {incidents._state.layout}, expected {LAYOUT}"
            raise ValueError(message)
        return incidents

    def _told(self, incident: Incident) -> Incident:
        """With cause, measures and events as they are known now."""
        cause, why = cause_of(incident.alarms)
        samples, since = self._state.samples, incident.since_ms
        before = [measures for time_ms, measures in samples if time_ms < since]
        after = [measures for time_ms, measures in samples if time_ms >= since]
        last = max(alarm.time_ms for alarm in incident.alarms)
        near = [
            f"{when(time_ms)}: {what}"
            for time_ms, what in self._state.events
            if since - self._quiet_ms <= time_ms <= last + self._quiet_ms
        ]
        return msgspec.structs.replace(
            incident,
            cause=cause,
            why=why,
            before=before[-1] if before else {},
            after=after[-1] if after else {},
            events=near,
        )


def cause_of(alarms: list[Alarm]) -> tuple[Cause, str]:
    """Where to look first, and the rule that says so.

    >>> drift = Alarm("a", "feature", "feature:x", "d", 0, 0, 0, 0, 1.0, 1.0, "x is not as it was")
    >>> cause_of([drift])[0]
    'data'
    >>> cause_of([msgspec.structs.replace(drift, kind="loss"), drift])[0]
    'data'
    """
    kinds = {alarm.kind for alarm in alarms}
    for cause, explained, why in RULES:
        if kinds.intersection(explained):
            return cause, why
    return "unknown", "no rule knows these alarms"


def measures_of(report: Report) -> Measures:
    """What before and after are compared by: rolling quality, coverage, delay, and the single numbers of the report."""
    rolling = {f"rolling_{name}": value for name, value in report.quality.get("rolling", {}).items()}
    single = {
        "coverage": report.coverage,
        "calibration_error": report.calibration_error,
        "events_per_second": report.events_per_second,
        "lag": float(sum(report.lag.values())),
        "model_lag": float(report.model_lag),
        "dead_letters": float(sum(report.dead_letters.values())),
    }
    recent = ("p50", "p90", "p99")
    delays = {f"label_delay_{name}": report.label_delay[name] for name in recent if name in report.label_delay}
    return rolling | single | delays
