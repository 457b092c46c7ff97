"""What the units' summaries say about the data, before any label: drift, data quality, coverage, pipeline health.

    Summary -> tiles of event time (a day each) -> windows of enough events -> statistics per signal -> alarms

A window is whole days, because an hour of the night is no drift; each partition must have been through a day before it
ends, because one partition that is behind is no drift either. All of it is a fold over `<p>.summaries`: no clock, and
the same alarms whoever makes it again.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from learning.alarms import DETECTOR, LEAST, Bet, Usual, alarm_threshold, new_bet
from learning.health import Health, Pulse, Trouble
from learning.reports import Alarm, AlarmKind, Categories, FieldReport, Measures, Sketch, Summary
from learning.sketch import (
    add,
    add_categories,
    all_distances,
    distances,
    mean,
    merge_all,
    merge_all_categories,
    share_outside,
)
from learning.summary import DAY_MS, Fields

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

BUDGET = 1.0 / 30.0
"""False alarms a day, of event time, that a pipeline is held to."""
LEAST_EVENTS = 300
"""Events that a window has at least, be it of several days."""
REFERENCE = 7
"""Windows that make a reference: a week of days."""
OPEN_TILES = 3
"""Days that are kept open for partitions from which nothing comes; one that is read to its end may just be quiet."""
BEHIND_TILES = 30
"""Days that are kept open for partitions with records still to be read, as while a backlog is done."""
HORIZONS = 4
"""Cohorts of predictions are counted for this many horizons."""
BURST = REFERENCE + LEAST
"""Windows after an alarm within which others belong to it: until what it was about is watched again."""
PRIOR_SD = 0.35
"""The logarithm of a distance between samples of one distribution varies about so much."""
MOST_OLD = 2
"""Earlier references that a signal remembers, so that a regime which returns is known."""
LEAST_LABELLED = 50
"""Labels that a window must usually have for a lack of them to be noticed."""
POURED = 16
"""Summaries of a day that wait at most until they are put together."""
LAYOUT = 1

Held = Sketch | Categories


class Tile(msgspec.Struct, array_like=True):
    """What came with event times of some days: sketches and categories by signal, and labels by kind."""

    events: int = 0
    since_ms: int = 0
    until_ms: int = 0
    numbers: dict[str, Sketch] = {}
    categories: dict[str, Categories] = {}
    labels: dict[str, int] = {}

    def held(self, name: str) -> Held:
        """What it has of a signal."""
        if name in self.numbers:
            return self.numbers[name]
        return self.categories[name] if name in self.categories else Sketch()

    def pour(self, others: Sequence["Tile"]) -> None:
        """Add others, which stay as they are."""
        for other in others:
            if other.events:
                self.since_ms = min(self.since_ms, other.since_ms) if self.events else other.since_ms
                self.until_ms = max(self.until_ms, other.until_ms)
            self.events += other.events
            for kind, n in other.labels.items():
                self.labels[kind] = self.labels.get(kind, 0) + n
        numbers, categories = (
            _by_name(getattr(tile, held) for tile in (self, *others)) for held in ("numbers", "categories")
        )
        self.numbers = dict(zip(numbers, merge_all(list(numbers.values())), strict=True))
        self.categories = {name: merge_all_categories(group) for name, group in categories.items()}


class Regime(msgspec.Struct, array_like=True):
    """What a signal is like for a time, and how its windows differ from that.

    Attributes:
        bet: the e-detector of these differences.
        since_ms: event time at which it begins.
        windows: how many of its first windows are in the reference.
        number: the reference, of a number.
        category: of a category.
    """

    bet: Bet
    since_ms: int = 0
    windows: int = 0
    number: Sketch | None = None
    category: Categories | None = None

    @property
    def reference(self) -> Held:
        """The first windows together."""
        return self.category or self.number or Sketch()

    def take(self, held: Held, since_ms: int) -> None:
        """Make one more window part of the reference."""
        if not self.windows:
            self.since_ms = since_ms
        self.windows += 1
        if isinstance(held, Categories):
            self.category = self.category or Categories(0, 0, {})
            add_categories(self.category, held)
        else:
            self.number = self.number or Sketch(bins={})
            add(self.number, held)


class Signal(msgspec.Struct, array_like=True):
    """A number or category that is watched.

    Attributes:
        now: the present regime.
        old: earlier ones, the newest last.
        standing: windows for which an alarm on it still stands.
    """

    now: Regime
    old: list[Regime] = []
    standing: int = 0


class State(msgspec.Struct):
    """All that a survey remembers; plain data."""

    layout: int
    schema: str
    signals: dict[str, Signal]
    offset: int = -1
    version: int = 0
    pulse: Pulse = msgspec.field(default_factory=Pulse)
    open: dict[int, Tile] = {}
    progress: dict[int, int] = {}
    behind: list[int] = []
    closed_to: int = -1
    window: Tile = msgspec.field(default_factory=Tile)
    cohorts: dict[int, int] = {}
    fields: list[FieldReport] = []
    first_ms: int = -1
    until_ms: int = 0
    burst: int = 0
    coverage: Usual = msgspec.field(default_factory=lambda: Usual(PRIOR_SD))
    uncovered: bool = False


class Place(NamedTuple):
    """Where in the summaries something was found."""

    offset: int
    time_ms: int
    wall_ms: int
    version: int


class Survey:
    """The data of one pipeline, as its units' summaries tell of it.

    Args:
        pipeline: the pipeline.
        budget: false alarms a day of event time that all alarms of the pipeline are held to; half of it is for these.
        cycle_ms: length of the cycle that the data follow, a day as a rule: windows are whole cycles.

    Attributes:
        budget: the same.
        threshold: an alarm is raised when the mean of all signals' detectors reaches it.
    """

    def __init__(self, pipeline: "Pipeline", *, budget: float = BUDGET, cycle_ms: int = DAY_MS) -> None:
        self._pipeline = pipeline
        self._cycle = cycle_ms
        self._tile = max(pipeline.horizon_ms // 24, 1)
        self._features = [f"feature:{name}" for name in pipeline.feature_set.names]
        fields = Fields(pipeline)
        self._fields = [f"field:{name}" for name in (*fields.numbers, *fields.categories)]
        self.budget = budget
        self.threshold = alarm_threshold(budget, cycle_ms / DAY_MS)
        names = [*self._features, "prediction", *self._fields]
        self._numeric = {*self._features, "prediction", *(f"field:{name}" for name in fields.numbers)}
        # What is counted by cycle, by horizon, and as a number or a category, does not go on in another one of these.
        schema = f"{pipeline.feature_set.schema}/{cycle_ms}/{pipeline.horizon_ms}/{','.join(fields.numbers)}"
        self._poured: dict[int, list[Tile]] = {}
        self._state = State(LAYOUT, schema, {name: Signal(Regime(_new_bet())) for name in names})

    @property
    def offset(self) -> int:
        """Offset of the last summary; -1 before the first."""
        return self._state.offset

    @property
    def until_ms(self) -> int:
        """Latest event time of a prediction."""
        return self._state.until_ms

    def add(self, offset: int, summary: Summary) -> list[Alarm]:
        """Take the summary at this offset of the topic; one at or before the last is passed over.

        The alarms that it raises. A summary of another feature list is none of this pipeline's as it is now.
        """
        state = self._state
        if offset <= state.offset:
            return []
        state.offset = offset
        state.version = max(state.version, summary.version)
        state.until_ms = max(state.until_ms, summary.until_ms)
        place = Place(offset, state.until_ms, summary.wall_ms, state.version)
        alarms = [_pipeline_alarm(place, trouble) for trouble in state.pulse.take(summary)]
        self._note_lag(summary)
        if summary.events and len(summary.features) == len(self._features):
            self._count_cohorts(summary)
            self._pour(summary)
            for window in self._windows():
                alarms += self._judge(window, place)
        return alarms

    def fields(self) -> list[FieldReport]:
        """Every feature and every watched field in the last whole window; in what there is, before the first."""
        if self._state.fields:
            return self._state.fields
        so_far = Tile()
        so_far.pour([self._state.window, *self._state.open.values(), *chain.from_iterable(self._poured.values())])
        return list(self._reports(so_far, {}))

    def drift(self) -> Measures:
        """For each signal how much of the threshold it has reached by itself, and "data" for all together."""
        signals = self._state.signals
        measures = {name: _value(signal) / (self.threshold * len(signals)) for name, signal in signals.items()}
        return {"data": sum(measures.values()), **measures}

    def coverage(self, labelled: Mapping[int, int]) -> float:
        """Share of predictions whose horizon is over that got a label; -1.0 where there are none.

        Args:
            labelled: how many did, by the start of their cohort as in `Summary.cohorts`.
        """
        over = self._state.until_ms - self._pipeline.horizon_ms - self._tile
        ripe = {start: n for start, n in self._state.cohorts.items() if start <= over}
        predictions = sum(ripe.values())
        return sum(min(labelled.get(start, 0), n) for start, n in ripe.items()) / predictions if predictions else -1.0

    def health(self, wall_ms: int) -> Health:
        """How the pipeline itself is."""
        return self._state.pulse.health(wall_ms)

    def dump(self) -> bytes:
        """Its whole state; `load` continues from it."""
        for day in list(self._poured):
            self._settle(day)
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def load(cls, pipeline: "Pipeline", data: bytes, *, budget: float = BUDGET, cycle_ms: int = DAY_MS) -> "Survey":
        """The survey that `dump` was asked of. Raises `ValueError` if it is none, or another pipeline's."""
        survey = cls(pipeline, budget=budget, cycle_ms=cycle_ms)
        try:
            state = msgspec.msgpack.decode(data, type=State)
        except msgspec.DecodeError as error:
            message = f"the survey's state cannot be read: {error}; it starts anew"
            raise ValueError(message) from error
        mine = survey._state
        if (state.layout, state.schema, [*state.signals]) != (mine.layout, mine.schema, [*mine.signals]):
            message = (
                f"got a survey of layout {state.layout} and features {state.schema}, expected layout {mine.layout} and"
                f" {mine.schema} with the same fields; it starts anew"
            )
            raise ValueError(message)
        survey._state = state
        return survey

    def _count_cohorts(self, summary: Summary) -> None:
        cohorts = self._state.cohorts
        for start, n in summary.cohorts.items():
            cohorts[start] = cohorts.get(start, 0) + n
        oldest = self._state.until_ms - HORIZONS * self._pipeline.horizon_ms
        for start in [start for start in cohorts if start < oldest]:
            del cohorts[start]

    def _pour(self, summary: Summary) -> None:
        """Into the tile of its latest event; what comes for a day that is closed already is of none."""
        state = self._state
        if state.first_ms < 0:
            state.first_ms = summary.since_ms
        day = summary.until_ms // self._cycle
        state.progress[summary.partition] = max(state.progress.get(summary.partition, day), day)
        if day < state.closed_to:
            return
        numbers = dict(zip(self._features, summary.features, strict=True))
        numbers["prediction"] = summary.prediction
        numbers |= {f"field:{name}": sketch for name, sketch in summary.numbers.items()}
        counts = {f"field:{name}": each for name, each in summary.categories.items()}
        known = state.signals.keys()
        tile = Tile(
            summary.events,
            summary.since_ms,
            summary.until_ms,
            {name: sketch for name, sketch in numbers.items() if name in self._numeric},
            {name: each for name, each in counts.items() if name in known and name not in self._numeric},
            dict(summary.labels),
        )
        state.open.setdefault(day, Tile())
        self._poured.setdefault(day, []).append(tile)
        if len(self._poured[day]) >= POURED:
            self._settle(day)

    def _settle(self, day: int) -> None:
        """Put together what has been poured into a day: all at once, since that costs little more than one."""
        if poured := self._poured.pop(day, None):
            self._state.open[day].pour(poured)

    def _note_lag(self, summary: Summary) -> None:
        """Whether the partition has events that are not read yet; one that has is waited for longer."""
        if self._pipeline.events.topic not in summary.lag:
            return  # the worker has just begun, and has not been told yet
        behind = set(self._state.behind) - {summary.partition}
        if summary.lag.get(self._pipeline.events.topic, 0) > 0:
            behind.add(summary.partition)
        self._state.behind = sorted(behind)

    def _windows(self) -> Iterator[Tile]:
        """Windows that are whole now: days that every partition is through, until there are enough events.

        A day that ends without a partition which is still to read its part of it is compared with nothing: entities
        keep to their partition, so the rest of them are others than usual, which is no drift.
        """
        state = self._state
        newest = max(state.progress.values())
        allowed = {p: BEHIND_TILES if p in state.behind else OPEN_TILES for p in state.progress}
        progress = {p: day for p, day in state.progress.items() if day > newest - allowed[p]}
        whole = all(p in progress for p in state.behind)
        reached = min(progress.values())
        for day in sorted(state.open):
            if day >= reached:
                break
            self._settle(day)
            tile = state.open.pop(day)
            state.closed_to = day + 1
            if not whole:
                state.window = Tile()
                continue
            if state.window.events:
                state.window.pour([tile])
            else:
                state.window = tile
            if state.window.events >= LEAST_EVENTS:
                window, state.window = state.window, Tile()
                yield window

    def _judge(self, window: Tile, place: Place) -> list[Alarm]:
        state = self._state
        pairs = [(window.held(name), signal.now.reference) for name, signal in state.signals.items()]
        measured = dict(zip(state.signals, all_distances(pairs), strict=True))
        state.fields = list(self._reports(window, measured))
        if window.since_ms < state.first_ms + self._pipeline.feature_set.longest_ms:
            return []  # the profiles fill, so everything drifts, and nobody needs to be told
        alarms = self._coverage_alarm(window, place)
        for name, signal in state.signals.items():
            signal.standing = max(signal.standing - 1, 0)
            held, regime = window.held(name), signal.now
            if not held.n + held.missing:
                continue
            if regime.windows < REFERENCE:
                regime.take(held, window.since_ms)
            else:
                regime.bet.take(statistics(held, regime.reference, measured[name]), window.since_ms)
        return alarms + self._alarms(window, place)

    def _coverage_alarm(self, window: Tile, place: Place) -> list[Alarm]:
        """When less than half as many waits as usual end with a label; over when it is three quarters again."""
        state = self._state
        labelled, expired = (window.labels.get(kind, 0) for kind in ("matched", "expired"))
        if labelled + expired < LEAST_EVENTS:
            return []
        share, usual = labelled / (labelled + expired), state.coverage.mean
        known = state.coverage.armed and usual * (labelled + expired) >= LEAST_LABELLED
        if known and state.uncovered:
            state.uncovered = share < 0.75 * usual
        if not known or (not state.uncovered and share >= 0.5 * usual):
            state.coverage.take(share)
        if not known or state.uncovered or share >= 0.5 * usual:
            return []
        state.uncovered = True
        text = f"{share:.1%} of {labelled + expired} waits ended with a label, {usual:.1%} is usual"
        return [_pipeline_alarm(place, Trouble("labels", "coverage", round(share, 6), round(0.5 * usual, 6), text))]

    def _alarms(self, window: Tile, place: Place) -> list[Alarm]:
        state = self._state
        state.burst = max(state.burst - 1, 0)
        total = sum(map(_value, state.signals.values())) / len(state.signals)
        if total < self.threshold:
            return []
        first = max(state.signals, key=lambda name: (_value(state.signals[name]), name))
        moved = [name for name, signal in state.signals.items() if _value(signal) >= self.threshold or name == first]
        # What is predicted follows from the inputs, so where one of them has moved, the alarm is on that.
        moved.sort(key=lambda name: (name == "prediction", -_value(state.signals[name]), name))
        first = moved[0]
        text, since_ms = self._told(moved, window), state.signals[first].now.bet.since_ms
        for name in moved:
            self._restart(state.signals[name], window.held(name), window.since_ms)
        state.fields = [
            replace(field, drifted=state.signals[f"{field.kind}:{field.name}"].standing > 0) for field in state.fields
        ]
        belongs, state.burst = state.burst > 0, BURST
        if belongs:
            return []
        kind: AlarmKind = "feature" if first in self._features else "prediction" if first == "prediction" else "data"
        value, threshold = round(total, 3), self.threshold
        return [
            Alarm(
                f"{first}-{place.offset}",
                kind,
                first,
                DETECTOR,
                window.until_ms,
                place.wall_ms,
                place.version,
                place.offset,
                value,
                threshold,
                text,
                since_ms,
            )
        ]

    def _restart(self, signal: Signal, held: Held, since_ms: int) -> None:
        """Take what is now as the new regime: one of the earlier ones if it is like it, else a new one."""
        left = signal.now
        left.bet.forget()
        known = next((regime for regime in reversed(signal.old) if _is_like(regime, held)), None)
        signal.old = [regime for regime in (*signal.old, left) if regime is not known][-MOST_OLD:]
        signal.standing = REFERENCE
        if known is None:
            known = Regime(_new_bet())
            known.take(held, since_ms)
            signal.standing = BURST
        signal.now = known

    def _told(self, moved: Sequence[str], window: Tile) -> str:
        """The alarm as a sentence."""
        first = moved[0]
        signal, held = self._state.signals[first], window.held(first)
        reference = signal.now.reference
        text = f"{first} is not as it was from {_day(signal.now.since_ms)} on: {_difference(held, reference)}"
        if any(_is_like(regime, held) for regime in signal.old):
            known = next(regime for regime in reversed(signal.old) if _is_like(regime, held))
            text += f"; it is again as it was from {_day(known.since_ms)} on"
        if others := moved[1:]:
            more = f" and {len(others) - 4} more" if len(others) > 4 else ""
            text += f". With it: {', '.join(others[:4])}{more}"
        return text

    def _reports(self, window: Tile, measured: Mapping[str, tuple[float, float]]) -> Iterator[FieldReport]:
        for name in (*self._features, *self._fields):
            signal = self._state.signals[name]
            kind, _, short = name.partition(":")
            yield _report(short, kind == "feature", window.held(name), signal, measured.get(name, (0.0, 0.0)))


def statistics(held: Held, reference: Held, measured: tuple[float, float] | None = None) -> list[float]:
    """Logarithms of how far a window is from the reference: KS, PSI and the share of missing values.

    Each has added what a window of that size differs by through chance alone, so that zero is a distance too.
    `measured` are KS and PSI where they are known.
    """
    n = max(held.n, 1)
    missing = abs(_angle(held) - _angle(reference))
    furthest, index = distances(held, reference) if measured is None else measured
    return [
        math.log(furthest + 0.5 / math.sqrt(n)),
        math.log(index + 5.0 / n),
        math.log(missing + 0.5 / math.sqrt(n + held.missing)),
    ]


def _by_name(sides: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What each of them has under a name."""
    groups: dict[str, list[Any]] = {}
    for side in sides:
        for name, held in side.items():
            groups.setdefault(name, []).append(held)
    return groups


def _angle(held: Held) -> float:
    """The share of missing values, on the scale on which it varies alike everywhere."""
    return math.asin(math.sqrt(held.missing / max(held.n + held.missing, 1)))


def _new_bet() -> Bet:
    return new_bet(PRIOR_SD, PRIOR_SD, PRIOR_SD)


def _value(signal: Signal) -> float:
    return signal.now.bet.value


def _is_like(regime: Regime, held: Held) -> bool:
    """Whether a window could be one of a regime."""
    bet = regime.bet
    if not bet.armed:
        return False
    seen = statistics(held, regime.reference)
    return all(usual.sf(value) > 0.01 for usual, value in zip(bet.usual, seen, strict=True))


def _difference(held: Held, reference: Held) -> str:
    furthest, index = distances(held, reference)
    parts = [f"KS {furthest:.3f}, PSI {index:.3f}"]
    if isinstance(held, Sketch) and isinstance(reference, Sketch):
        parts.append(f"mean {mean(held):.6g} instead of {mean(reference):.6g}")
    was, now = (each.missing / max(each.n + each.missing, 1) for each in (reference, held))
    if was != now:
        parts.append(f"{now:.1%} missing instead of {was:.1%}")
    return ", ".join(parts)


def _report(name: str, is_feature: bool, held: Held, signal: Signal, measured: tuple[float, float]) -> FieldReport:
    reference = signal.now.reference
    bare = not reference.n
    new: list[str] = []
    if isinstance(held, Categories) and isinstance(reference, Categories) and not reference.others:
        new = sorted(held.counts.keys() - reference.counts.keys(), key=lambda text: (-held.counts[text], text))
        outside = (sum(held.counts[text] for text in new) + held.others) / held.n if held.n else 0.0
    elif isinstance(held, Sketch) and isinstance(reference, Sketch):
        outside = share_outside(held, reference)
    else:
        outside = 0.0
    different = len(held.bins) if isinstance(held, Sketch) else len(held.counts) + (held.others > 0)
    return FieldReport(
        name=name,
        kind="feature" if is_feature else "field",
        n=held.n,
        missing=held.missing / max(held.n + held.missing, 1),
        mean=mean(held) if isinstance(held, Sketch) else 0.0,
        reference_mean=mean(reference) if isinstance(reference, Sketch) else 0.0,
        psi=measured[1],
        ks=measured[0],
        constant=held.n > 1 and different == 1 and (isinstance(held, Categories) or held.low == held.high),
        outside=0.0 if bare else outside,
        new=[] if bare else new[:10],
        drifted=signal.standing > 0,
    )


def _pipeline_alarm(place: Place, trouble: Trouble) -> Alarm:
    offset, time_ms, wall_ms, version = place
    id_ = f"{trouble.signal}-{offset}"
    return Alarm(
        id_,
        trouble.kind,
        trouble.signal,
        "threshold",
        time_ms,
        wall_ms,
        version,
        offset,
        trouble.value,
        trouble.threshold,
        trouble.text,
    )


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
