"""Alarms on data: held to the budget on streams that do not change, raised once for each change."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from bench.alarms import CHANGE, DAYS, KINDS, days, pipeline, poisson_upper, summaries
from learning.quality import Points, Tally
from learning.reports import Alarm, Sketch, Summary
from learning.sketch import categories, sketch
from learning.summary import DAY_MS
from learning.survey import BEHIND_TILES, BUDGET, OPEN_TILES, POURED, Survey
from learning.windows import Cohorts, cohort_ms

PIPELINE = pipeline()


def stream(kind: str = KINDS[0], shift: str | None = None, seed: int = 5, length: int = DAYS) -> list[Summary]:
    return list(summaries(days(kind, shift, seed, length), np.random.default_rng(seed)))


def alarms_of(survey: Survey, records: list[Summary], first: int = 0) -> list[Alarm]:
    return [alarm for offset, record in enumerate(records, first) for alarm in survey.add(offset, record)]


def test_streams_that_do_not_change_stay_within_the_budget() -> None:
    """With the chance of one in a thousand that a survey which just keeps its budget would fail here."""
    length = 60
    found = [alarm for kind in KINDS for alarm in alarms_of(Survey(PIPELINE), stream(kind, length=length))]
    assert len(found) <= poisson_upper(BUDGET / 2 * length * len(KINDS), 0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_an_abrupt_change_is_one_alarm_within_a_few_days(kind: str) -> None:
    found = alarms_of(Survey(PIPELINE), stream(kind, "abrupt 1 sd", length=CHANGE + 20))
    assert len(found) == 1
    assert CHANGE <= found[0].time_ms // DAY_MS <= CHANGE + 5
    assert found[0].kind in ("feature", "data")
    assert found[0].signal.partition(":")[2] in ("x0", "x1", "x2")
    assert found[0].value >= found[0].threshold == 60.0
    assert CHANGE - 3 <= found[0].since_ms // DAY_MS <= CHANGE + 1


def test_an_alarm_is_on_the_input_where_predictions_follow_it() -> None:
    """It was on the prediction where that moved most, so that no input was said to have changed."""
    steady, rng = stream(length=CHANGE + 10), np.random.default_rng(1)
    far = [sketch(rng.normal(50.0, 1.0, record.events)) for record in steady]
    records = [
        replace(record, prediction=moved, features=[moved, *record.features[1:]])
        if record.since_ms >= CHANGE * DAY_MS
        else record
        for record, moved in zip(steady, far, strict=True)
    ]
    (alarm,) = alarms_of(Survey(PIPELINE), records)
    assert (alarm.kind, alarm.signal.partition(":")[0]) == ("feature", "feature")
    assert "prediction" in alarm.text


def test_what_was_before_is_known_when_it_comes_again() -> None:
    found = alarms_of(Survey(PIPELINE), stream(shift="recurring 1 sd"))
    back = next(alarm for alarm in found if alarm.time_ms // DAY_MS >= CHANGE + 20)
    assert "it is again as it was from 1970-01-01" in back.text


def test_missing_values_are_a_change_of_their_own() -> None:
    survey = Survey(PIPELINE)
    found = alarms_of(survey, stream(shift="10 % missing", length=CHANGE + 10))
    assert len(found) == 1
    assert "missing instead of 0.0%" in found[0].text
    (field,) = [field for field in survey.fields() if (field.kind, field.name) == ("field", "x0")]
    assert 0.03 < field.missing < 0.2
    assert field.drifted


def test_a_survey_goes_on_from_its_dump_and_passes_over_what_it_has_seen() -> None:
    records = stream(shift="abrupt 0.5 sd", length=CHANGE + 15)
    whole, first = Survey(PIPELINE), Survey(PIPELINE)
    expected = alarms_of(whole, records)
    half = CHANGE + 1
    found = alarms_of(first, records[:half])
    second = Survey.load(PIPELINE, first.dump())
    assert alarms_of(second, records[:half]) == []
    found += alarms_of(second, records)
    assert found == expected
    assert expected
    assert second.dump() == whole.dump()
    assert len(whole.dump()) < 50_000


def test_a_survey_that_is_saved_at_any_place_is_the_same() -> None:
    """Summaries of a day wait to be put together; how many do at a dump must not be seen in what comes of them."""
    records = [
        replace(moved_to(part, number % 3), features=part.features[::-1])
        for record in stream(shift="abrupt 1 sd", length=CHANGE + 8)
        for number, part in enumerate([record] * (POURED + 3))
    ]
    unsaved, saved = Survey(PIPELINE), Survey(PIPELINE)
    kept = msgspec.msgpack.encode(records)
    expected = alarms_of(unsaved, records)
    found = []
    for offset, record in enumerate(records):
        found += saved.add(offset, record)
        if offset % 7 == 0:
            fields = saved.fields()
            saved = Survey.load(PIPELINE, saved.dump())
            assert saved.fields() == fields
    assert found == expected
    assert expected
    assert saved.dump() == unsaved.dump()
    assert msgspec.msgpack.encode(records) == kept  # what it was given is another's


def test_a_dump_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Survey.load(PIPELINE, b"\x00")
    state = Survey(PIPELINE)
    state._state.schema = "another"
    with pytest.raises(ValueError, match="expected layout"):
        Survey.load(PIPELINE, state.dump())


def moved_to(record: Summary, partition: int) -> Summary:
    return Summary(**{name: getattr(record, name) for name in record.__struct_fields__} | {"partition": partition})


def test_a_partition_that_is_behind_is_no_drift() -> None:
    """Partition 1 has other numbers and is read two days late; a window has both all the same."""
    one = stream(length=40)
    other = [moved_to(record, 1) for record in stream(seed=6, length=40)]
    late = [*one[:2], *(record for pair in zip(one[2:], other, strict=False) for record in pair), *other[-2:]]
    together = [record for pair in zip(one, other, strict=True) for record in pair]
    assert alarms_of(Survey(PIPELINE), together) == alarms_of(Survey(PIPELINE), late) == []
    survey = Survey(PIPELINE)
    alarms_of(survey, [one[0], other[0], one[1]])
    assert not survey._state.fields  # nothing is whole before partition 1 is through day 0
    alarms_of(survey, one[2 : 2 + OPEN_TILES], 3)
    assert survey._state.fields  # but it is not waited for any longer than that


def test_a_backlog_is_no_drift() -> None:
    """Read at full speed, one partition is weeks behind others: days were closed without it, as if it had no events."""
    lag = {PIPELINE.events.topic: 9}
    one = stream(length=60)
    other = [replace(moved_to(record, 1), lag=lag) for record in stream(seed=6, length=60)]
    begun = Summary(1, "w", 0, opened=True, lag=lag)
    for late in (5, BEHIND_TILES - 2):
        survey = Survey(PIPELINE)
        mixed = [
            begun,
            *one[:late],
            *(r for pair in zip(one[late:], other, strict=False) for r in pair),
            *other[-late:],
        ]
        assert alarms_of(survey, mixed) == []
        assert survey._state.fields
    far = BEHIND_TILES + 5
    survey = Survey(PIPELINE)
    assert alarms_of(survey, [begun, other[0], *one[:far]]) == []
    assert not survey._state.fields  # days without it are compared with nothing
    assert alarms_of(survey, [r for pair in zip(one[far:], other[far:], strict=True) for r in pair], far + 2) == []
    assert survey._state.fields


def test_fields_tell_what_is_wrong_with_the_last_window() -> None:
    survey = Survey(PIPELINE)
    records = stream(length=12)
    alarms_of(survey, records[:10])
    bad = records[10].numbers | {"x3": sketch([7.0] * 400), "x4": sketch([1e9] * 200 + [0.0] * 200)}
    colours = {"colour": categories(["violet"] * 40 + ["red"] * 360)}
    kept = {name: getattr(records[10], name) for name in records[10].__struct_fields__}
    alarms_of(survey, [Summary(**kept | {"numbers": bad, "categories": colours}), records[11]], 10)
    fields = {field.name: field for field in survey.fields() if field.kind == "field"}
    assert fields["x3"].constant
    assert not fields["x0"].constant
    assert fields["x4"].outside == 0.5
    assert fields["colour"].new == ["violet"]
    assert fields["colour"].outside == 0.1
    assert fields["x3"].ks > 0.4
    assert fields["x3"].mean == 7.0


def test_before_the_first_window_fields_are_of_what_there_is() -> None:
    survey = Survey(PIPELINE)
    alarms_of(survey, stream(length=1))
    assert {field.n for field in survey.fields() if field.kind == "feature"} == {400}


def test_coverage_is_of_predictions_whose_horizon_is_over() -> None:
    survey = Survey(PIPELINE)
    assert survey.coverage({}) == -1.0
    hour = DAY_MS // 24
    kept = stream(length=3)
    for day, record in enumerate(kept):
        values = {name: getattr(record, name) for name in record.__struct_fields__}
        survey.add(day, Summary(**values | {"cohorts": {day * DAY_MS: 100, day * DAY_MS + 23 * hour: 100}}))
    # at the end of day 2, of a horizon of a day: both of day 0 and the first of day 1 are over
    assert survey.coverage({0: 90, 23 * hour: 60, DAY_MS: 30, 2 * DAY_MS: 100}) == pytest.approx(180 / 300)


def test_coverage_of_a_stream_whose_every_prediction_gets_a_label_stays_one() -> None:
    """Predictions were counted for longer than their labels, so that it fell to two thirds with time."""
    horizon = PIPELINE.horizon_ms
    tile = cohort_ms(horizon)
    survey, cohorts = Survey(PIPELINE), Cohorts(lambda: Tally(PIPELINE.task, 0.5), horizon)
    blank = [Sketch() for _ in PIPELINE.feature_set.names]
    seen = []
    for number in range(6 * 24):
        at = number * tile
        survey.add(number, Summary(0, "w", 0, events=10, since_ms=at, until_ms=at, cohorts={at: 10}, features=blank))
        points = Points(PIPELINE.task, 0.5, [0.5] * 10, [True] * 10)
        cohorts.take_all(np.full(10, at), np.full(10, at + horizon - 1), np.full(10, True), points)
        seen.append(survey.coverage(cohorts.labelled()))
    assert seen[:24] == [-1.0] * 24
    assert set(seen[30:]) == {1.0}


def test_drift_says_how_far_each_signal_is() -> None:
    survey = Survey(PIPELINE)
    alarms_of(survey, stream(length=30))
    drift = survey.drift()
    assert drift["data"] == pytest.approx(sum(n for name, n in drift.items() if name != "data"))
    assert 0.0 < drift["data"] < 1.0
    assert len(drift) == 2 * 10 + 1 + 2 + 1  # numbers twice, the prediction, colour and sensor, all together


def test_fewer_labels_than_usual_are_an_alarm_once_until_they_come_again() -> None:
    survey, found = Survey(PIPELINE), []
    for day, record in enumerate(stream(length=30)):
        matched = 40 if 15 <= day < 20 else 340
        labels = {"matched": matched, "expired": 400 - matched}
        values = {name: getattr(record, name) for name in record.__struct_fields__} | {"labels": labels}
        found += survey.add(day, Summary(**values))
    (alarm,) = found
    assert (alarm.kind, alarm.signal, alarm.value) == ("labels", "coverage", 0.1)
    assert "10.0% of 400 waits ended with a label, 85.0% is usual" in alarm.text


def test_the_first_word_of_a_worker_that_starts_again_does_not_end_a_backlog() -> None:
    """It has not asked yet how far it is behind, which was taken for not at all."""
    survey = Survey(PIPELINE)
    lag = {PIPELINE.events.topic: 9}
    alarms_of(survey, [Summary(1, "w", 0, opened=True, lag=lag), *stream(length=10)])
    alarms_of(survey, [Summary(1, "w", 1, opened=True)], 20)
    assert survey._state.behind == [1]
    alarms_of(survey, [Summary(1, "w", 2, lag={PIPELINE.events.topic: 0})], 21)
    assert survey._state.behind == []


def test_a_survey_of_another_cycle_starts_anew() -> None:
    with pytest.raises(ValueError, match="starts anew"):
        Survey.load(PIPELINE, Survey(PIPELINE, cycle_ms=DAY_MS // 24).dump())
