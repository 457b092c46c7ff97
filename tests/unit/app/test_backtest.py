"""A backtest's result as people and as programs read it."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from rich.console import Console

from app import backtest
from app.backtest import as_dict, freeze_ms, table
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
}


def shown(**changes: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table(phishing, {**VALUES, **changes}))
    return out.getvalue()


def test_table_has_the_metrics_and_the_counts_that_say_something() -> None:
    lines = shown().splitlines()
    assert lines[0].strip() == "phishing: 1,250 events, 1,250 predictions, 0 labels, 3 model errors in 1.2 s"
    assert any("roc_auc" in line and "0.948728" in line for line in lines)
    assert "frozen" not in lines[2]


def test_table_shows_the_frozen_copy_beside_where_there_is_one() -> None:
    lines = shown(frozen={"since_frozen_roc_auc": 0.9}).splitlines()
    assert "keeps learning" in lines[2]
    assert "frozen" in lines[2]
    (row,) = [line for line in lines if "since_frozen_roc_auc" in line]
    assert "0.950000" in row
    assert "0.900000" in row


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


def test_pipeline_without_data_set_says_how_to_give_it_one() -> None:
    with pytest.raises(click.ClickException, match="give it one with source="):
        backtest.run(named("bare"), None, Console(file=io.StringIO()))
