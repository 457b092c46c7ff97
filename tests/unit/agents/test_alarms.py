"""An alarm through the real steps of the log's owner: one incident, one reaction, in the cut of what raised it."""

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiokafka import TopicPartition

from agents import alarms, survey, watch
from agents.loop import MOST_AT_ONCE, TURN, Loop, Pace, wall_ms
from agents.report import Reporter
from learning.incidents import EVERY
from learning.intake import Invalid
from learning.learn import ModelError
from learning.records import Control, Example, decode_log, encode
from learning.reports import Alarm, Incident, Report, Sketch, Summary
from learning.summary import DAY_MS
from learning.survey import LEAST_EVENTS
from pipelines.definition import Pipeline, Reaction, boost, on_loss, on_prediction, relearn, reset
from streaming.config import EngineConfig
from streaming.engine import Engine
from streaming.state import StatePartition
from streaming.telemetry import RecordingMetrics
from streaming.unit import Chunk, Cut, Unit
from tables import monitors
from tests.integration import flights_run

DAYS = 30  # of label time before the outcomes turn
FIRST = 400  # examples that the loss alarm passes over
A_DAY = LEAST_EVENTS + 20
WALL = 1_700_000_000_000


def pipeline_with(react: Reaction | None, drift: Sequence[Any] = ()) -> Pipeline:
    features = flights_run.FEATURES[:2]
    return flights_run.named("alarms", react=react, baseline_examples=FIRST, features=features, drift=list(drift))


def loop_of(pipeline: Pipeline) -> Loop:
    config = EngineConfig(bootstrap="nowhere:1", app_id="app")
    metrics = RecordingMetrics()
    engine = Engine(config, log_topic="log", metrics=metrics, fatal=lambda exc: asyncio.sleep(0))
    return Loop(cast("Any", SimpleNamespace(engine=engine)), pipeline)


def unit_of(pipeline: Pipeline, loads: dict[str, bytes] | None = None) -> Unit:
    """The unit of the log; with what an earlier one had saved."""
    makers = monitors._makers(pipeline)
    part: StatePartition[Any] = StatePartition(
        "m", load=lambda key, data: makers[key][1](data), dump=lambda monitor: monitor.dump()
    )
    for key, value in (loads or {}).items():
        part.restore(key.encode(), value)
    offsets = {TopicPartition(pipeline.training_log_topic, 0): 0, TopicPartition(pipeline.summaries_topic, 0): 0}
    return Unit("log", 0, {monitors.NAME: part}, offsets)


def examples(pipeline: Pipeline, days: int, change: int) -> list[Example]:
    """A model that is right nine times of ten, and from a day on every other time."""
    rng = random.Random(1)
    schema = pipeline.feature_set.schema
    made: list[Example] = []
    for day in range(days):
        for n in range(A_DAY):
            at = (100 + day) * DAY_MS + n * (DAY_MS // A_DAY)
            outcome = rng.random() < 0.3
            right = rng.random() < (0.9 if day < change else 0.5)
            value = 0.8 if outcome == right else 0.2
            made.append(Example(f"i{len(made)}", "k", at - 60_000, at, value, 5, [1.0, 2.0], schema, outcome, "label"))
    return made


def feed(loop: Loop, unit: Unit, entries: list[Any], start: int = 0, at_once: int = 100) -> list[Cut]:
    """The steps of the watch, with a cut after each day; the cuts. Bytes are taken as they are."""
    cuts = []
    tp = TopicPartition(loop.pipeline.training_log_topic, 0)
    offset = start
    while offset < len(entries):
        part = entries[offset : min(offset + at_once, offset - offset % A_DAY + A_DAY)]
        said = watch.step(loop, unit, [record_of(at, entry) for at, entry in enumerate(part, offset)])
        offset += len(part)
        for invalid in said:
            if invalid is not None:
                unit.emit("refused", 0, None, f"{invalid.reason}: {invalid.message}".encode())
        unit.mark(tp, offset - 1)
        if offset % A_DAY == 0:
            cuts.append(unit.cut())
    return [*cuts, unit.cut()]


def test_a_step_of_many_gets_as_many_records_as_half_a_turn_takes() -> None:
    """A detector may take a millisecond for each, and the heartbeat waits for none."""
    pace = Pace()
    for seconds_each, expected in ((1e-6, MOST_AT_ONCE), (TURN / 20, 10), (TURN, 1)):
        for _ in range(10):
            pace.took(pace.at_once, pace.at_once * seconds_each)
        assert pace.at_once == pytest.approx(expected, abs=1)
    for _ in range(10):
        pace.took(1, 1e-6)  # the last records of chunks
    pace.took(pace.at_once, 1e-6)
    assert pace.at_once > 1


def test_a_step_that_takes_long_does_not_make_the_parts_of_another_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary takes a millisecond, and had the watch begin anew with 16 records after each."""
    pipeline, clock, parts = pipeline_with(None), [0.0], list[int]()
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    monkeypatch.setattr(loop.engine, "unit_of", lambda _: unit)
    monkeypatch.setattr(loop.engine, "take", lambda _, chunk: chunk.records)
    monkeypatch.setattr("agents.loop.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def quick(_loop: Loop, _unit: Unit, records: Sequence[Any]) -> list[Invalid | None]:
        parts.append(len(records))
        return [None] * len(records)

    def slow(_loop: Loop, _unit: Unit, records: Sequence[Any]) -> list[Invalid | None]:
        clock[0] += 10 * TURN
        return [None] * len(records)

    def do(topic: str, first: int, n: int, step: Any) -> None:
        records = [record_of(offset, b"") for offset in range(first, first + n)]
        asyncio.run(loop.each_of_many(Chunk(TopicPartition(topic, 0), first, records), step))

    do(pipeline.training_log_topic, 0, 2_000, quick)
    do(pipeline.summaries_topic, 0, 3, slow)
    do(pipeline.training_log_topic, 2_000, MOST_AT_ONCE, quick)
    assert parts[0] < MOST_AT_ONCE
    assert parts[-1] == MOST_AT_ONCE


def record_of(offset: int, entry: Any) -> Any:
    value = entry if isinstance(entry, bytes) else encode(entry)
    return SimpleNamespace(offset=offset, timestamp=WALL + offset, value=value)


@pytest.mark.parametrize("at_once", [3, 64, 10_000])
def test_how_many_records_the_watch_gets_at_once_changes_nothing_that_it_writes(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "wall_ms", lambda: WALL)
    pipeline = pipeline_with(relearn(500), [on_loss(), on_prediction()])
    log: list[Any] = examples(pipeline, DAYS + 8, DAYS)
    log[700] = Control("freeze", 5, "ann")
    log[710] = Control("thaw", 5, "ann")
    log[720] = b"{"
    log[730] = msgspec.structs.replace(log[730], schema="older")
    log[740] = msgspec.structs.replace(log[740], features=[1.0])

    def run(many: int) -> list[Cut]:
        loop = loop_of(pipeline)
        for offset, record in enumerate(log):  # the learner has been everywhere, as it has in a worker
            if isinstance(record, bytes):
                continue
            try:
                loop.learner.apply(offset, record)
            except ModelError as error:
                loop.model_errors[offset] = error.message
        return feed(loop, unit_of(pipeline), log, at_once=many)

    one_by_one, at_once_cuts = run(1), run(at_once)
    topics = ("refused", pipeline.training_log_topic, pipeline.incidents_topic, pipeline.drift_topic)
    wrote = {topic: sum(len(written(cut, topic)) for cut in one_by_one) for topic in topics}
    assert wrote["refused"] == 3
    assert all(wrote.values())
    for one, many in zip(one_by_one, at_once_cuts, strict=True):
        assert [written(one, topic) for topic in topics] == [written(many, topic) for topic in topics]


def written(cut: Cut, topic: str) -> list[bytes]:
    return [output.value or b"" for output in cut.outputs.get(TopicPartition(topic, 0), ())]


def controls_of(loop: Loop, cut: Cut) -> list[Any]:
    return [decode_log(value) for value in written(cut, loop.pipeline.training_log_topic)]


def incidents_of(loop: Loop, cut: Cut) -> list[Incident]:
    return [msgspec.json.decode(v, type=Incident) for v in written(cut, loop.pipeline.incidents_topic)]


REACTIONS = [None, reset(), relearn(500), boost(4.0, 700)]


@pytest.mark.parametrize("react", REACTIONS, ids=["none", "reset", "relearn", "boost"])
def test_a_loss_alarm_is_one_incident_and_one_reaction_in_one_cut(react: Reaction | None) -> None:
    pipeline = pipeline_with(react)
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    log = examples(pipeline, DAYS + 8, DAYS)
    cuts = feed(loop, unit, log)
    told = [(number, incident) for number, cut in enumerate(cuts) for incident in incidents_of(loop, cut)]
    said = [(number, control) for number, cut in enumerate(cuts) for control in controls_of(loop, cut)]
    ((place, incident),) = told
    (alarm,) = incident.alarms
    assert (alarm.kind, incident.cause, incident.state, incident.id) == ("loss", "model", "open", alarm.id)
    change = (100 + DAYS) * DAY_MS
    assert incident.since_ms == change < incident.opened_ms
    assert cuts[place].offsets[TopicPartition(pipeline.training_log_topic, 0)] > alarm.offset, "what raised it is in it"
    if react is None:
        assert said == []
        return
    ((where, control),) = said
    assert where == place
    assert (control.action, control.by) == (react.action, "headwater")
    assert alarm.id in control.why
    if react.action == "boost":
        assert (control.factor, control.examples) == (4.0, 700)
    else:
        learned = alarm.offset - control.since
        assert (
            react.examples <= learned < react.examples + EVERY if react.examples else control.since == alarm.offset + 1
        )


def test_an_owner_that_goes_on_from_a_checkpoint_repeats_nothing() -> None:
    """Killed after any cut, with what it had done since lost: the same incident and reaction, once."""
    pipeline = pipeline_with(relearn(500))
    log = examples(pipeline, DAYS + 5, DAYS)
    expected = feed(loop_of(pipeline), unit_of(pipeline), log)
    (place,) = [
        number for number, cut in enumerate(expected) if cut.outputs.get(TopicPartition(pipeline.incidents_topic, 0))
    ]
    for last in (place - 1, place):
        saved: dict[str, bytes] = {}
        for cut in expected[: last + 1]:
            saved |= {(o.key or b"").decode(): o.value or b"" for o in cut.outputs.get(TopicPartition("m", 0), ())}
        loop = loop_of(pipeline)
        cuts = feed(loop, unit_of(pipeline, saved), log, start=(last + 1) * A_DAY)
        made = [incident for cut in cuts for incident in incidents_of(loop, cut)]
        assert [each.id for each in made] == ([] if last == place else [incidents_of(loop, expected[place])[0].id])
        assert len([c for cut in cuts for c in controls_of(loop, cut)]) == len(made)


def raised(loop: Loop, unit: Unit, kind: str, number: int = 1, wall_ms: int = 5) -> Cut:
    alarm = Alarm(f"a{number}", cast("Any", kind), kind, "SR", DAY_MS, wall_ms, 1, 9, 2.0, 1.0, "changed")
    alarms.raised(loop, unit, alarm)
    return unit.cut()


@pytest.mark.parametrize("kind", ["prediction", "feature", "quality", "data", "labels", "pipeline"])
def test_only_the_loss_makes_it_react(kind: str) -> None:
    pipeline = pipeline_with(reset())
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    cut = raised(loop, unit, kind)
    assert len(incidents_of(loop, cut)) == 1
    assert controls_of(loop, cut) == []
    assert len(controls_of(loop, raised(loop, unit, "loss", 2))) == 1


def test_an_alarm_raised_again_is_no_second_reaction() -> None:
    """The reaction was written before it was known whether the alarm was new."""
    pipeline = pipeline_with(reset())
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    raised(loop, unit, "loss")
    again = raised(loop, unit, "loss")
    assert (incidents_of(loop, again), controls_of(loop, again)) == ([], [])


def test_a_frozen_model_is_left_as_it_is() -> None:
    """A reset while learning was frozen would have left a model that knows nothing and learns nothing."""
    pipeline = pipeline_with(reset())
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    loop.learner.apply(0, Control("freeze", 0, "ann"))
    cut = raised(loop, unit, "loss")
    assert len(incidents_of(loop, cut)) == 1
    assert controls_of(loop, cut) == []


def test_control_records_and_openings_are_told_in_the_open_incident() -> None:
    pipeline = pipeline_with(None)
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    raised(loop, unit, "loss")
    summary = Summary(2, "host:7", WALL, opened=True, events=1, until_ms=DAY_MS, features=[Sketch(), Sketch()])
    record = SimpleNamespace(offset=0, timestamp=WALL, value=msgspec.json.encode(summary))
    survey.step(loop, unit, cast("Any", record))
    survey.step(loop, unit, cast("Any", SimpleNamespace(**{**vars(record), "offset": 1})))
    control = SimpleNamespace(offset=70, timestamp=WALL, value=encode(Control("freeze", 0, "ann")))
    watch.step(loop, unit, [cast("Any", control)])
    last = incidents_of(loop, unit.cut())[-1]
    assert [text.split(": ", 1)[1] for text in last.events[-2:]] == [
        "host:7 opened partition 2, 2",
        "freeze by ann at offset 70",
    ]


def test_reports_are_written_when_something_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_with(None)
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    reporter, clock = Reporter(loop), [100.0]
    monkeypatch.setattr("agents.report.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def reports() -> list[Report]:
        clock[0] += 2.0
        reporter.consider(unit)
        return [msgspec.json.decode(v, type=Report) for v in written(unit.cut(), pipeline.reports_topic)]

    assert reports() == [], "nothing is known yet"
    log = examples(pipeline, 3, 3)
    feed(loop, unit, log[:500])
    (first,) = reports()
    assert (first.pipeline, first.examples, first.offset, first.budget) == ("alarms", 500, 499, pipeline.budget)
    assert first.quality["rolling"].keys() >= {"log_loss", "roc_auc"}
    assert reports() == [], "nothing has changed"
    feed(loop, unit, log[:600], start=500)
    reporter.consider(unit)
    assert written(unit.cut(), pipeline.reports_topic) == [], "too early"
    raised(loop, unit, "feature", wall_ms=wall_ms())
    (second,) = reports()
    assert (second.examples, second.incidents, [a.id for a in second.alarms]) == (600, ["a1"], ["a1"])


def test_the_report_closes_an_incident_that_is_over() -> None:
    pipeline = pipeline_with(None)
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    feed(loop, unit, examples(pipeline, 1, 1))
    raised(loop, unit, "loss")  # at the beginning of time by the clock
    Reporter(loop).consider(unit)
    cut = unit.cut()
    (closed,) = incidents_of(loop, cut)
    assert (closed.id, closed.state) == ("a1", "closed")
    (report,) = written(cut, pipeline.reports_topic)
    assert msgspec.json.decode(report, type=Report).incidents == []


@pytest.mark.parametrize("value", [b"", b"no JSON", b'{"worker": "\xff"}', b"[" * 100_000])
def test_a_summary_that_is_none_is_a_dead_letter_and_ends_nobody(value: bytes) -> None:
    pipeline = pipeline_with(None)
    record: Any = SimpleNamespace(offset=0, value=value)
    with pytest.raises(Invalid, match="no summary of a unit"):
        survey.step(loop_of(pipeline), unit_of(pipeline), record)


def test_the_budget_is_what_the_alarms_are_measured_with() -> None:
    """Half of it for data and half for losses; it had been halved twice."""
    pipeline = pipeline_with(None)
    unit = unit_of(pipeline)
    assert monitors.survey(unit, pipeline).threshold == monitors.losses(unit, pipeline).threshold == 60.0


def test_a_model_is_not_begun_anew_from_fewer_examples_than_it_was_to_be() -> None:
    """Where `react` has just been switched on, only what came since is known of."""
    pipeline = pipeline_with(relearn(5_000))
    loop, unit = loop_of(pipeline), unit_of(pipeline)
    alarms.seen(loop, unit, 70)
    alarms.raised(loop, unit, Alarm("a", "loss", "loss", "d", 1, 2, 0, 80, 9.0, 8.0, "loss grew"))
    assert not [output for tp, output in unit.cut().outputs.items() if tp.topic == pipeline.training_log_topic]
