"""Alarms become incidents: one while they come, closed in time, with cause, since when, measures and what was done."""

from typing import Any, get_args

import msgspec
import pytest

from learning.incidents import (
    EVERY,
    KEPT_ALARMS,
    KEPT_EVENTS,
    KEPT_SAMPLES,
    LONGEST,
    MOST_ALARMS,
    QUIET_MS,
    RULES,
    Incidents,
    cause_of,
    measures_of,
)
from learning.records import Control
from learning.reports import Alarm, AlarmKind, Cause, Report
from pipelines.definition import Reaction, relearn, reset
from tests.doubles import HOUR, tiny_pipeline

DAY = 24 * HOUR
START = 100 * DAY


def incidents(react: Reaction | None = None) -> Incidents:
    return Incidents(tiny_pipeline(react=react))


def alarm(number: int, kind: AlarmKind = "loss", *, at: int = START, wall: int = 0, **more: Any) -> Alarm:
    return Alarm(f"a{number}", kind, kind, "SR", at, wall, 7, number, 9.0, 8.0, f"{kind} changed", **more)


def report(time_ms: int, log_loss: float = 0.3, **more: Any) -> Report:
    return Report("tiny", 1, time_ms, quality={"rolling": {"log_loss": log_loss}}, **more)


# -- opening, joining, closing


def test_an_alarm_opens_an_incident_of_its_id() -> None:
    held = incidents()
    (opened,) = held.raised(alarm(1, at=START, wall=5, since_ms=START - DAY))
    assert (opened.id, opened.pipeline, opened.state) == ("a1", "tiny", "open")
    assert (opened.opened_ms, opened.opened_wall_ms, opened.since_ms) == (START, 5, START - DAY)
    assert (held.open_ids(), held.alarms, opened.alarms) == (
        ["a1"],
        [alarm(1, wall=5, since_ms=START - DAY)] * 1,
        held.alarms,
    )


def test_alarms_that_follow_join_it() -> None:
    held = incidents()
    held.raised(alarm(1, "feature", since_ms=START - DAY))
    (joined,) = held.raised(alarm(2, "loss", at=START + 3 * DAY, since_ms=START - 2 * DAY))
    assert (joined.id, [each.id for each in joined.alarms]) == ("a1", ["a1", "a2"])
    assert joined.since_ms == START - 2 * DAY, "the earliest change of its signals"
    assert held.open_ids() == ["a1"]


@pytest.mark.parametrize(("given", "since"), [(-1, START), (START - 1, START - 1), (START + 1, START), (0, 0)])
def test_since_is_the_alarm_s_own_time_where_nobody_can_tell(given: int, since: int) -> None:
    assert incidents().raised(alarm(1, since_ms=given))[0].since_ms == since


def test_an_alarm_taken_before_changes_nothing() -> None:
    held = incidents()
    held.raised(alarm(1))
    before = held.dump()
    assert held.raised(alarm(1)) == []
    assert held.dump() == before


def test_a_loss_a_week_after_its_inputs_is_the_same_incident() -> None:
    """It was another one after a day by the clock: in a stream of the present, none was ever joined to its cause."""
    held = incidents()
    held.raised(alarm(1, "feature", at=START, wall=START))
    later = START + 7 * DAY
    assert held.look(later - 1, later - 1) == []
    (joined,) = held.raised(alarm(2, "loss", at=later, wall=later))
    assert (joined.id, joined.cause) == ("a1", "data")


@pytest.mark.parametrize("moved", ["event time", "clock"])
def test_it_is_closed_when_none_has_come_for_a_week_and_the_horizon(moved: str) -> None:
    held = incidents()
    held.raised(alarm(1, at=START, wall=50))
    quiet = QUIET_MS + HOUR  # of the tiny pipeline's horizon
    time_ms, wall = (START + quiet, 60) if moved == "event time" else (START, 50 + quiet)
    early = (time_ms - 1, wall) if moved == "event time" else (time_ms, wall - 1)
    assert held.look(*early) == []
    (closed,) = held.look(time_ms, wall)
    assert (closed.id, closed.state, closed.closed_wall_ms) == ("a1", "closed", wall)
    assert (held.open_ids(), held.look(time_ms, wall)) == ([], [])


def test_an_alarm_long_after_closes_it_and_opens_the_next() -> None:
    held = incidents()
    held.raised(alarm(1))
    closed, opened = held.raised(alarm(2, at=START + 60 * DAY, wall=9))
    assert (closed.id, closed.state, [each.id for each in closed.alarms]) == ("a1", "closed", ["a1"])
    assert (opened.id, opened.state, held.open_ids()) == ("a2", "open", ["a2"])


def test_the_latest_alarm_counts_also_when_an_earlier_time_comes_after_it() -> None:
    """Labels tell another time than events."""
    held = incidents()
    held.raised(alarm(1, at=START + 6 * DAY))
    held.raised(alarm(2, at=START))
    assert held.look(START + QUIET_MS + 2 * HOUR, 0) == []


def test_a_stream_that_has_not_moved_closes_nothing() -> None:
    held = incidents()
    held.raised(alarm(1))
    assert held.look(0, 0) == []


# -- the cause


def test_every_kind_of_alarm_has_one_rule() -> None:
    explained = [kind for _, kinds, _ in RULES for kind in kinds]
    assert sorted(explained) == sorted(get_args(AlarmKind))


@pytest.mark.parametrize(
    ("kinds", "cause"),
    [
        (["loss"], "model"),
        (["feature"], "data"),
        (["data"], "data"),
        (["quality"], "data"),
        (["prediction"], "unknown"),
        (["labels"], "labels"),
        (["pipeline"], "pipeline"),
        (["loss", "feature"], "data"),
        (["loss", "prediction"], "model"),
        (["feature", "labels"], "labels"),
        (["loss", "feature", "labels", "pipeline"], "pipeline"),
    ],
)
def test_what_comes_first_in_the_pipeline_is_the_cause(kinds: list[AlarmKind], cause: Cause) -> None:
    found = [alarm(number, kind) for number, kind in enumerate(kinds)]
    assert cause_of(found)[0] == cause_of(found[::-1])[0] == cause
    assert len(cause_of(found)[1]) > 20
    held = incidents()
    for each in found:
        told = held.raised(each)[-1]
    assert (told.cause, told.why) == cause_of(found)


# -- before and after, what was done


def test_measures_before_and_after_are_those_around_the_change() -> None:
    held = incidents()
    for day, loss in enumerate([0.1, 0.2, 0.8, 0.9]):
        held.sample(report(START + day * DAY, loss))
    (opened,) = held.raised(alarm(1, at=START + 3 * DAY, since_ms=START + 2 * DAY))
    assert (opened.before["rolling_log_loss"], opened.after["rolling_log_loss"]) == (0.2, 0.9)
    held.sample(report(START + 4 * DAY, 0.4))
    (joined,) = held.raised(alarm(2, at=START + 4 * DAY))
    assert (joined.before["rolling_log_loss"], joined.after["rolling_log_loss"]) == (0.2, 0.4)


def test_there_may_be_nothing_before_or_after() -> None:
    (opened,) = incidents().raised(alarm(1))
    assert (opened.before, opened.after, opened.events) == ({}, {}, [])


def test_a_control_record_is_told_at_once_where_an_incident_is_open() -> None:
    held = incidents()
    assert held.said(START - DAY, 40, Control("freeze", 0, "ann")) == []
    held.raised(alarm(1))
    (told,) = held.said(START, 50, Control("relearn", 0, "headwater", "alarm a1", since=20))
    assert told.events == [
        "1970-04-10 00:00 UTC: freeze by ann at offset 40",
        "1970-04-11 00:00 UTC: relearn by headwater at offset 50: alarm a1",
    ]


def test_what_was_done_long_before_is_no_evidence() -> None:
    held = incidents()
    held.said(START - 30 * DAY, 40, Control("freeze", 0, "ann"))
    assert held.raised(alarm(1))[0].events == []


def test_partitions_that_a_worker_opens_are_one_event() -> None:
    held = incidents()
    for worker, partition in (("a:1", 0), ("a:1", 1), ("b:2", 0), ("a:1", 3)):
        held.opened(START, worker, partition)
    (told,) = held.raised(alarm(1))
    when = "1970-04-11 00:00 UTC:"
    assert told.events == [
        f"{when} a:1 opened partition 0, 1",
        f"{when} b:2 opened partition 0",
        f"{when} a:1 opened partition 3",
    ]


def test_measures_are_the_rolling_ones_and_single_numbers() -> None:
    told = report(1, lag={"a": 3, "b": 4}, dead_letters={"late": 0.25}, label_delay={"p50": 2.0, "total_p50": 9.0})
    measures = measures_of(told)
    assert (measures["rolling_log_loss"], measures["lag"], measures["dead_letters"]) == (0.3, 7.0, 0.25)
    assert {name: value for name, value in measures.items() if "delay" in name} == {"label_delay_p50": 2.0}


# -- where the newest examples lie


@pytest.mark.parametrize("asked", [1, 63, 64, 65, 66, 128, 129, 1_000])
@pytest.mark.parametrize("seen", [1, 63, 64, 65, 127, 128, 1_000, 5_000])
def test_a_reaction_learns_as_many_as_it_asks_for_and_fewer_than_64_more(asked: int, seen: int) -> None:
    held = incidents(relearn(asked))
    offsets = [3 * number for number in range(seen)]  # with gaps, as markers leave
    for offset in offsets:
        held.example(offset)
    taken = sum(offset >= held.since(offsets[-1]) for offset in offsets)
    assert min(asked, seen) <= taken < asked + EVERY


def test_a_reset_learns_nothing_again() -> None:
    held = incidents(reset())
    held.example(5)
    assert held.since(5) == 6
    assert incidents(relearn(10)).since(5) == 6, "none has been seen"


def test_since_goes_on_after_another_reaction_was_chosen() -> None:
    held = incidents(relearn(100))
    for offset in range(1_000):
        held.example(offset)
    more = Incidents.load(tiny_pipeline(react=relearn(500)), held.dump())
    assert 800 <= more.since(999) <= 900, "what it knows of, fewer than it asks for"
    assert Incidents.load(tiny_pipeline(react=reset()), held.dump()).since(999) == 1_000


# -- memory and state


def test_memory_is_bounded_whatever_comes() -> None:
    held = incidents(relearn(1_000))
    for number in range(300):
        held.sample(report(START + number * 1_000, 0.3))
        held.said(START, number, Control("boost", 0, "x" * 100, "y" * 900, factor=2.0, examples=1))
        held.opened(START, "worker:1", number)
        for place in range(10):
            held.example(10 * number + place)
        held.raised(alarm(number))
    state = held._state
    assert state.open is not None
    assert (len(state.alarms), len(state.open.alarms), len(state.events)) == (KEPT_ALARMS, MOST_ALARMS, KEPT_EVENTS)
    assert len(state.samples) <= KEPT_SAMPLES
    assert len(state.index) <= 1_000 // EVERY + 2
    assert len(held.dump()) < 200_000
    assert (state.open.alarms[0].id, state.open.alarms[-1].id) == ("a0", "a299"), "the first one names it"


def test_an_event_of_many_partitions_stays_short() -> None:
    held = incidents()
    for partition in range(5_000):
        held.opened(START, "worker:1", partition)
    assert max(len(text) for _, text in held._state.events) < LONGEST + 10
    assert len(held._state.events) <= KEPT_EVENTS


def test_samples_are_thinned_with_age_and_the_newest_stays() -> None:
    held = incidents()
    for number in range(10_000):
        held.sample(report(number + 1, float(number)))
    times = [time_ms for time_ms, _ in held._state.samples]
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == (1, 10_000)
    assert times[-10:] == list(range(9_991, 10_001))
    held.sample(report(10_000, 9.0))
    held.sample(report(5, 9.0))
    assert [time_ms for time_ms, _ in held._state.samples] == times, "time has not moved"


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", msgspec.msgpack.encode({"layout": 99}), msgspec.msgpack.encode([1])]
)
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="incidents"):
        Incidents.load(tiny_pipeline(react=None), data)
