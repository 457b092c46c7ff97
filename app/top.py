"""How the pipeline is, live in a terminal: `headwater top`. From any machine that reaches the broker.

The owner of the training log writes a report every few seconds; this shows the newest, with the page's verdict.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.control import now
from app.feed import NEWEST, Feed, as_json, board_of, check
from app.live import Board
from app.people import (
    broker_option,
    console,
    interruptible,
    json_option,
    pipeline_of,
    pipeline_option,
    print_json,
    run,
    settings_for,
)
from learning.quality import MEASURES
from learning.reports import FieldReport, Incident, Report
from learning.verdict import NAMES, Verdict, judge, percent, span, when
from pipelines.definition import Pipeline
from streaming import clients
from streaming.config import EngineConfig

STYLES = {"good": "green", "watch": "yellow", "bad": "red", "unknown": "dim"}
SHOWN = {  # columns of the table of quality by what they are over; those that find no room are left out from the end
    "rolling": "last",
    "rolling_base_rate": "base rate",
    "rolling_last_label": "last label",
    "frozen": "frozen copy",
    "since_frozen": "beside it",
    "total": "all",
    "recent": "recent",
    "mature": "mature",
}
LABELS = {"roc_auc": "ROC AUC", "mae": "MAE", "rmse": "RMSE", "calibration_error": "calibration", **NAMES}
FRAMELESS: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False}
OLD_MS = 60_000  # a report older than this is not how the pipeline is now
INPUTS = 12
INCIDENTS = 5
FRAME = 31  # lines of the view that are not rows of its inputs and incidents


@click.command("top")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@pipeline_option
@broker_option
@json_option
def command(once: bool, pipeline: str | None, broker: str | None, as_json: bool) -> None:
    """Show how the pipeline is, live, until Ctrl-C.

    Verdict, quality beside baselines and the frozen copy, inputs with the worst first, labels, workers, lag, dead
    letters, incidents: from the reports that the owner of the training log writes to Kafka every few seconds. Where
    standard output is no terminal, one frame.
    """
    settings = settings_for(pipeline=pipeline, broker=broker)
    definition = pipeline_of(settings)
    config = settings.engine_config(definition.name)
    if as_json:
        print_json(as_dict(run(board_of(definition, config))))
    elif once or not console.is_terminal:
        console.print(View(run(board_of(definition, config)), now))
    else:
        with suppress(KeyboardInterrupt), interruptible():
            run(live(definition, config))


async def live(pipeline: Pipeline, config: EngineConfig) -> None:
    """Show what comes, until somebody ends it. Raises StartupError where a topic does not exist."""
    await check(pipeline, config)
    board = Board(pipeline.name, pipeline.description)
    feed = Feed(pipeline, board, NEWEST)
    async with clients.consumer(config) as consumer:
        await feed.begin(consumer)
        await feed.read_to_end(consumer)
        with Live(View(board, now), console=console, refresh_per_second=2, screen=True):
            while True:
                await feed.read(consumer)


def as_dict(board: Board) -> dict[str, Any]:
    """What `--json` prints: the newest report, whole; the verdict; the incidents that are open."""
    report, incidents = board.latest, board.incidents()
    return {
        "pipeline": board.pipeline,
        "verdict": as_json(judge(report, incidents)),
        "report": as_json(report),
        "incidents": [as_json(incident) for incident in incidents if incident.state == "open"],
    }


class View:
    """A board as a terminal shows it.

    Args:
        board: what is shown.
        clock: tells the present, in milliseconds.
    """

    def __init__(self, board: Board, clock: Callable[[], int]) -> None:
        self._board = board
        self._clock = clock

    def __rich_console__(self, screen: Console, _options: ConsoleOptions) -> RenderResult:
        """Everything, with as many inputs and incidents as there is room for."""
        report, incidents = self._board.latest, self._board.incidents()
        judged = judge(report, incidents)
        yield head(self._board.pipeline, report, self._clock())
        yield from said(judged)
        if report is not None:
            room = max(3, screen.height - FRAME) if screen.is_terminal else INPUTS
            yield quality(report, screen.width)
            yield inputs(report, min(room, INPUTS))
            yield Group(*labels(report), *health(report))
        yield from listed(incidents, INCIDENTS if not screen.is_terminal or screen.height > FRAME + 12 else 2)


def head(pipeline: str, report: Report | None, now_ms: int) -> Text:
    """One line: which pipeline, at which version, and how old this is."""
    text = Text.assemble((f"Headwater {pipeline}", "bold"))
    if report is None:
        return text
    text.append(f"   {report.events_per_second:,.0f} events/s   model version {report.version:,}")
    text.append(f"   {report.examples:,} outcomes   stream at {when(report.time_ms)}")
    age = max(now_ms - report.wall_ms, 0)
    if age >= OLD_MS:
        text.append(f"   written {span(age / 1000)} ago: nothing has come since, or no worker runs", "yellow")
    return text


def said(judged: Verdict) -> Iterator[Text]:
    """The verdict, and the four things that it is made of."""
    yield Text.assemble((judged.words, f"bold {STYLES[judged.state]}"), f": {judged.why}")
    for check_ in judged.checks:
        yield Text.assemble((f"  {check_.part:<9}{check_.state:<8}", STYLES[check_.state]), check_.text)


def quality(report: Report, width: int) -> Table:
    """Measures of the model over several spans, beside the baselines, as many as the width has room for."""
    table = Table("quality", title_justify="left", **FRAMELESS)
    found = report.quality | report.baselines
    columns = [(title, found[over]) for over, title in SHOWN.items() if over in found][: max((width - 12) // 12, 2)]
    for title, _ in columns:
        table.add_column(title, justify="right")
    for name in MEASURES:
        if any(name in measures for _, measures in columns):
            table.add_row(LABELS.get(name, name), *(_number(measures.get(name)) for _, measures in columns))
    return table


def inputs(report: Report, rows: int) -> Table:
    """Features and fields, the worst first."""
    table = Table(**FRAMELESS)
    table.add_column(f"input ({min(rows, len(report.fields))} of {len(report.fields)})", overflow="fold")
    for column in ("mean", "before", "missing", "outside", "KS", "PSI", "alarm"):
        table.add_column(column, justify="right", no_wrap=True)
    for field in worst(report)[:rows]:
        numbers = (
            ("", "")
            if field.kind == "field" and not field.mean
            else (_number(field.mean), _number(field.reference_mean))
        )
        cells = (*numbers, percent(field.missing, 1), percent(field.outside, 1), _number(field.ks), _number(field.psi))
        name = f"{field.name}{' (new: ' + ', '.join(field.new[:3]) + ')' if field.new else ''}"
        table.add_row(Text(name), *cells, _level(level_of(report, field)), style="red" if field.drifted else "")
    return table


def worst(report: Report) -> Sequence[FieldReport]:
    """The fields, those first that are nearest to an alarm or beyond it."""
    return sorted(report.fields, key=lambda f: (not f.drifted, -level_of(report, f), -f.psi, f.name))


def level_of(report: Report, field: FieldReport) -> float:
    """How much of the alarm's threshold the field has reached by itself."""
    return report.drift.get(f"{field.kind}:{field.name}", 0.0)


def labels(report: Report) -> Iterator[Text]:
    """How many outcomes come, and how late."""
    covered = (
        f"{percent(report.coverage, 1)} of predictions got one" if report.coverage >= 0.0 else "coverage not known"
    )
    delays = (
        f"{name} {span(report.label_delay[name])}" for name in ("p50", "p90", "p99") if name in report.label_delay
    )
    yield _line("labels", f"{covered}   delay {'  '.join(delays) or '-'}")


def health(report: Report) -> Iterator[Text]:
    """Workers and their partitions, what waits, and what could not be used."""
    owned = (f"{worker} {', '.join(map(str, numbers))}" for worker, numbers in sorted(report.units.items()))
    yield _line("workers", "   ".join(owned) or "none known")
    lags = [f"{topic} {records:,}" for topic, records in sorted(report.lag.items())]
    yield _line("lag", "   ".join([*lags, f"examples to learn {report.model_lag:,}"]))
    dead = [f"{reason} {percent(share, 2)}" for reason, share in sorted(report.dead_letters.items())]
    yield _line("unusable", "   ".join(dead) or "none in the last minutes")


def listed(incidents: Sequence[Incident], rows: int) -> Iterator[Text]:
    """Incidents, the open ones first and then the newest."""
    ordered = sorted(incidents, key=lambda each: each.state != "open")
    for each in ordered[:rows]:
        first = each.alarms[0].text if each.alarms else ""
        style = "red" if each.state == "open" else "dim"
        yield Text.assemble(
            (f"{each.state} incident {each.id}", style), f" since {when(each.since_ms)}, {each.cause}: {first}"
        )
    if not incidents:
        yield Text("no incident so far", style="dim")
    else:
        yield Text("`headwater incident ID` drafts the post-mortem", style="dim")


def words(report: Report | None, incidents: Sequence[Incident]) -> Iterator[str]:
    """The same in a few lines, for `headwater status`."""
    judged = judge(report, incidents)
    yield f"{judged.words}: {judged.why}"
    if report is not None:
        rolling = report.quality.get("rolling", {})
        told = "  ".join(f"{name} {value:.4g}" for name, value in rolling.items())
        yield f"last outcomes: {told or 'none yet'}; at version {report.version:,}, {when(report.time_ms)}"
        yield from (line.plain for line in (*labels(report), *health(report)))
        for each in incidents:
            if each.state == "open":
                yield f"open incident {each.id} ({each.cause}); `headwater incident {each.id}`"


def short(report: Report | None) -> Mapping[str, Any] | None:
    """The report without what is long, for `headwater status --json`."""
    if report is None:
        return None
    return {name: value for name, value in as_json(report).items() if name not in ("fields", "calibration", "alarms")}


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<9}", "dim"), text)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _level(level: float) -> Text:
    return Text(percent(level), style="red" if level >= 1.0 else "yellow" if level >= 0.5 else "")
