"""A soak says what grows, of what went through; and its load has events without label and holds none for long."""

import asyncio
import os
import sys
import time
import weakref
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from bench import load, page, soak
from bench.load import Plan
from bench.payments import START_MS, payments

COUNTS = {
    "events_total": 90_000.0,
    'labels_total{outcome="matched"}': 80_000.0,
    'labels_total{outcome="expired"}': 9_000.0,
    'dead_letters_total{reason="invalid"}': 2.0,
    'dead_letters_total{reason="malformed"}': 1.0,
}


def of(**growing: float) -> soak.Run:
    """A run of three minutes in which these figures go up by so much a second and the others stay."""
    samples = []
    for number in range(1, 19):
        at = 10.0 * number
        figures = {figure.key: 1e6 + growing.get(figure.key, 0.0) * at for figure in soak.FIGURES}
        samples.append(soak.Sample(at, {**figures, "cpu": 0.5 * at + growing.get("cores", 0.0) * at**2}, COUNTS))
    return soak.Run(3.0, 0.5, samples, {"profiles-0": 9_000, "profiles-1": 973, "pending-0": 20_000})


@pytest.mark.parametrize("figure", [figure for figure in soak.FIGURES if figure.is_judged], ids=lambda one: one.key)
def test_whatever_figure_grows_is_named(figure: soak.Figure) -> None:
    assert soak.grown(soak.trends(of())) == []
    found = of(**{figure.key: 5_000.0})
    assert soak.grown(soak.trends(found)) == [figure.label]
    assert f"What grows: {figure.label}." in soak.section(found, soak.trends(found))


def test_cores_are_told_and_not_judged_since_the_machine_may_have_others_on_it() -> None:
    found = of(cores=0.01)
    used = soak.series(found.samples, "cores")
    assert used[1:] == pytest.approx([0.5 + 0.01 * (after + after - 10.0) for after in range(20, 190, 10)])
    judged = soak.trends(found)
    assert soak.grown(judged) == []
    assert next(went for figure, went in judged.items() if figure.key == "cores").grows


def test_the_section_says_what_went_through_and_what_was_kept() -> None:
    found = of()
    text = "\n".join(soak.section(found, soak.trends(found)))
    assert "90,000 events, 80,000 matched with their labels, 9,000 expired without one, 3 dead letters" in text
    assert "9,973 profiles of 9,973 customers, and 20,000 ids that wait" in text
    assert "Nothing grows." in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 1 + len(soak.FIGURES)


@pytest.mark.parametrize(("growth", "code"), [(0.0, 0), (5_000.0, 1)])
def test_a_run_in_which_something_grows_ends_with_1(
    growth: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "soak.json"
    kept.write_bytes(msgspec.json.encode(of(anonymous=growth)))
    monkeypatch.setattr(sys, "argv", ["soak", "--of", str(kept)])
    before = page.PAGE.read_text("utf-8")
    assert soak.main() == code
    assert page.PAGE.read_text("utf-8") == before


def test_what_is_to_be_written_is_section_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, plot = tmp_path / "soak.json", tmp_path / "soak.svg"
    kept.write_bytes(msgspec.json.encode(of()))
    written: dict[str, str] = {}
    monkeypatch.setattr(page, "write", written.__setitem__)
    monkeypatch.setattr(soak, "PLOT", plot)
    monkeypatch.setattr(sys, "argv", ["soak", "--of", str(kept), "--write"])
    assert soak.main() == 0
    assert "Nothing grows." in written["bench-soak"]
    assert plot.read_text("utf-8") == soak.plot(of())


def test_the_picture_has_a_line_of_all_samples_for_each_panel() -> None:
    tree = ElementTree.fromstring(soak.plot(of(data=1_000.0)))
    lines = [element.attrib["points"].split() for element in tree.iter() if element.tag.endswith("polyline")]
    assert [len(line) for line in lines] == [18] * len(soak.PLOTTED)
    assert "at most" in " ".join(element.text or "" for element in tree.iter())


def test_ids_that_wait_are_of_rate_and_horizon() -> None:
    horizon = 7 * soak.DAY
    labelled, others = 0.9 * soak.RATE, 0.1 * soak.RATE
    assert soak.ids_expected() == pytest.approx(labelled * (horizon + 1.0) + others * 2 * horizon + 5.0 * soak.RATE)


def test_bytes_of_a_log_are_without_indexes_and_what_is_deleted(tmp_path: Path) -> None:
    for name in ("0.log", "0.index", "9.log.deleted"):
        for partition in ("x-0", "x-1", "xy-0"):
            file = tmp_path / "data" / partition / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"12345")
    assert soak.log_figures(tmp_path, ["x"]) == {"log x": 10.0}
    assert soak.bytes_of(tmp_path) == 45


def test_every_changelog_is_looked_at() -> None:
    looked = {figure.key for figure in soak.FIGURES}
    assert {f"log {name}" for name in soak.compacted_topics() if name.endswith("changelog")} <= looked


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_an_open_file_and_memory_that_is_held_are_seen(tmp_path: Path) -> None:
    before = soak.process_figures(os.getpid())
    held = bytearray(os.urandom(1 << 20) * 32)
    with (tmp_path / "file").open("w"):
        after = soak.process_figures(os.getpid())
    assert after["descriptors"] == before["descriptors"] + 1
    assert after["anonymous"] - before["anonymous"] > len(held) / 2
    assert after["threads"] >= 1


class Broker:
    """A producer whose records are there at once."""

    def __init__(self) -> None:
        self.held: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()
        self.most_held = 0
        self.sent: dict[str, list[int]] = {payments.events.topic: [], payments.labels.topic: []}

    async def send(self, topic: str, value: bytes, key: bytes, timestamp_ms: int) -> "asyncio.Future[None]":
        """Keep its time."""
        self.sent[topic].append(timestamp_ms)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        self.held.add(done)
        self.most_held = max(self.most_held, len(self.held))
        return done


def paced(plan: Plan) -> tuple[load.Sent, Broker]:
    """Send it, to nobody."""
    broker: Any = Broker()
    return asyncio.run(load._paced(plan._replace(start=time.monotonic()), broker)), broker


def test_one_event_in_so_many_gets_no_label_and_the_last_ones_are_sent_all_the_same() -> None:
    sent, broker = paced(Plan("nowhere:1", rate=1_000.0, seconds=0.05, labels_after=0.0, step=7, unlabelled=5))
    assert (sent.events, sent.labels, len(sent.late)) == (50, 40, 50)
    assert broker.sent[payments.events.topic] == [START_MS + 7 * number for number in range(50)]
    labelled = [START_MS + 7 * number for number in range(50) if number % 5 != 4]
    assert broker.sent[payments.labels.topic] == labelled


def test_a_label_is_as_late_in_event_time_as_by_the_clock() -> None:
    sent, broker = paced(Plan("nowhere:1", rate=1_000.0, seconds=0.02, labels_after=0.01, step=40))
    assert sent.labels == 20
    delays = zip(broker.sent[payments.events.topic], broker.sent[payments.labels.topic], strict=True)
    assert {label - event for event, label in delays} == {400}  # 10 ms are ten events


def test_a_sender_lets_go_of_what_the_broker_has_or_an_hour_of_it_would_be_held() -> None:
    _, broker = paced(Plan("nowhere:1", rate=1_000.0, seconds=0.1, labels_after=0.0))
    assert broker.most_held <= 3


def test_a_record_that_the_broker_refuses_ends_the_sender() -> None:
    class Refusing(Broker):
        async def send(self, topic: str, value: bytes, key: bytes, timestamp_ms: int) -> "asyncio.Future[None]":
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(ConnectionError("gone"))
            return refused

    broker: Any = Refusing()
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(load._paced(Plan("nowhere:1", 1_000.0, 0.01, start=time.monotonic()), broker))
