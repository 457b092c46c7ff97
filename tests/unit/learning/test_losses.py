"""Alarms on the training log: losses that grow, labels that come later."""

import random
from typing import Any

import msgspec
import pytest

from bench.alarms import pipeline
from learning.losses import LossAlarm
from learning.records import Control, Example
from learning.reports import Alarm
from learning.summary import DAY_MS
from tests.folds import columns_of

PIPELINE = pipeline()
A_DAY = 400
FIRST = -(-PIPELINE.baseline_examples // A_DAY)  # days that are passed over


def example(day: int, place: int, *, right: float, delay_s: float, rng: random.Random) -> Example:
    at = day * DAY_MS + place * (DAY_MS // A_DAY)
    outcome = rng.random() < 0.3
    value = 0.8 if outcome == (rng.random() < right) else 0.2
    delay = int(delay_s * 1000 * rng.lognormvariate(0.0, 0.5))
    schema = PIPELINE.feature_set.schema
    return Example("a", "k", at - delay, at, value, 5, [0.0] * 10, schema, outcome, "label")


def log(length: int, change: int, *, right: float = 0.9, delay_s: float = 60.0) -> list[Example]:
    rng = random.Random(2)
    return [
        example(day, n, right=0.9 if day < change else right, delay_s=60.0 if day < change else delay_s, rng=rng)
        for day in range(length)
        for n in range(A_DAY)
    ]


def alarms_of(alarm: LossAlarm, records: list[Any]) -> list[Alarm]:
    return alarm.observe_all(columns_of(PIPELINE, list(enumerate(records)), wall_ms=9), len(records) - 1)


def test_a_loss_that_stays_is_no_alarm() -> None:
    watched = LossAlarm(PIPELINE)
    assert alarms_of(watched, log(80, 80)) == []
    assert 0.0 < watched.drift()["loss"] < 1.0


@pytest.mark.parametrize(
    ("changed", "signal", "kind"), [({"right": 0.7}, "loss", "loss"), ({"delay_s": 300.0}, "label_delay", "labels")]
)
def test_what_gets_worse_is_one_alarm_soon(changed: dict[str, float], signal: str, kind: str) -> None:
    change = FIRST + 20
    (alarm,) = alarms_of(LossAlarm(PIPELINE), log(change + 12, change, **changed))
    assert (alarm.signal, alarm.kind, alarm.wall_ms, alarm.version) == (signal, kind, 9, 5)
    assert alarm.id == f"{signal}-{alarm.offset}"
    assert change < alarm.time_ms / DAY_MS <= change + 5
    assert "instead of" in alarm.text
    assert alarm.since_ms // DAY_MS == change


def test_what_gets_better_is_none() -> None:
    change = FIRST + 20
    assert alarms_of(LossAlarm(PIPELINE), log(change + 12, change, right=0.99, delay_s=10.0)) == []


def test_it_goes_on_from_its_dump_and_passes_over_what_it_has_seen() -> None:
    change = FIRST + 15
    records = log(change + 8, change, right=0.6)
    whole, first = LossAlarm(PIPELINE), LossAlarm(PIPELINE)
    expected = alarms_of(whole, records)
    half = change * A_DAY + 100
    assert alarms_of(first, records[:half]) == []
    second = LossAlarm.load(PIPELINE, first.dump())
    assert alarms_of(second, records) == expected != []
    assert second.dump() == whole.dump()


def test_corrections_controls_and_other_feature_lists_are_passed_over() -> None:
    (given,) = log(1, 1)[:1]
    watched = LossAlarm(PIPELINE)
    before = watched.drift()
    corrected = msgspec.structs.replace(given, source="correction")
    other = msgspec.structs.replace(given, schema="other")
    control = Control("freeze", 0, "me")
    assert alarms_of(watched, [corrected, other, control]) == []
    assert watched.offset == 2
    assert watched.drift() == before
    assert watched._state.examples == 0


def test_a_dump_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        LossAlarm.load(PIPELINE, b"\x00")


def test_labels_that_are_dated_before_their_events_end_nobody() -> None:
    """The logarithm of a negative delay ended each owner of the log, one after the other."""
    watched = LossAlarm(PIPELINE)
    records = log(FIRST + 12, 0, delay_s=-60.0)
    alarms_of(watched, records)
    assert watched.offset == len(records) - 1


def test_a_loss_alarm_of_another_cycle_starts_anew() -> None:
    with pytest.raises(ValueError, match="starts anew"):
        LossAlarm.load(PIPELINE, LossAlarm(PIPELINE, cycle_ms=DAY_MS // 24).dump())
