"""The terminal's view shows what the report says, the worst first, within the room it has."""

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from app.live import Board
from app.top import View, as_dict, short, words
from learning.reports import Alarm, FieldReport, Incident, Report

REPORT = Report(
    "flights",
    wall_ms=1_000_000,
    time_ms=1_357_084_800_000,
    version=1_234,
    examples=5_000,
    quality={"rolling": {"log_loss": 0.3125, "roc_auc": 0.9}, "total": {"log_loss": 0.4}, "frozen": {"log_loss": 0.75}},
    baselines={"rolling_base_rate": {"log_loss": 0.5}, "base_rate": {"log_loss": 0.51}},
    label_delay={"p50": 60.0, "p90": 7_200.0},
    coverage=0.98,
    fields=[
        FieldReport("calm", "feature", 100, psi=0.5),
        FieldReport("near", "feature", 100, psi=0.1, ks=0.1234),
        FieldReport("gone", "field", 100, psi=0.2, missing=0.75, new=["[red]X[/]"], drifted=True),
    ],
    drift={"feature:near": 0.7, "field:gone": 0.0},
    events_per_second=250.0,
    lag={"departures": 12_000},
    model_lag=7,
    dead_letters={"malformed": 0.0125},
    units={"host:2": [1, 3], "host:1": [0, 2]},
    incidents=["i1"],
)


def incident(number: int, state: Any = "open") -> Incident:
    text = f"x{number} is not as it was"
    alarm = Alarm(f"i{number}", "feature", "feature:x", "SR", 1, number, 1, 1, 2.0, 1.0, text)
    return Incident(f"i{number}", "flights", state, 1, number, 1_357_084_800_000, "data", "why", [alarm])


def board(report: Report | None = REPORT, *incidents: Incident) -> Board:
    made = Board("flights")
    if report is not None:
        made.add_report(report)
    for each in incidents:
        made.add_incident(each)
    return made


def rendered(shown: Board, *, now: int = 1_000_500, width: int = 150, height: int = 60, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, height=height, force_terminal=terminal, color_system=None).print(
        View(shown, lambda: now)
    )
    return out.getvalue()


def cells(text: str, word: str) -> list[str]:
    """The cells of the row that begins with this."""
    (line,) = [line for line in text.splitlines() if line.startswith(word)]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_nothing_is_said_where_nothing_is_known() -> None:
    text = rendered(board(None))
    assert "Headwater flights" in text
    assert "No data yet: " in text
    assert "no incident so far" in text


def test_the_verdict_and_its_parts_come_first() -> None:
    lines = rendered(board(REPORT, incident(1))).splitlines()
    assert "250 events/s   model version 1,234   5,000 outcomes   stream at 2013-01-02 00:00 UTC" in lines[0]
    assert lines[1].startswith("Pipeline behind: ") or lines[1].startswith("Data changed: ")
    assert [line.split()[0] for line in lines[2:6]] == ["model", "data", "labels", "pipeline"]


def test_quality_is_beside_baselines_and_the_frozen_copy() -> None:
    text = rendered(board())
    assert cells(text, "quality") == ["quality", "last", "base rate", "frozen copy", "all"]
    assert cells(text, "Log loss  ") == ["Log loss", "0.3125", "0.5", "0.75", "0.4"]
    assert cells(text, "ROC AUC") == ["ROC AUC", "0.9", "-", "-", "-"]


def test_nothing_is_cut_off_where_the_terminal_is_narrow() -> None:
    """Columns that found no room made all of them unreadable."""
    fields = [
        FieldReport("a_long_name_of_a_feature_" * 2, "feature", 9, 0.5, 1.23456e6, 1.2345e6, 0.12345, 0.001, False, 0.5)
    ]
    overs = ("rolling", "total", "recent", "mature", "frozen", "since_frozen")
    full = {name: {"roc_auc": 0.98765, "calibration_error": 0.012345} for name in overs}
    text = rendered(board(msgspec.structs.replace(REPORT, fields=fields, quality=full)), width=80)
    assert "…" not in text
    assert cells(text, "quality") == ["quality", "last", "base rate", "frozen copy", "beside it", "all"]


def test_inputs_are_listed_the_worst_first() -> None:
    text = rendered(board())
    places = [text.index(f"\n{name}") for name in ("gone (new: [red]X[/])", "near", "calm")]
    assert places == sorted(places), "what stands, then what is near an alarm, then what changed most"
    assert cells(text, "near")[5:] == ["0.1234", "0.1", "70\u00a0%"]
    assert "75.0\u00a0%" in cells(text, "gone (new")


def test_labels_workers_lag_and_dead_letters_are_told() -> None:
    text = rendered(board())
    for line in (
        "labels   98.0\u00a0% of predictions got one   delay p50 1\u00a0min  p90 2\u00a0h",
        "workers  host:1 0, 2   host:2 1, 3",
        "lag      departures 12,000   examples to learn 7",
        "unusable malformed 1.25\u00a0%",
    ):
        assert line in text


def test_open_incidents_come_before_newer_closed_ones() -> None:
    text = rendered(board(REPORT, incident(1), *(incident(n, "closed") for n in range(2, 20))))
    assert text.index("open incident i1 since 2013-01-02 00:00 UTC, data: x1") < text.index("closed incident i19")
    assert "closed incident i3 " not in text, "five are enough"


@pytest.mark.parametrize(("later_s", "said"), [(59, False), (61, True), (-5, False)])
def test_a_report_that_is_old_is_said_to_be(later_s: int, said: bool) -> None:
    assert ("nothing has come since" in rendered(board(), now=1_000_000 + 1_000 * later_s)) == said


@pytest.mark.parametrize("height", [36, 45, 60, 90])
def test_a_view_fits_the_screen(height: int) -> None:
    fields = [FieldReport(f"x{number}", "feature", 100) for number in range(50)]
    full = {
        name: dict.fromkeys(("roc_auc", "log_loss", "accuracy", "f1", "brier", "calibration_error"), 0.5)
        for name in ("rolling", "total")
    }
    report = msgspec.structs.replace(REPORT, fields=fields, quality=full)
    text = rendered(board(report, *(incident(n) for n in range(1, 30))), height=height, terminal=True)
    assert len(text.splitlines()) <= height


def test_json_has_the_report_the_verdict_and_what_is_open() -> None:
    told = as_dict(board(REPORT, incident(1), incident(2, "closed")))
    assert told["report"]["version"] == 1_234
    assert told["verdict"]["kind"] in ("data_changed", "pipeline_behind")
    assert [each["id"] for each in told["incidents"]] == ["i1"]
    assert as_dict(board(None))["report"] is None


def test_status_has_a_short_form() -> None:
    lines = list(words(REPORT, [incident(1), incident(2, "closed")]))
    assert lines[1] == "last outcomes: log_loss 0.3125  roc_auc 0.9; at version 1,234, 2013-01-02 00:00 UTC"
    assert [line for line in lines if "incident" in line] == ["open incident i1 (data); `headwater incident i1`"]
    assert [line.split(":")[0] for line in words(None, [])] == ["No data yet"]
    told = short(REPORT)
    assert told is not None
    assert "fields" not in told
    assert (told["version"], short(None)) == (1_234, None)
