"""Rules on the pipeline itself: each raised once, and again only after it was over."""

import random
from typing import Any

import pytest

from learning.health import SPAN_MS, Pulse
from learning.reports import Summary

MINUTE = 60_000


def said(pulse: Pulse, at: int, partition: int = 0, worker: str = "w", **given: Any) -> list[str]:
    return [trouble.signal for trouble in pulse.take(Summary(partition, worker, at, **given))]


def test_rate_lag_and_owners_are_the_last_ones() -> None:
    pulse = Pulse()
    for second in range(0, 120, 5):
        said(pulse, second * 1000, events=50, lag={"a": 3, "b": 1}, model_lag=second)
    said(pulse, 120_000, partition=1, worker="v", lag={"a": 2})
    said(pulse, 120_000, partition=2, worker="v")
    health = pulse.health(120_000)
    assert 8.0 < health.events_per_second < 12.0
    assert health.lag == {"a": 5, "b": 1}
    assert health.model_lag == 115
    assert health.units == {"w": [0], "v": [1, 2]}
    assert pulse.health(1_000_000).events_per_second == 0.0


def test_what_is_looked_at_is_what_lies_within_the_time() -> None:
    """Against counting every summary: workers' clocks differ, so summaries do not come in the order of theirs."""
    pulse, rng, told = Pulse(), random.Random(3), []
    now = 0
    for _ in range(1_500):
        now += rng.choice([100, 2_000, 7_000])
        at = max(now - rng.choice([0, 0, 15_000, 400_000]), 0)
        events, dead = rng.randrange(500), {"malformed": rng.randrange(2)}
        said(pulse, at, events=events, dead_letters=dead)
        told.append((at // SPAN_MS * SPAN_MS, events, sum(dead.values())))
        health = pulse.health(now)
        since = now - MINUTE - SPAN_MS
        spans = [start for start, _, _ in told if start > since]
        seconds = max(min(now - min(spans), MINUTE + SPAN_MS), SPAN_MS) / 1000.0
        assert health.events_per_second == sum(n for start, n, _ in told if start > since) / seconds
        recent = [(n + dead, dead) for start, n, dead in told if start > now - 5 * MINUTE]
        records, letters = (sum(side) for side in zip(*recent, strict=True))
        assert sum(health.dead_letters.values()) == pytest.approx(letters / records)
    assert [span.start_ms for span in pulse.spans] == sorted(
        {start for start, _, _ in told if start > now - 10 * MINUTE}
    )


def test_dead_letters_are_an_alarm_once_until_they_are_over() -> None:
    pulse = Pulse()
    assert said(pulse, 0, events=90, dead_letters={"malformed": 10}) == []  # too few to tell
    assert said(pulse, 1_000, events=80, dead_letters={"malformed": 15, "invalid": 5}) == ["dead_letters"]
    assert said(pulse, 2_000, events=80, dead_letters={"malformed": 20}) == []
    share = pulse.health(2_000).dead_letters
    assert share == {"malformed": 45 / 300, "invalid": 5 / 300}
    assert said(pulse, 10 * MINUTE, events=1_000) == []
    assert said(pulse, 11 * MINUTE, events=100, dead_letters={"malformed": 100}) == ["dead_letters"]


def test_lag_is_an_alarm_when_it_is_more_than_a_minutes_work_and_grows() -> None:
    pulse = Pulse()
    found = [said(pulse, n * SPAN_MS, events=1_000, lag={"a": n * 1_000}) for n in range(60)]
    assert [signal for signals in found for signal in signals] == ["lag"]
    steady = Pulse()
    assert not any(said(steady, n * SPAN_MS, events=1_000, lag={"a": 50_000}) for n in range(60))


def test_the_same_partition_opened_again_and_again_is_an_alarm_and_a_rebalance_is_none() -> None:
    pulse = Pulse()
    assert not any(said(pulse, 0, partition=n, opened=True) for n in range(12))
    assert said(pulse, MINUTE, partition=3, opened=True) == []
    assert said(pulse, 2 * MINUTE, partition=3, opened=True) == ["restarts"]
    assert said(pulse, 3 * MINUTE, partition=3, opened=True) == []
    assert pulse.health(3 * MINUTE).restarts == 15
    assert said(pulse, 30 * MINUTE, partition=3) == []
    assert pulse.standing == []
