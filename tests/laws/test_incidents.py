"""Laws of incidents: saved anywhere they go on alike; whatever comes twice counts once; every alarm is in one."""

from collections.abc import Sequence
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from learning.incidents import Incidents
from learning.records import Control
from learning.reports import Alarm, AlarmKind, Incident, Report
from pipelines.definition import relearn
from tests.doubles import HOUR, tiny_pipeline

PIPELINE = tiny_pipeline(react=relearn(100))
DAY = 24 * HOUR

Step = tuple[str, int, Any]


def alarm(number: int, time_ms: int, kind: AlarmKind, back: int) -> Alarm:
    since = -1 if back < 0 else max(time_ms - back, 0)
    return Alarm(f"a{number}", kind, kind, "SR", time_ms, time_ms, 1, number, 2.0, 1.0, "changed", since)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """What happens to a pipeline, at times that mostly go on."""
    steps: list[Step] = []
    time_ms = 20 * DAY
    for number in range(draw(st.integers(1, 25))):
        time_ms += draw(st.sampled_from([0, HOUR, DAY, 5 * DAY, 20 * DAY, -DAY]))
        what = draw(st.sampled_from(["alarm", "alarm", "look", "sample", "said", "opened", "examples"]))
        more: Any = number
        if what == "alarm":
            more = alarm(
                number, time_ms, draw(st.sampled_from(get_args(AlarmKind))), draw(st.sampled_from([-1, 0, DAY]))
            )
        steps.append((what, time_ms, more))
    return steps


def do(held: Incidents, step: Step) -> list[Incident]:
    what, time_ms, more = step
    if what == "alarm":
        return held.raised(more)
    if what == "look":
        return held.look(time_ms, time_ms)
    if what == "said":
        return held.said(time_ms, more, Control("freeze", 0, "ann"))
    if what == "opened":
        return held.opened(time_ms, "w:1", more)
    if what == "sample":
        held.sample(Report("tiny", 0, time_ms, quality={"rolling": {"log_loss": float(more)}}))
    else:
        for number in range(70):
            held.example(1_000 * more + number)
    return []


def done(steps: Sequence[Step]) -> tuple[list[Incident], bytes]:
    held = Incidents(PIPELINE)
    return [each for step in steps for each in do(held, step)], held.dump()


@given(histories())
def test_saved_after_every_step_they_go_on_alike(steps: list[Step]) -> None:
    expected, state = done(steps)
    held, changed = Incidents(PIPELINE), []
    for step in steps:
        held = Incidents.load(PIPELINE, held.dump())
        changed += do(held, step)
    assert (changed, held.dump()) == (expected, state)


@given(histories())
def test_an_alarm_that_comes_again_changes_nothing(steps: list[Step]) -> None:
    twice = [again for step in steps for again in ([step, step] if step[0] == "alarm" else [step])]
    assert done(twice) == done(steps)


@given(histories())
def test_every_alarm_is_in_one_incident_and_one_is_open_at_most(steps: list[Step]) -> None:
    records, _ = done(steps)
    last = {record.id: record for record in records}
    raised = sorted(more.id for what, _, more in steps if what == "alarm")
    assert sorted(each.id for record in last.values() for each in record.alarms) == raised
    assert sum(record.state == "open" for record in last.values()) <= 1
    for record in last.values():
        assert record.id == record.alarms[0].id
        assert record.since_ms == min(a.time_ms if a.since_ms < 0 else a.since_ms for a in record.alarms)
        states = [each.state for each in records if each.id == record.id]
        assert "closed" not in states[:-1], "what is closed stays closed"
