"""The words follow from the report: what is wrong, how bad, and where to look."""

from typing import Any

import msgspec
import pytest

from learning.reports import Alarm, AlarmKind, Cause, FieldReport, Incident, Report
from learning.verdict import PART_OF, Kind, State, judge

HEALTHY = Report(
    pipeline="flights",
    wall_ms=1_000,
    examples=5_000,
    quality={"rolling": {"log_loss": 0.3, "roc_auc": 0.9}},
    baselines={"rolling_base_rate": {"log_loss": 0.5}, "rolling_last_label": {"log_loss": 0.6}},
    label_delay={"p50": 9_000.0},
    coverage=0.98,
    fields=[FieldReport("distance", "feature", 1_000, psi=0.02), FieldReport("delay", "feature", 1_000, psi=0.04)],
    events_per_second=100.0,
)


def alarm(kind: AlarmKind, signal: str = "s", *, number: int = 1) -> Alarm:
    text = f"{signal} is not as it was."
    return Alarm(f"a{number}", kind, signal, "SR", 1_357_084_800_000, 5, 1, 1, 9.0, 8.0, text)


def incident(cause: Cause, *alarms: Alarm, state: Any = "open") -> Incident:
    return Incident(alarms[0].id, "flights", state, 1, 2, 0, cause, f"It is the {cause}.", list(alarms))


def but(**changes: Any) -> Report:
    return msgspec.structs.replace(HEALTHY, **changes)


def with_alarm(kind: AlarmKind, signal: str = "s") -> Report:
    return but(alarms=[alarm(kind, signal)], incidents=["a1"])


CASES: dict[str, tuple[Report | None, Kind, Cause | None]] = {
    "healthy": (HEALTHY, "good", None),
    "nothing yet": (None, "no_data", None),
    "no outcome yet": (Report("flights", 1), "no_data", None),
    "few outcomes": (but(examples=99), "no_data", None),
    "loss alarm": (with_alarm("loss"), "getting_worse", "model"),
    "above the base rate": (but(quality={"rolling": {"log_loss": 0.51}}), "worse_than_baseline", "model"),
    "equal to the last label": (
        but(baselines={"rolling_base_rate": {"log_loss": 0.5}, "rolling_last_label": {"log_loss": 0.3}}),
        "worse_than_baseline",
        "model",
    ),
    "feature alarm": (with_alarm("feature"), "data_changed", "data"),
    "prediction alarm": (with_alarm("prediction"), "data_changed", "data"),
    "missing values": (with_alarm("quality"), "data_changed", "data"),
    "drifted field": (but(fields=[FieldReport("x", "field", 9, psi=1.0, drifted=True)]), "data_changed", "data"),
    "unusable records": (but(dead_letters={"malformed": 0.04, "invalid": 0.02}), "data_changed", "data"),
    "label alarm": (with_alarm("labels"), "labels_missing", "labels"),
    "no label at all": (but(coverage=0.0), "labels_missing", "labels"),
    "none ever came": (Report("flights", 1, coverage=0.0), "labels_missing", "labels"),
    "pipeline alarm": (with_alarm("pipeline"), "pipeline_behind", "pipeline"),
    "much unread": (but(lag={"departures": 4_000, "arrivals": 2_001}), "pipeline_behind", "pipeline"),
    "much unlearned": (but(model_lag=6_001), "pipeline_behind", "pipeline"),
    "a minute unread": (but(lag={"departures": 6_000}), "good", None),
    "few unread while nothing comes": (but(lag={"departures": 1_000}, events_per_second=0.0), "good", None),
    "labels before pipeline": (but(coverage=0.0, model_lag=9_000), "labels_missing", "labels"),
    "regression": (
        but(task="regression", quality={"rolling": {"mae": 3.0}}, baselines={"rolling_base_rate": {"mae": 2.0}}),
        "worse_than_baseline",
        "model",
    ),
    "anomaly scores": (but(task="anomaly", quality={"rolling": {"roc_auc": 0.7}}, baselines={}), "good", None),
    "no better than chance": (
        but(task="anomaly", quality={"rolling": {"roc_auc": 0.5}}, baselines={}),
        "worse_than_baseline",
        "model",
    ),
}


@pytest.mark.parametrize(("report", "kind", "cause"), CASES.values(), ids=CASES)
def test_kind_and_cause(report: Report | None, kind: Kind, cause: Cause | None) -> None:
    verdict = judge(report)
    assert (verdict.kind, verdict.cause) == (kind, cause)
    expected: State = {"good": "good", "no_data": "unknown", "data_changed": "watch"}.get(kind, "bad")  # type: ignore[assignment]
    assert verdict.state == expected
    assert verdict.words
    assert verdict.why.endswith(".")


def test_every_kind_has_a_case() -> None:
    assert {kind for _, kind, _ in CASES.values()} == set(Kind.__args__)  # type: ignore[attr-defined]


def test_every_kind_of_alarm_belongs_to_a_part() -> None:
    """One that did not would end the worker's page on its first alarm."""
    assert PART_OF.keys() == set(AlarmKind.__args__)  # type: ignore[attr-defined]


def test_good_names_the_numbers() -> None:
    verdict = judge(HEALTHY)
    why = verdict.why.replace("\u00a0", " ")
    assert why == "Log loss is 0.3 over the latest outcomes, 40 % below the base rate (0.5). No alarm stands."
    assert [(check.part, check.state) for check in verdict.checks] == [
        ("model", "good"),
        ("data", "good"),
        ("labels", "good"),
        ("pipeline", "good"),
    ]


def test_a_worse_model_is_explained_by_its_incident() -> None:
    """The rule that named the cause is the owner's; the verdict repeats it."""
    report = but(incidents=["a1"])
    verdict = judge(report, [incident("labels", alarm("loss", "loss"))])
    assert (verdict.kind, verdict.cause) == ("getting_worse", "labels")
    assert "It is the labels." in verdict.why
    assert "loss is not as it was (2013-01-02 00:00 UTC)." in verdict.why


def test_a_worse_model_without_a_known_cause_points_at_what_else_is_wrong() -> None:
    report = but(incidents=["a1"], fields=[FieldReport("delay", "feature", 9, psi=1.0, drifted=True)])
    verdict = judge(report, [incident("unknown", alarm("loss"))])
    assert (verdict.kind, verdict.cause) == ("getting_worse", "data")
    assert "Changed: delay." in verdict.why


def test_closed_incidents_are_no_trouble() -> None:
    """Neither those that the report has closed, nor those closed since the report."""
    told = incident("data", alarm("feature"), state="closed")
    assert judge(HEALTHY, [incident("data", alarm("feature"))]).kind == "good"
    assert judge(with_alarm("feature"), [told]).kind == "good"


def test_many_alarms_are_two_sentences_and_a_number() -> None:
    alarms = [alarm("feature", f"f{number}", number=number) for number in range(1, 6)]
    verdict = judge(but(incidents=["a1"]), [incident("data", *alarms)])
    assert verdict.why.startswith("f1 is not as it was (")
    assert "f2 is not" in verdict.why
    assert "f3" not in verdict.why
    assert "3 more alarms stand. Log loss is 0.3" in verdict.why  # and how the model bears it


def test_oddities_are_said_though_nothing_stands() -> None:
    report = but(
        quality={"rolling": {"log_loss": 0.3}, "frozen": {"log_loss": 0.2}, "since_frozen": {"log_loss": 0.25}},
        drift={"loss": 0.8},
    )
    verdict = judge(report)
    assert verdict.kind == "good"
    assert verdict.checks[0].state == "watch"
    assert "The frozen copy is better" in verdict.why
    assert "80\u00a0% of the way to an alarm" in verdict.why


def test_a_base_rate_without_loss_is_no_division_by_zero() -> None:
    """All outcomes alike so far: the base rate is right for nothing, and so may the model be."""
    report = but(quality={"rolling": {"log_loss": 0.0}}, baselines={"rolling_base_rate": {"log_loss": 0.0}})
    assert judge(report).kind == "worse_than_baseline"
