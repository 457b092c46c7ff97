"""How soon the alarms find the changes of `card_fraud` in worlds that nothing was chosen by, and what else they say."""

from bisect import bisect_right
from typing import Any

import msgspec

from learning.backtest import backtest
from learning.illusion import Alarms
from learning.records import Example, LogRecord
from learning.reports import Alarm
from pipelines.card_fraud import CHANGES, START, card_fraud, history
from pipelines.streams import ms_of

ENOUGH = 10_000
"""Examples after a change by which an alarm must have come to have found it."""
FINDS = ("prediction", "feature", "data", "loss")
"""Kinds of alarms that can tell of a change of pattern. Chargebacks do not come later for it."""


class World(msgspec.Struct):
    """What the alarms said in one world.

    Attributes:
        seed: the world's.
        until_found: for each change, how many examples were in the training log between it and the first alarm that
            found it; None where none did.
        others: the first alarms of all the rest, by day of the world and signal.
        days: how long it was.
    """

    seed: int
    until_found: list[int | None]
    others: list[tuple[int, str]]
    days: float


def world(seed: int) -> World:
    """Run one, with the monitors as a worker has them."""
    alarms, label_times = Alarms(card_fraud), []

    def record(offset: int, entry: LogRecord) -> None:
        if isinstance(entry, Example):
            label_times.append(entry.label_time_ms)
        alarms.record(offset, entry)

    backtest(card_fraud, alarms.through(history(seed=seed)), on_prediction=alarms.prediction, on_record=record)
    return told(seed, alarms.raised, sorted(label_times))


def told(seed: int, raised: list[Alarm], label_times: list[int]) -> World:
    """What these alarms come to; `label_times` in ms, sorted."""
    start, changes = ms_of(START), [ms_of(change) for change in CHANGES]
    found: list[int | None] = [None] * len(changes)
    others: list[tuple[int, str]] = []
    for alarm in sorted(raised, key=lambda each: each.time_ms):
        last: Any = bisect_right(changes, alarm.time_ms) - 1
        since = bisect_right(label_times, alarm.time_ms) - bisect_right(label_times, changes[last])
        if last < 0 or since > ENOUGH or alarm.kind not in FINDS:
            others.append((int((alarm.time_ms - start) / 86_400_000), alarm.signal))
        elif found[last] is None:
            found[last] = since
    return World(seed, found, others, (label_times[-1] - start) / 86_400_000)
