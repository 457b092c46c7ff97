"""The table and the bars of docs/performance.md."""

import html
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench import page
from bench.peers.systems import Run, System

DOCS = Path(__file__).parents[2] / "docs"
PLOT = DOCS / "images" / "peers.svg"
Measured = dict[System, list[Run]]  # of one workload, a run for each round
LEFT, BAR, RIGHT, ROW = 210, 420, 90, 24  # pixels of the plot


def table(found: Measured) -> list[str]:
    """One workload's rows. The first system is what the others are compared with, round by round."""
    first = next(iter(found.values()))
    lines = [
        "| system | promises | events | events/s | CPU s per 100,000 | Headwater is times as fast: clock | CPU |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for system, runs in found.items():
        wall = statistics.median(a.rate / b.rate for a, b in zip(first, runs, strict=True))
        cpu = statistics.median(b.cpu / a.cpu for a, b in zip(first, runs, strict=True))
        rate, spent = [run.rate for run in runs], [run.cpu for run in runs]
        cells = [system.label, system.promise, f"{runs[0].timed:,}", _spread(rate, ",.0f"), _spread(spent, ".2f")]
        lines.append(f"| {' | '.join(cells)} | {wall:.2f} | {cpu:.2f} |")
    return lines


def _spread(values: Sequence[float], form: str) -> str:
    """Median, and the range where there are several."""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)} to {format(max(values), form)})"


def section(found: dict[str, Measured], rounds: int, command: str) -> str:
    """All tables, with machine and versions."""
    names = ("river", "aiokafka", "faust-streaming", "numba")
    ours = ", ".join(f"{name} {version(name)}" for name in names)
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()};"
        f" {ours}; {_locked('quixstreams')}, {_locked('bytewax')}, {_locked('confluent-kafka')}.",
        f"Medians of {rounds} interleaved rounds, with ranges; `{command}`.",
    ]
    for workload, measured in found.items():
        lines += ["", f"**{workload}**", "", *table(measured)]
    return "\n".join([*lines, "", f"![Events a second of each system](images/{PLOT.name})"])


def _locked(name: str) -> str:
    """Name and version of a package of the peers' environment."""
    text = (DOCS.parent / "requirements" / "peers.txt").read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"{name}=="))
    return line.partition(" ")[0].replace("==", " ")


def plot(found: dict[str, Measured]) -> str:
    """Bars of events a second, median with range, a group for each workload; SVG."""
    rows: list[str] = []
    at = 0
    for workload, measured in found.items():
        at += ROW
        rows.append(_text(0, at, workload, "font-weight='bold'"))
        most = max(statistics.median(run.rate for run in runs) for runs in measured.values())
        for system, runs in measured.items():
            at += ROW
            rows.append(_bar(at, system, [run.rate for run in runs], most))
        at += ROW // 2
    size = f"width='{LEFT + BAR + RIGHT}' height='{at + ROW // 2}'"
    style = "font-family='sans-serif' font-size='12'"
    # White behind it, since a page may be dark.
    begin = f"<svg xmlns='http://www.w3.org/2000/svg' {size} {style}><rect width='100%' height='100%' fill='white'/>"
    return "\n".join([begin, *rows, "</svg>", ""])


def _bar(at: int, system: System, rates: Sequence[float], most: float) -> str:
    rate = statistics.median(rates)
    width, low, high = (BAR * value / most for value in (rate, min(rates), max(rates)))
    colour = "#1f6f8b" if system.is_headwater else "#b0b7bd"
    middle = at - 4
    return "".join(
        [
            _text(0, at, system.label),
            f"<rect x='{LEFT}' y='{at - 13}' width='{width:.1f}' height='16' fill='{colour}'/>",
            f"<path d='M{LEFT + low:.1f} {middle}H{LEFT + high:.1f}' stroke='black'/>",
            _text(LEFT + max(width, high) + 6, at, f"{rate:,.0f}/s"),
        ]
    )


def _text(x: float, y: int, text: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y}' {more}>{html.escape(text)}</text>"


def write(found: dict[str, Measured], rounds: int, command: str) -> None:
    """Put tables and bars where the last ones are. Raises RuntimeError where the page has no place for them."""
    PLOT.write_text(plot(found), "utf-8")
    page.write("bench", section(found, rounds, command))
