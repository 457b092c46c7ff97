"""The demo's board shows what it was fed, within the room it has."""

import asyncio
import io
import time
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from app import demo
from app.demo import MEMORY, ROWS, Board
from learning.records import DriftEvent, Example, Prediction, Value
from learning.reports import Report
from pipelines.flights import flights


def prediction(name: str, value: Value = 0.25, **more: Any) -> Prediction:
    known = {"key": "JFK", "time_ms": 0, "version": 1_234, "features": [], "schema": "s"}
    return Prediction(id=name, prediction=value, **{**known, **more})


def example(name: str, *, outcome: Any = True, value: Value = 0.25) -> Example:
    return Example(
        id=name,
        key="JFK",
        time_ms=0,
        label_time_ms=1,
        prediction=value,
        version=1_234,
        features=[],
        schema="s",
        outcome=outcome,
        source="label",
    )


@pytest.fixture
def board() -> Board:
    return Board(flights, "http://127.0.0.1:6066")


def rendered(board: Board, height: int = 60) -> str:
    out = io.StringIO()
    Console(file=out, width=100, height=height).print(board)
    return out.getvalue()


def line_with(board: Board, word: str) -> str:
    (line,) = [line for line in rendered(board).splitlines() if word in line]
    return line


def test_empty_board_shows_dashes(board: Board) -> None:
    shown = rendered(board)
    assert "Headwater flights   0 events/s   model version 0" in shown
    assert line_with(board, "ROC AUC").split("│")[2:6] == line_with(board, "log loss").split("│")[2:6]
    assert line_with(board, "ROC AUC").split("│")[2].strip() == "-"
    assert "drift: none so far" in shown


def test_numbers_come_from_the_samples(board: Board) -> None:
    board.measured({"events_total": 100.0}, 10.0)
    samples = {
        "events_total": 1_100.0,
        "predictions_total": 1_099.0,
        "training_examples_total": 900.0,
        "model_version": 901.0,
        'quality{metric="roc_auc"}': 0.81234,
        'quality{metric="base_rate_log_loss"}': 0.55,
    }
    board.measured(samples, 12.0)
    assert "500 events/s   model version 901" in rendered(board)
    assert "1,100 events   1,099 predictions   900 learned" in rendered(board)
    assert "0.8123" in line_with(board, "ROC AUC")
    assert "0.5500" in line_with(board, "log loss")


def test_rate_is_not_negative_when_a_worker_starts_again(board: Board) -> None:
    board.measured({"events_total": 100.0}, 10.0)
    board.measured({"events_total": 5.0}, 11.0)
    assert board.rate == 0.0


def test_prediction_waits_and_then_has_its_outcome(board: Board) -> None:
    board.prediction(prediction("f1"))
    assert line_with(board, "f1").split("│")[1:-1] == [" f1 ", " JFK ", " 0.250     ", " …       ", " 1,234   "]
    board.outcome(example("f1", outcome=True))
    assert "True" in line_with(board, "f1")


def test_prediction_that_comes_after_its_outcome_does_not_wait(board: Board) -> None:
    board.outcome(example("f1", outcome=False))
    board.prediction(prediction("f1"))
    assert "False" in line_with(board, "f1")


def test_rows_fit_the_screen_and_memory_is_bounded(board: Board) -> None:
    for number in range(2 * MEMORY):
        board.prediction(prediction(f"waiting{number}"))
        board.outcome(example(f"known{number}"))
    assert (len(board.predictions), len(board.outcomes)) == (MEMORY, MEMORY)
    assert rendered(board).count("waiting") == rendered(board).count("known") == ROWS // 2
    for number in range(3):
        board.drifts.append(drift(number))
    for height in (24, 30, 40):
        assert len(rendered(board, height).splitlines()) <= height


def drift(version: int) -> DriftEvent:
    return DriftEvent("flights", "loss", "ADWIN", time_ms=0, version=version, offset=0, value=0.5, n_detections=1)


def test_verdict_and_page_are_shown(board: Board) -> None:
    assert line_with(board, "No data yet").startswith("No data yet: ")
    board.report = Report("flights", 1, examples=500, quality={"rolling": {"log_loss": 0.3}})
    assert line_with(board, "Good").startswith("Good: Log loss is 0.3 over the latest outcomes")
    assert "page: http://127.0.0.1:6066/ " in rendered(board)


def test_drift_is_shown(board: Board) -> None:
    board.drifts.append(drift(1_024))
    assert "drift: loss by ADWIN at version 1,024, value 0.5" in rendered(board)


def test_ids_that_look_like_markup_are_shown_as_they_are(board: Board) -> None:
    board.prediction(prediction("[red]x[/]", key="[/]"))
    assert "[red]x[/]" in line_with(board, "[/]")


def test_classes_are_shown_by_the_most_probable(board: Board) -> None:
    board.prediction(prediction("f1", {"up": 0.4, "down": 0.6}))
    board.prediction(prediction("f2", {}))
    assert "down 0.600" in line_with(board, "f1")
    assert " - " in line_with(board, "f2")


@pytest.mark.parametrize(("first_event_after", "patience", "least"), [(0.5, 60.0, 0.9), (None, 0.6, 1.0)])
def test_seconds_begin_with_the_first_event_or_when_it_should_have_come(
    board: Board, monkeypatch: pytest.MonkeyPatch, first_event_after: float | None, patience: float, least: float
) -> None:
    """On a busy machine starting took most of them, and there was nothing to see."""

    async def never(*_: Any) -> None:
        await asyncio.sleep(3_600)

    async def measured(board: Board, _: Any) -> None:
        if first_event_after is not None:
            await asyncio.sleep(first_event_after)
            board.measured({"events_total": 1.0}, 1.0)
        await never()

    monkeypatch.setattr(demo, "feed", never)
    monkeypatch.setattr(demo, "measure", measured)
    monkeypatch.setattr(demo, "PATIENCE", patience)
    parts: Any = SimpleNamespace(trouble=lambda: None)
    nothing: Any = None
    started = time.monotonic()
    asyncio.run(asyncio.wait_for(demo.watch(board, flights, nothing, parts, seconds=0.5, token=nothing), timeout=30))
    assert time.monotonic() - started >= least
