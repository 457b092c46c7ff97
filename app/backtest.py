"""Runs a pipeline over its data set without Kafka and shows what it reached: `headwater backtest`."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app.people import needs_source
from learning.backtest import BacktestResult, backtest
from learning.illusion import Illusion, compare
from pipelines.definition import Pipeline

DEFAULT_FREEZE = {"flights": datetime(2013, 2, 1, tzinfo=UTC)}
SINCE = "since_frozen_"
WIDTH = 78  # the table is at least as wide as its title, up to a narrow terminal's width


def freeze_ms(pipeline: Pipeline, freeze_after: datetime | None) -> int | None:
    """The instant from which on a frozen copy is scored beside, if any."""
    when = freeze_after or DEFAULT_FREEZE.get(pipeline.name)
    return None if when is None else int(when.timestamp() * 1000)


def run(pipeline: Pipeline, freeze_at: int | None, console: Console) -> tuple[BacktestResult, float]:
    """The result, and the seconds it took; a bar on the console meanwhile."""
    needs_source(pipeline)
    started = time.monotonic()
    with _progress(console) as progress:
        result = backtest(pipeline, _counted(pipeline, progress), freeze_at=freeze_at)
    return result, time.monotonic() - started


def run_drift(pipeline: Pipeline, console: Console) -> Illusion:
    """The alarms over the data set, and what resetting the model at them is worth."""
    needs_source(pipeline)
    with _progress(console) as progress:
        return compare(pipeline, lambda: _counted(pipeline, progress))


def _progress(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _counted(pipeline: Pipeline, progress: Progress) -> Iterator[Any]:
    """The data set, with a line on the console about how far it is."""
    task = progress.add_task(f"reading {pipeline.name}")
    for number, item in enumerate(pipeline.source(), 1):  # type: ignore[misc]  # whoever calls has checked
        if number % 2_000 == 0:
            day = datetime.fromtimestamp(pipeline.stream_of(item).time_of(item) / 1000, UTC).date()
            progress.update(task, description=f"{pipeline.name}: {number:,} events and labels, at {day}")
        yield item
    progress.remove_task(task)


def drift_dict(pipeline: Pipeline, compared: Illusion) -> dict[str, Any]:
    """The same as JSON has it."""
    values: dict[str, Any] = msgspec.to_builtins(compared)
    return {"pipeline": pipeline.name, **values}


def drift_table(pipeline: Pipeline, compared: Illusion) -> Group:
    """The alarms, one a line, and the three ways beside each other."""
    lines = [f"{datetime.fromtimestamp(alarm.time_ms // 1000, UTC):%Y-%m-%d} {alarm.text}" for alarm in compared.alarms]
    title = f"{pipeline.name}: {len(lines)} alarms, {compared.resets} resets over {compared.examples:,} examples"
    shown = Table(title=title, title_justify="left", min_width=min(len(title), WIDTH))
    for name in ("metric", "reset at alarms", "never reset", "reset as often, evenly"):
        shown.add_column(name, justify="left" if name == "metric" else "right")
    for name, value in compared.at_alarms.items():
        others = (compared.never.get(name), compared.periodic.get(name))
        shown.add_row(name, f"{value:.6f}", *("" if other is None else f"{other:.6f}" for other in others))
    return Group(*(Text(line) for line in lines), shown)


def as_dict(pipeline: Pipeline, result: BacktestResult, seconds: float) -> dict[str, Any]:
    """The result as JSON has it."""
    values: dict[str, Any] = msgspec.to_builtins(result)
    names = ("n", "predicted", "observed")
    values["calibration"] = [dict(zip(names, bin_, strict=True)) for bin_ in result.calibration]
    return {"pipeline": pipeline.name, "seconds": round(seconds, 3), **values}


def table(pipeline: Pipeline, values: dict[str, Any]) -> Table:
    """The result as people read it: the model, beside it its frozen copy where there is one, and what it must beat.

    The measures over everything come first, then those over what came since the copy stopped learning.
    """
    always = ("events", "predictions", "labels", "examples")  # of the other counts, zeros say nothing
    numbers = {name: value for name, value in values.items() if isinstance(value, int) and (value or name in always)}
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in numbers.items())
    title = f"{pipeline.name}: {counts} in {values['seconds']:.1f} s"
    shown = Table(title=title, title_justify="left", min_width=min(len(title), WIDTH))
    columns: dict[str, dict[str, float]] = {"keeps learning": values["metrics"], "frozen": values["frozen"] or {}}
    columns |= {name.replace("_", " "): measures for name, measures in values["baselines"].items()}
    columns = {name: measures for name, measures in columns.items() if measures}
    shown.add_column("metric")
    for name in columns:
        shown.add_column(name, justify="right")
    total = [name for name in values["metrics"] if not name.startswith(SINCE)]
    for name in total:
        shown.add_row(name, *_cells(columns, name))
    if values["frozen"]:
        shown.add_section()
        shown.add_row("since frozen:")
        for name in total:
            shown.add_row(name, *_cells(columns, SINCE + name))
    return shown


def _cells(columns: dict[str, dict[str, float]], name: str) -> list[str]:
    return [f"{measures[name]:.6f}" if name in measures else "" for measures in columns.values()]
