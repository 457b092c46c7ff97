"""What the training log says against the model: losses that grow, labels that come later than they did.

One owner of the log calls it, record by record. The windows and the bets are those of `learning.alarms`; a window ends
with a day of label time, when it has enough examples. Only what gets worse is an alarm.
"""

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from learning.alarms import DETECTOR, Bet, alarm_threshold, new_bet
from learning.quality import added
from learning.records import LogRecord
from learning.reports import Alarm, Measures
from learning.scored import Rows, Scored
from learning.summary import DAY_MS
from learning.survey import BUDGET, LEAST_EVENTS

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

LEAST_OF_A_KIND = 10
"""Examples of one outcome that a window must have, or it says nothing about these."""
LOSS_SD, DELAY_SD = 0.3, 0.2
"""How much the logarithms of a window's mean loss and median delay are assumed to vary before there are windows."""
SMALLEST = 1e-6
LAYOUT = 1


class _Window(msgspec.Struct, array_like=True):
    """Sums over the examples so far: all, those that came True, those that came False; and label delays in seconds.

    `day` is the latest day of label time in it, `first` that of its first example.
    """

    day: int = -1
    counts: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    losses: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0, 0.0])
    delays: list[float] = []
    first: int = -1


class _State(msgspec.Struct):
    layout: int
    schema: str
    bets: dict[str, Bet]
    offset: int = -1
    examples: int = 0
    window: _Window = msgspec.field(default_factory=_Window)


class LossAlarm:
    """Watches the loss, and the delay of labels, of one pipeline.

    Args:
        pipeline: the pipeline.
        budget: false alarms a day of label time that all alarms of the pipeline are held to; half of it is for these.
        cycle_ms: length of the cycle that the data follow, a day as a rule.

    Attributes:
        threshold: an alarm is raised when the mean of both detectors reaches it.
    """

    def __init__(self, pipeline: "Pipeline", *, budget: float = BUDGET, cycle_ms: int = DAY_MS) -> None:
        self._pipeline = pipeline
        self._cycle = cycle_ms
        self._rows = Rows(pipeline)
        self._first = pipeline.baseline_examples
        self.threshold = alarm_threshold(budget, cycle_ms / DAY_MS)
        # A window ends with a cycle, so what was counted in another one does not go on in this.
        schema = f"{pipeline.feature_set.schema}/{cycle_ms}"
        self._state = _State(LAYOUT, schema, {name: _new_bet(name) for name in _SIGNALS})

    @property
    def offset(self) -> int:
        """Offset of the last record; -1 before the first."""
        return self._state.offset

    def observe(self, offset: int, record: LogRecord, wall_ms: int) -> Alarm | None:
        """Take one record, as `observe_all` takes many; the alarm that it raises, if any.

        Args:
            offset: where it lies in the log.
            record: what stands there.
            wall_ms: when it was written, for the alarm.
        """
        return next(iter(self.observe_all(self._rows.of(offset, wall_ms, record), offset)), None)

    def observe_all(self, scored: Scored, to: int) -> list[Alarm]:
        """Take examples of the log in order; one at or before the last offset is passed over.

        The alarms that they raise: none in the pipeline's first `baseline_examples`. Corrections are second outcomes
        and count no more here than in the watch.

        Args:
            scored: the examples that tell how good the model is.
            to: offset of the last record that was read, whatever it was.
        """
        state = self._state
        fresh = scored.behind(state.offset)
        state.offset = max(state.offset, to)
        before, state.examples = state.examples, state.examples + len(fresh.offsets)
        if before < self._first:  # a model that has just begun gets worse and better for no other reason
            fresh = fresh.since(self._first - before)
        if not len(fresh.offsets):
            return []
        alarms: list[Alarm] = []
        # The latest day so far, which only goes on.
        days = np.maximum.accumulate(fresh.label_times // self._cycle)
        starts = [0, *(np.flatnonzero(days[1:] > days[:-1]) + 1).tolist()]
        for start, stop in zip(starts, [*starts[1:], len(days)], strict=True):
            alarm = self._begin(int(days[start]), fresh, start)
            alarms += [] if alarm is None else [alarm]
            _count(state.window, fresh, slice(start, stop), self._cycle)
        return alarms

    def _begin(self, day: int, scored: Scored, place: int) -> Alarm | None:
        """An example of this day comes: end the window before where it has enough; the alarm that this raises."""
        window, alarm = self._state.window, None
        if day <= window.day:
            return None
        if window.counts[0] >= LEAST_EVENTS:
            self._state.window = _Window()
            alarm = self._judge(window, scored, place)
        self._state.window.day = day
        return alarm

    def drift(self) -> Measures:
        """For "loss" and "label_delay", how much of the threshold each has reached by itself."""
        bets = self._state.bets
        return {name: bet.value / (self.threshold * len(bets)) for name, bet in bets.items()}

    def dump(self) -> bytes:
        """Its whole state; `load` continues from it."""
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def load(cls, pipeline: "Pipeline", data: bytes, *, budget: float = BUDGET, cycle_ms: int = DAY_MS) -> "LossAlarm":
        """What `dump` was asked of. Raises `ValueError` if it is none, or another pipeline's."""
        made = cls(pipeline, budget=budget, cycle_ms=cycle_ms)
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except msgspec.DecodeError as error:
            message = f"the state of the loss alarm cannot be read: {error}; it starts anew"
            raise ValueError(message) from error
        if (state.layout, state.schema) != (LAYOUT, made._state.schema):
            message = (
                f"got a loss alarm of layout {state.layout} and features {state.schema}, expected layout {LAYOUT} and"
                f" {made._state.schema}; it starts anew"
            )
            raise ValueError(message)
        made._state = state
        return made

    def _judge(self, window: _Window, scored: Scored, place: int) -> Alarm | None:
        state, offset = self._state, int(scored.offsets[place])
        now = _measures(window)
        names = {"loss": ("loss", "loss of True", "loss of False"), "label_delay": ("label delay",)}
        for signal, bet in state.bets.items():
            statistics = [
                None if name not in now else math.log(max(now[name], 0.0) + SMALLEST) for name in names[signal]
            ]
            bet.take(statistics, window.first * self._cycle)
        total = sum(bet.value for bet in state.bets.values()) / len(state.bets)
        if total < self.threshold:
            return None
        first = max(state.bets, key=lambda name: state.bets[name].value)
        usual = dict(zip(names[first], state.bets[first].usual, strict=True))
        told = [f"{name} {now[name]:.4g} instead of {math.exp(usual[name].mean):.4g}" for name in usual if name in now]
        since_ms = state.bets[first].since_ms
        unit = " seconds (median)" if first == "label_delay" else " (means)"
        for name, bet in state.bets.items():
            if name == first or bet.value >= self.threshold:
                state.bets[name] = _new_bet(name)
        return Alarm(
            id=f"{first}-{offset}",
            kind="loss" if first == "loss" else "labels",
            signal=first,
            detector=DETECTOR,
            time_ms=int(scored.label_times[place]),
            wall_ms=int(scored.wall_ms[place]),
            version=int(scored.versions[place]),
            offset=offset,
            value=round(total, 3),
            threshold=self.threshold,
            text=f"{first.replace('_', ' ')} grew: {', '.join(told)}{unit}",
            since_ms=since_ms,
        )


def _count(window: _Window, scored: Scored, at: slice, cycle_ms: int) -> None:
    """Count the examples of a slice, one at least; sums are added to one by one, however the log is cut."""
    outcomes, costs = scored.outcomes[at], scored.costs[at]
    if not window.counts[0]:
        window.first = int(scored.label_times[at][0]) // cycle_ms
    kinds = [costs, costs[outcomes], costs[~outcomes]] if outcomes.dtype == bool else [costs]
    for kind, chosen in enumerate(kinds):
        window.counts[kind] += len(chosen)
        window.losses[kind] = added(chosen.tolist(), window.losses[kind])
    room = LEAST_EVENTS - len(window.delays)
    if room > 0:
        labelled = scored.labelled[at]
        delays = (scored.label_times[at] - scored.times[at])[labelled][:room] / 1000.0
        window.delays.extend(delays.tolist())


_SIGNALS = ("loss", "label_delay")


def _new_bet(signal: str) -> Bet:
    return new_bet(LOSS_SD, LOSS_SD, LOSS_SD) if signal == "loss" else new_bet(DELAY_SD)


def _measures(window: _Window) -> dict[str, float]:
    """Mean losses of a window, where there are enough, and the median delay of its labels in seconds."""
    measures = {
        name: loss / n
        for name, n, loss in zip(("loss", "loss of True", "loss of False"), window.counts, window.losses, strict=True)
        if n >= LEAST_OF_A_KIND
    }
    if len(window.delays) >= LEAST_OF_A_KIND:
        measures["label delay"] = sorted(window.delays)[len(window.delays) // 2]
    return measures
