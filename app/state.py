"""The page's state as JSON: `/api/state`, and what `/events` sends. Each section is replaced as a whole.

Only history grows: as columns, of which one reports's `point` is one more row.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from app.live import Board
from app.metrics import PrometheusMetrics, parse
from learning.reports import Measures, Report
from learning.verdict import judge

SIGNALS = 12  # drift signals with a history; the others are in the newest report
Json = dict[str, Any]


class State:
    """Makes the sections from a board and this worker's metrics.

    Args:
        board: what is known of the pipeline.
        metrics: this worker's.
        build: hash of the page's own files; a page of another build loads itself again.
    """

    def __init__(self, board: Board, metrics: PrometheusMetrics, build: str) -> None:
        self.board = board
        self._metrics = metrics
        self._build = build

    def sections(self) -> dict[str, bytes]:
        """Every section but history, encoded."""
        board = self.board
        incidents = board.incidents()
        parts = {
            "about": {"pipeline": board.pipeline, "description": board.description, "build": self._build},
            "report": board.latest,
            "verdict": judge(board.latest, incidents),
            "incidents": incidents,
            "alarms": board.alarms(),
            "recent": board.recent(),
            "worker": self._samples(),
        }
        return {name: msgspec.json.encode(part) for name, part in parts.items()}

    def history(self) -> bytes:
        """All columns of the history."""
        reports = self.board.reports()
        return msgspec.json.encode(columns(reports, leading(reports)))

    def point(self) -> bytes:
        """The columns of the newest report, one row long."""
        newest = self.board.reports()[-1:]
        # Every signal: one that is no longer among the leading ones goes on in a history that was sent when it was.
        return msgspec.json.encode(columns(newest, [signal for report in newest for signal in report.drift]))

    def whole(self) -> bytes:
        """The whole state as one JSON object."""
        return joined({**self.sections(), "history": self.history()})

    def _samples(self) -> dict[str, float]:
        samples = parse(self._metrics.exposition().decode())
        return {name: value for name, value in samples.items() if "_bucket" not in name}


def joined(sections: dict[str, bytes]) -> bytes:
    """One object of sections that are encoded already.

    >>> joined({"a": b"1", "b": b"[]"})
    b'{"a":1,"b":[]}'
    """
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in sections.items()) + b"}"


def leading(reports: Sequence[Report]) -> list[str]:
    """The signals that came nearest to an alarm, the nearest first."""
    nearest: dict[str, float] = {}
    for report in reports:
        for signal, share in report.drift.items():
            nearest[signal] = max(nearest.get(signal, 0.0), share)
    return sorted(nearest, key=lambda signal: (-nearest[signal], signal))[:SIGNALS]


def columns(reports: Sequence[Report], signals: Sequence[str]) -> Json:
    """The reports as columns of equal length; null where a report lacks what another has."""
    return {
        "time": [report.label_ms for report in reports],
        "wall": [report.wall_ms for report in reports],
        "version": [report.version for report in reports],
        "events_per_second": [report.events_per_second for report in reports],
        "lag": [sum(report.lag.values()) for report in reports],
        "model_lag": [report.model_lag for report in reports],
        "coverage": [None if report.coverage < 0.0 else report.coverage for report in reports],
        "dead_letters": [sum(report.dead_letters.values()) for report in reports],
        "calibration_error": [report.calibration_error for report in reports],
        "quality": _nested(reports, lambda report: report.quality),
        "baselines": _nested(reports, lambda report: report.baselines),
        "label_delay": _named(reports, lambda report: report.label_delay),
        "drift": {signal: [report.drift.get(signal) for report in reports] for signal in signals},
    }


def _named(reports: Sequence[Report], measures: Callable[[Report], Measures]) -> Json:
    names = dict.fromkeys(name for report in reports for name in measures(report))
    return {name: [measures(report).get(name) for report in reports] for name in names}


def _nested(reports: Sequence[Report], groups: Callable[[Report], dict[str, Measures]]) -> Json:
    names = dict.fromkeys(name for report in reports for name in groups(report))
    return {name: _named(reports, lambda report, name=name: groups(report).get(name, {})) for name in names}  # type: ignore[misc]
