"""A backtest's result as people and as programs read it."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from rich.console import Console

from app import backtest
from app.backtest import as_dict, drift_table, freeze_ms, table
from learning.illusion import Illusion
from learning.reports import Alarm
from pipelines.flights import flights
from pipelines.phishing import phishing
from tests.integration.flights_run import named

VALUES: dict[str, Any] = {
    "pipeline": "phishing",
    "seconds": 1.25,
    "events": 1_250,
    "predictions": 1_250,
    "labels": 0,
    "model_errors": 3,
    "late": 0,
    "metrics": {"roc_auc": 0.948728, "since_frozen_roc_auc": 0.95},
    "frozen": None,
    "baselines": {"base_rate": {"roc_auc": 0.51}, "last_label": {"roc_auc": 0.62, "since_frozen_roc_auc": 0.63}},
}


def shown(**changes: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table(phishing, {**VALUES, **changes}))
    return out.getvalue()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().replace("┃", "│").strip("│").split("│")]


def test_table_has_the_metrics_and_the_counts_that_say_something() -> None:
    lines = shown().splitlines()
    assert lines[0].strip() == "phishing: 1,250 events, 1,250 predictions, 0 labels, 3 model errors in 1.2 s"
    assert cells(lines[2]) == ["metric", "keeps learning", "base rate", "last label"]
    assert ["roc_auc", "0.948728", "0.510000", "0.620000"] in map(cells, lines)


def test_table_shows_the_frozen_copy_beside_where_there_is_one() -> None:
    rows = [cells(line) for line in shown(frozen={"since_frozen_roc_auc": 0.9}).splitlines()]
    assert rows[2] == ["metric", "keeps learning", "frozen", "base rate", "last label"]
    assert rows[4] == ["roc_auc", "0.948728", "", "0.510000", "0.620000"]
    assert rows[6:8] == [
        ["since frozen:", "", "", "", ""],
        ["roc_auc", "0.950000", "0.900000", "", "0.630000"],
    ]


def test_table_is_no_wider_than_a_terminal() -> None:
    result, seconds = backtest.run(phishing, 1_451_606_400_000, Console(file=io.StringIO()))
    out = io.StringIO()
    Console(file=out, width=80).print(table(phishing, as_dict(phishing, result, seconds)))
    rows = [cells(line) for line in out.getvalue().splitlines()]
    assert ["metric", "keeps learning", "frozen", "base rate", "last label"] in rows
    assert [len(row) for row in rows if row[0] == "calibration_error"] == [5, 5]


def test_alarms_are_shown_beside_what_never_and_periodic_resets_would_have_scored() -> None:
    alarm = Alarm(
        "loss-9", "loss", "loss", "e", 1_577_836_800_000, 0, 3, 9, 70.0, 60.0, "loss grew: 0.3 instead of 0.2"
    )
    scores = ({"log_loss": 0.25}, {"log_loss": 0.3, "brier": 0.1}, {"log_loss": 0.2755})
    out = io.StringIO()
    Console(file=out, width=100).print(drift_table(phishing, Illusion([alarm], 1_250, 1, *scores)))
    lines = out.getvalue().splitlines()
    assert lines[0] == "2020-01-01 loss grew: 0.3 instead of 0.2"
    assert lines[1].strip() == "phishing: 1 alarms, 1 resets over 1,250 examples"
    rows = [cells(line) for line in lines]
    assert ["metric", "reset at alarms", "never reset", "reset as often, evenly"] in rows
    assert ["log_loss", "0.250000", "0.300000", "0.275500"] in rows


def test_freezing_is_where_it_was_asked_for_or_where_the_data_set_is_known_to_change() -> None:
    day = datetime(2020, 1, 1, tzinfo=UTC)
    assert freeze_ms(phishing, None) is None
    assert freeze_ms(phishing, day) == freeze_ms(flights, day) == 1_577_836_800_000
    assert freeze_ms(flights, None) == int(datetime(2013, 2, 1, tzinfo=UTC).timestamp() * 1000)


def test_result_of_a_run_is_json() -> None:
    console = Console(file=io.StringIO())
    result, seconds = backtest.run(phishing, None, console)
    values = as_dict(phishing, result, seconds)
    assert values["events"] == values["examples"] == 1_250
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values["baselines"]["last_label"]) == set(values["metrics"])
    assert sum(bin_["n"] for bin_ in values["calibration"]) == 1_250


def test_pipeline_without_data_set_says_how_to_give_it_one() -> None:
    with pytest.raises(click.ClickException, match="give it one with source="):
        backtest.run(named("bare"), None, Console(file=io.StringIO()))
