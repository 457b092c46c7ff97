"""The draft of a post-mortem says what the evidence is, and the evidence is what the topics hold."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import msgspec
import pytest

from app import evidence as gathering
from app import incident as commands
from app import replay
from app.draft import draft
from app.evidence import Evidence, Opening, Side, around, dead_letters, from_log, on_labels, place_of, side_of
from learning.quality import measure
from learning.records import Control, Correction, Example, LogRecord, encode
from learning.reports import Alarm, AlarmKind, Incident
from learning.slices import Moved, Slice
from tests.doubles import HOUR, TinyFeatures, tiny_pipeline

PIPELINE: Any = tiny_pipeline(description="Will it ping?")
SINCE = 5_000 * 1_000


class Log:
    """A topic in memory, as `app.replay` reads one; `reads` counts the records that were asked for."""

    name = "tiny.training-log"

    def __init__(self, records: Sequence[tuple[int, bytes, int]]) -> None:
        self._records = records
        self.begin = 0
        self.end = records[-1][0] + 1 if records else 0
        self.reads = 0

    async def records(
        self, start: int = 0, stop: int | None = None, progress: replay.Progress = replay.nothing
    ) -> AsyncGenerator[Any, None]:
        """Records from start to before stop."""
        for offset, value, wall_ms in self._records[max(start // 2, 0) :]:
            if offset >= (self.end if stop is None else stop):
                break
            if offset >= start:
                self.reads += 1
                yield SimpleNamespace(offset=offset, value=value, timestamp=wall_ms, key=None)
        progress(1, 1)

    async def first_after(self, time_ms: int) -> int:
        """Offset of the first record written after a time."""
        return next((offset for offset, _, wall_ms in self._records if wall_ms > time_ms), self.end)


def log_of(entries: Sequence[LogRecord]) -> Any:
    """Records at even offsets: markers lie between them."""
    return Log([(2 * number, encode(entry), number) for number, entry in enumerate(entries)])


def example(number: int, *, delay_ms: int = 100, **more: Any) -> Example:
    """One a second by label time; from `SINCE` on x is ten times as large and the prediction wrong."""
    label_ms = 1_000 * number
    wrong = label_ms >= SINCE
    settings: dict[str, Any] = {
        "prediction": 0.1 if wrong else 0.9,
        "features": [10.0 if wrong else 1.0 + number % 3, 0.0],
        "schema": TinyFeatures.schema,
        "outcome": True,
        "source": "label",
        **more,
    }
    return Example(f"i{number}", "k", label_ms - delay_ms, label_ms, version=1, **settings)


def incident(kind: AlarmKind = "loss", **more: Any) -> Incident:
    alarm = Alarm("loss-9", kind, kind, "SR", SINCE + HOUR, 7_000_000, 3, 9, 70.0, 60.0, "loss | grew", SINCE)
    told = Incident(
        "loss-9", "tiny", "open", SINCE + HOUR, 7_000_000, SINCE, "model", "outcomes follow in another way", [alarm]
    )
    return msgspec.structs.replace(told, **more)


# -- the evidence


def test_examples_before_and_since_are_compared_exactly() -> None:
    said = Control("freeze", 5, "ann")
    entries: list[LogRecord] = [example(number) for number in range(6_000)]
    entries[5_500] = said
    entries[5_501] = Correction("i1", "k", 0, 1, False, True)
    entries[5_502] = example(5_502, source="correction")
    entries[5_503] = example(5_503, schema="another")
    found = asyncio.run(from_log(PIPELINE, log_of(entries), incident()))
    assert (found.clock, found.before.n, found.since.n) == ("label time", 5_000, 996)
    assert found.before.quality == measure("binary", 0.5, [(0.9, True)] * 5_000)
    assert found.since.quality == measure("binary", 0.5, [(0.1, True)] * 996)
    assert found.before.label_delay == {"p50": 0.1, "p90": 0.1, "p99": 0.1}
    assert [(each.name, each.ks) for each in found.inputs] == [("x", 1.0), ("seen", 0.0)]
    assert found.controls == [(11_000, said)]
    assert {"x >= 3", "seen = 0"} <= {each.name for each in found.slices}


def test_negatives_without_a_vector_count_in_quality_and_in_no_slice() -> None:
    """A pipeline that learns a share of them has records without features, which were no rows of a matrix."""
    entries: list[LogRecord] = [
        example(number, outcome=False, features=[], kept=False) if number % 2 else example(number)
        for number in range(6_000)
    ]
    found = asyncio.run(from_log(PIPELINE, log_of(entries), incident()))
    assert (found.before.n, found.since.n) == (5_000, 1_000)
    assert found.before.outcomes == {"False": 0.5, "True": 0.5}
    assert [(each.name, each.ks) for each in found.inputs] == [("x", 1.0), ("seen", 0.0)]
    assert {each.n for each in found.slices if each.name == "seen = 0"} == {500}


def test_inputs_are_told_apart_by_the_times_of_events() -> None:
    entries = [example(number, delay_ms=100_000) for number in range(6_000)]
    assert asyncio.run(from_log(PIPELINE, log_of(entries), incident("loss"))).since.n == 1_000
    found = asyncio.run(from_log(PIPELINE, log_of(entries), incident("feature")))
    assert (found.clock, found.before.n, found.since.n) == ("event time", 5_100, 900)


def test_the_alarm_that_changed_first_says_by_which_clock() -> None:
    first, second = incident("feature").alarms[0], incident("loss").alarms[0]
    later = msgspec.structs.replace(second, since_ms=SINCE + 1)
    assert not on_labels(incident(alarms=[first, later]))
    assert not on_labels(incident(alarms=[later, first]))
    assert on_labels(incident(alarms=[msgspec.structs.replace(first, since_ms=-1), second]))


def test_of_a_long_log_only_what_lies_around_the_change_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "EXAMPLES", 100)
    log = log_of([example(number) for number in range(50_000)])
    found = asyncio.run(from_log(PIPELINE, log, incident()))
    assert (found.before.n, found.since.n) == (100, 100)
    assert (found.before.until_ms, found.since.since_ms) == (SINCE - 1_100, SINCE - 100)
    assert log.reads < 1_500


@pytest.mark.parametrize("label_ms", [-1, 0, 1, 499_000, 500_000, 1_234_500, 2_999_000, 3_000_000, 9_000_000])
def test_a_time_is_found_in_the_log(label_ms: int) -> None:
    entries: list[LogRecord] = [example(number) for number in range(3_000)]
    for number in range(700, 1_900):  # a long time without examples
        entries[number] = Control("freeze", 0, "ann")
    place = asyncio.run(place_of(log_of(entries), label_ms))
    times = [(2 * n, e.label_time_ms) for n, e in enumerate(entries) if isinstance(e, Example)]
    assert [offset for offset, time_ms in times if (time_ms >= label_ms) != (offset >= place)] == []


def test_an_empty_log_is_no_evidence() -> None:
    found = asyncio.run(from_log(PIPELINE, cast("Any", Log([])), incident()))
    assert (found.before, found.since, found.inputs, found.slices) == (Side(0), Side(0), [], [])
    assert "Not compared" in draft(PIPELINE, incident(), found)


def test_a_side_tells_outcomes_delays_and_expiries() -> None:
    waited = [example(n, outcome=False, source="expiry", delay_ms=HOUR) for n in range(3)]
    side = side_of(PIPELINE, [example(10), *waited])
    assert side.outcomes == {"False": 0.75, "True": 0.25}
    assert (side.expired, side.label_delay["p99"]) == (0.75, 0.1)


def test_what_lies_around_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST", 100)
    near = Log([(2 * n, b"{}", 6_990_000 + 10 * n) for n in range(2_000)])
    found = asyncio.run(around(cast("Any", near), incident()))
    assert [record.offset for record in found] == list(range(1_902, 2_102, 2))[: len(found)]
    assert 98 <= len(found) <= 101
    far = Log([(0, b"{}", 0), (2, b"{}", 7_000_000), (4, b"{}", 70_000_000)])
    assert [record.offset for record in asyncio.run(around(cast("Any", far), incident()))] == [2]


def test_dead_letters_are_counted_before_and_since() -> None:
    def brief(wall_ms: int, **reasons: int) -> Any:
        return SimpleNamespace(wall_ms=wall_ms, dead_letters=reasons)

    assert dead_letters([brief(1, late=2), brief(2, late=1), brief(3, malformed=4, late=1)], 3) == [
        {"late": 3},
        {"late": 1, "malformed": 4},
    ]


# -- the draft

EVIDENCE = Evidence(
    "label time",
    Side(900, {"log_loss": 0.25, "roc_auc": 0.9}, {"p50": 60.0}, 0.1, {"True": 0.3}, 0, SINCE),
    Side(500, {"log_loss": 1.5}, {"p50": 7_200.0}, 0.4, {"True": 0.5}, SINCE, SINCE + HOUR),
    [Moved("x|y", 1.0, 60.0, 0.93)],
    [
        Slice("x >= 3", 225, 480, 0.2, 1.6, 0.25, 0.96, True, 1.3),
        Slice("new = 1", 0, 40, 0.2, 1.0, 0.0, 0.08, False, 0.5),
    ],
    [(77, Control("relearn", 7_000_500, "headwater", "alarm loss-9", since=40))],
    [(70, 6_999_000)],
    [Opening(6_999_500, "host:1", 2), Opening(6_999_600, "host:1", 0), Opening(6_999_600, "host:2", 1)],
    [{"late": 3}, {"late": 1, "malformed": 4}],
    {"pings": 12_000},
    41,
    {"loss by ADWIN": 2},
    ["tiny.snapshots"],
)


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_draft_has_what_a_post_mortem_needs() -> None:
    text = draft(PIPELINE, incident(events=["1970-01-01 00:00 UTC: freeze by ann at offset 3"]), EVIDENCE)
    titles = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert titles == [
        "Incident loss-9",
        "Summary",
        "Timeline (UTC)",
        "What fired",
        "Likely cause",
        "Evidence",
        "Quality",
        "Worst groups",
        "Inputs",
        "Labels",
        "Pipeline",
        "What was done",
        "Root cause",
        "What went well, what did not",
        "Actions",
    ]
    for line in (
        "Pipeline tiny. Will it ping?",
        "**model**: outcomes follow in another way.",
        "| Log loss | 0.25 | 1.5 |",
        "| roc_auc | 0.9 | - |",
        "| x\\|y | 1 | 60 | 0.93 |",
        "| x >= 3 | 225 | 480 | 0.2 | 1.6 | 25.0 % | 96.0 % |",
        "| new = 1 | 0 | 40 | 0.2 (of all) | 1 | 0.0 % | 8.0 % |",
        "| delay, p50 | 1 min | 2 h |",
        "| expired without a label | 10.0 % | 40.0 % |",
        "| outcome True | 30.0 % | 50.0 % |",
        "| late | 3 | 1 |",
        "| malformed | 0 | 4 |",
        "The pipeline's own detectors fired near it: loss by ADWIN 2 times.",
        "- 1970-01-01 00:00 UTC: freeze by ann at offset 3",
        "Not read, since they do not exist: tiny.snapshots.",
    ):
        assert line in text.splitlines()
    assert text.count("*To fill in: ") == 5


def test_what_was_done_is_told_once() -> None:
    """The record and the log both tell of a control record."""
    when = "1970-01-01 00:00 UTC:"
    events = [f"{when} relearn by headwater at offset 77: alarm loss-9", f"{when} freeze by ann at offset 7"]
    done = draft(PIPELINE, incident(events=events), EVIDENCE).split("## What was done")[1].split("*To fill")[0]
    assert [line.split(" by ")[0] for line in done.splitlines() if line] == [
        "- relearn since offset 40",
        f"- {when} freeze",
    ]


def test_timeline_is_in_the_order_of_the_clock() -> None:
    text = draft(PIPELINE, incident(state="closed", closed_wall_ms=9_000_000), EVIDENCE)
    table = text.split("## Timeline (UTC)")[1].split("##")[0]
    rows = [line.split(" | ")[-1].rstrip(" |") for line in table.splitlines() if line.startswith("| ")]
    assert rows == [
        "what",
        "likely time of the change",
        "version 70 of the model was saved",
        "host:1 opened partitions 0, 2",
        "host:2 opened partitions 1",
        "alarm on loss",
        "this incident was opened",
        "relearn since offset 40 by headwater, 1970-01-01T01:56:40.500Z, offset 77: alarm loss-9",
        "this incident was closed",
    ]
    assert "It was closed at 1970-01-01T02:30:00.000Z" in text


def test_what_people_named_is_no_markdown() -> None:
    evil = incident(why="a|b\n# <b>*c*</b>\x1b[31m")
    text = draft(PIPELINE, evil, EVIDENCE)
    (line,) = lines_with(text, "**model**:")
    assert line == "**model**: a\\|b # \\<b>\\*c\\*\\</b> \\[31m."
    assert lines_with(text, "loss \\| grew")
    assert "\x1b" not in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    text = draft(PIPELINE, incident(), EVIDENCE)
    width = 0
    for line, after in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        cells = line.replace("\\|", "").count("|")
        if after.startswith("|---"):
            width = cells
        assert not line.startswith("|") or cells == width


# -- the command


def test_incidents_are_listed_with_ids_that_can_be_copied() -> None:
    """A table cut them where the terminal was narrow."""
    shown = commands._listed([incident(id="loss-123456789", cause="data"), incident(state="closed")]).splitlines()
    assert [line.split()[:4] for line in shown] == [
        ["loss-123456789", "open", "data", "since"],
        ["loss-9", "closed", "model", "since"],
    ]
    assert commands._listed([]) == "no incident so far\n"


def test_what_is_written_to_a_file_is_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for made in ("# Draft\n", {"incident": {"id": "a"}, "evidence": None}):
        commands.deliver(made, None)
        commands.deliver(made, tmp_path / "out")
        assert capsys.readouterr().out == (tmp_path / "out").read_text(encoding="utf-8")
    with pytest.raises(click.ClickException, match=r"cannot write .*; name another --out"):
        commands.deliver("text", tmp_path / "nowhere" / "out")
