"""Whether a worker with its state on disk grows: memory, disk, descriptors, lags, once all that has a bound is full.

    python -m bench.soak --write         # 90 minutes, into docs/performance.md; exit code 1 where something grows
    python -m bench.soak --minutes 3     # to the screen
    python -m bench.soak --of FILE       # judge the samples of an earlier run again, which are in this file

A worker, a local Kafka and a producer, each a process of its own. Event time goes on so fast that horizon and windows
are over in the warm-up, and the page's history, a report each two seconds, is full after 27 minutes: from then on all
that a worker keeps has a bound, and whatever still grows is a leak.
"""

import argparse
import asyncio
import contextlib
import html
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.metrics import parse
from app.worker import prepared
from bench import page
from bench.growth import PARTS, Trend, trend
from bench.load import Plan, Sender
from bench.payments import DAY_MS, weekly
from bench.worker import PATIENCE, Worker, children, cpu_seconds
from streaming import topics
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig
from streaming.stores import Stores

APP = "bench-soak"
PLOT = page.PAGE.parent / "images" / "soak.svg"
RATE = 500  # events a second
CUSTOMERS = 9_973  # a prime, so that every customer has events with a label and without
UNLABELLED = 10
DAY = 8.0  # seconds in which event time goes on by a day; the horizon is seven and the longest window too
CACHE_MB = 64  # of HEADWATER_STORE_CACHE_MB: little, so that it is full in the warm-up
PARTITIONS = 4
MINUTES, WARMUP = 90.0, 1 / 3  # and the share of them that is not judged
EVERY = 10.0  # seconds between two samples
KEEP = Path(tempfile.gettempdir()) / "headwater-soak.json"
LABELS_AFTER = 1.0  # seconds

# What the broker compacts, and when: its defaults are a segment of seven days or a gigabyte, half of it rewritten.
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "60000",
    "segment.bytes": "16777216",
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": "60000",
}


class Sample(msgspec.Struct, frozen=True):
    """What was seen of a worker at one time.

    Attributes:
        at: seconds since the first event was due.
        figures: by their names in `FIGURES`.
        metrics: what the worker's `/metrics` says.
    """

    at: float
    figures: dict[str, float]
    metrics: dict[str, float]


class Run(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        minutes: how long events came.
        warmup: minutes that are not judged.
        samples: in the order of time.
        kept: how many values each of the worker's stores had when it had ended.
    """

    minutes: float
    warmup: float
    samples: list[Sample]
    kept: dict[str, int]


# -- what is looked at


def bytes_of(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files below a folder; one that goes away meanwhile counts as none."""
    total = 0
    for path in folder.rglob(pattern):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def process_figures(pid: int) -> dict[str, float]:
    """Memory in bytes, open descriptors, threads and CPU seconds of a process, as Linux has them."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines())
    return {
        "memory": int(lines["VmRSS"].split()[0]) * 1024.0,
        "anonymous": int(lines["RssAnon"].split()[0]) * 1024.0,
        "descriptors": float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())),
        "threads": float(lines["Threads"]),
        "cpu": cpu_seconds(pid),
    }


def log_figures(broker: Path, names: Sequence[str]) -> dict[str, float]:
    """Bytes of the broker's log of each of these topics, without indexes and without what is being deleted."""
    return {
        f"log {name}": float(sum(bytes_of(folder, "*.log") for folder in (broker / "data").glob(f"{name}-[0-9]*")))
        for name in names
    }


def compacted_topics() -> list[str]:
    """Topics that the broker compacts, of which the log has a bound."""
    specs = topics.topics_of(weekly, APP, PARTITIONS)
    return [spec.name for spec in specs if spec.config.get("cleanup.policy") == "compact"]


def sampled(worker: Worker, data: Path, broker: Path, began: float) -> Sample:
    """What can be seen of the worker now. Raises RuntimeError with its last words where it has ended."""
    if worker.process.poll() is not None:
        worker.samples()
    text = urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=PATIENCE).read()
    metrics = dict(parse(text.decode()))
    each = [process_figures(pid) for pid in (worker.process.pid, *children(worker.process.pid))]
    figures = {name: sum(one[name] for one in each) for name in each[0]} | log_figures(broker, compacted_topics())
    figures["data"] = float(bytes_of(data))
    figures["page"] = float(len(text))
    figures["consumer_lag"] = sum(value for name, value in metrics.items() if name.startswith("consumer_lag"))
    figures["model_lag"] = metrics["model_lag"]
    return Sample(time.monotonic() - began, figures, metrics)


# -- the run


async def _compact_soon(config: EngineConfig) -> None:
    async with topics.admin_client(config) as admin:
        changed = [ConfigResource(ConfigResourceType.TOPIC, name, configs=COMPACTED) for name in compacted_topics()]
        for answer in await admin.alter_configs(changed):
            for code, said, _, name in answer.resources:
                if code:
                    message = f"the broker does not take {COMPACTED} for {name}: {said} (error {code})"
                    raise RuntimeError(message)


def run(minutes: float, warmup: float, keep: Path) -> Run:
    """Load a worker for so long, with a sample every ten seconds, each added to the file when it is taken."""
    with tempfile.TemporaryDirectory(prefix="headwater-soak-") as folder:
        data, broker_folder = Path(folder) / "data", Path(folder) / "kafka"
        with LocalKafka(broker_folder) as broker:
            config = EngineConfig(
                bootstrap=broker.bootstrap, app_id=APP, partitions=PARTITIONS, store="disk", data_dir=data
            )
            asyncio.run(prepared(weekly, config))
            asyncio.run(_compact_soon(config))
            settings = {"app_id": APP, "partitions": PARTITIONS, "store": "disk", "store_cache_mb": CACHE_MB}
            with Worker(broker.bootstrap, "bench.payments:weekly", role="pair", data_dir=data, **settings) as worker:
                worker.ready()
                plan = Plan(
                    broker.bootstrap, RATE, minutes * 60, customers=CUSTOMERS, labels_after=LABELS_AFTER,
                    step=round(DAY_MS / DAY / RATE), unlabelled=UNLABELLED,
                )  # fmt: skip
                samples = asyncio.run(_loaded(plan, lambda began: sampled(worker, data, broker_folder, began), keep))
        kept = asyncio.run(_kept(config))
    found = Run(minutes, warmup, samples, kept)
    keep.write_bytes(msgspec.json.encode(found))
    return found


async def _loaded(plan: Plan, look: Callable[[float], Sample], keep: Path) -> list[Sample]:
    samples: list[Sample] = []
    with Sender(plan) as sender, keep.open("wb") as file:
        plan = await sender.begin()
        sending = asyncio.create_task(sender.sent())
        while not sending.done():
            await asyncio.wait([sending], timeout=max(0.0, plan.start + EVERY * (len(samples) + 1) - time.monotonic()))
            if sending.done():
                break
            samples.append(await asyncio.to_thread(look, plan.start))
            file.write(msgspec.json.encode(samples[-1]) + b"\n")
            file.flush()
        print(f"sent {(await sending).events:,} events and {(await sending).labels:,} labels", flush=True)
    return samples


async def _kept(config: EngineConfig) -> dict[str, int]:
    stores, kept = Stores(config), {}
    for path in sorted(stores.folder.iterdir()):
        store = await stores.open(path.name, "")
        kept[path.name] = sum(1 for _ in store.all_keys(b"v"))
        store.close()
    return kept


# -- what it comes to


class Figure(NamedTuple):
    """What is looked at.

    Attributes:
        key: its name in a sample.
        label: for people, with its unit.
        unit: how much of the sample's unit is one of the label's.
        digits: behind the point.
        slack: growth from the warm-up to the end that is let pass however small the figure is.
        is_judged: whether its growth is a failure.
    """

    key: str
    label: str
    unit: float = 1.0
    digits: int = 1
    slack: float = 0.0
    is_judged: bool = True


MB, KB = 1e6, 1e3
FIGURES = (
    Figure("anonymous", "anonymous memory, MB", MB),
    Figure("memory", "resident memory, MB", MB),
    Figure("data", "`HEADWATER_DATA_DIR`, MB", MB),
    Figure(f"log {APP}-profiles-changelog", "log of the changelog of profiles, MB", MB),
    Figure(f"log {APP}-pending-changelog", "of pending labels, MB", MB),
    Figure(f"log {APP}-monitors-changelog", "of monitors, MB", MB),
    Figure("log payments.snapshots", "log of the snapshots, kB", KB, slack=100 * KB),
    Figure("descriptors", "open descriptors"),
    Figure("threads", "threads"),
    Figure("consumer_lag", "consumer lag, records", slack=RATE),
    Figure("model_lag", "model lag, examples", slack=RATE),
    Figure("page", "`/metrics`, kB", KB),
    Figure("cores", "cores", digits=2, is_judged=False),
)
PLOTTED = FIGURES[:1] + FIGURES[2:6]


def series(samples: Sequence[Sample], key: str) -> list[float]:
    """The samples of one figure; cores from the CPU time since the sample before."""
    if key != "cores":
        return [sample.figures[key] for sample in samples]
    first = Sample(0.0, {"cpu": samples[0].figures["cpu"]}, {})
    pairs = pairwise([first, *samples])
    return [(after.figures["cpu"] - before.figures["cpu"]) / (after.at - before.at) for before, after in pairs]


def trends(found: Run) -> dict[Figure, Trend]:
    """How each figure went after the warm-up. Raises ValueError where there are too few samples."""
    at = [sample.at for sample in found.samples]
    begin, end = found.warmup * 60, found.minutes * 60
    return {one: trend(at, series(found.samples, one.key), begin, end, one.slack) for one in FIGURES}


def grown(judged: Mapping[Figure, Trend]) -> list[str]:
    """What grows, of what is judged."""
    return [figure.label for figure, went in judged.items() if figure.is_judged and went.grows]


def table(judged: Mapping[Figure, Trend]) -> str:
    """A row for each figure."""
    head = ["mean of each sixth", *[""] * (PARTS - 1), "growth an hour", "counts from", "so it"]
    body = []
    for figure, went in judged.items():
        hourly = 3_600 / went.seconds
        numbers = [*went.parts, went.growth * hourly, went.bound * hourly]
        *parts, growth, bound = [f"{number / figure.unit:,.{figure.digits}f}" for number in numbers]
        says = ("grows" if went.grows else "is flat") if figure.is_judged else "is not judged"
        body.append([figure.label, *parts, growth, bound, says])
    return page.rows(["figure", *head], body)


def ids_expected() -> float:
    """Ids in the pending labels at any time: a labelled one a horizon after its label, others two of them.

    And all a while longer, since what is over is ended when it is known that all labels of then have been read.
    """
    horizon = weekly.horizon_ms / DAY_MS * DAY
    settle = EngineConfig(bootstrap="", app_id="").settle
    return RATE * ((1 - 1 / UNLABELLED) * (horizon + LABELS_AFTER) + 2 * horizon / UNLABELLED + settle)


def summary(found: Run) -> str:
    """What went through, and what was kept of it."""
    said = found.samples[-1].metrics
    count = {kind: said[f'labels_total{{outcome="{kind}"}}'] for kind in ("matched", "expired")}
    dead = sum(value for name, value in said.items() if name.startswith("dead_letters_total"))
    profiles, pending = (_kept_of(found, kind) for kind in ("profiles", "pending"))
    return (
        f"{found.minutes:.0f} minutes, of which the first {found.warmup:.0f} are not judged:"
        f" {said['events_total']:,.0f} events, {count['matched']:,.0f} matched with their labels,"
        f" {count['expired']:,.0f} expired without one, {dead:,.0f} dead letters. In the stores at the end:"
        f" {profiles:,} profiles of {CUSTOMERS:,} customers, and {pending:,} ids that wait or are remembered, where"
        f" rate, horizon and the five seconds that it stays behind make {ids_expected():,.0f}."
    )


def _kept_of(found: Run, kind: str) -> int:
    return sum(number for name, number in found.kept.items() if name.startswith(kind))


def section(found: Run, judged: Mapping[Figure, Trend]) -> list[str]:
    """The section of docs/performance.md."""
    verdict = f"What grows: {', '.join(grown(judged))}." if grown(judged) else "Nothing grows."
    return [summary(found), table(judged), verdict, "![Memory, disk and changelogs over the time](images/soak.svg)"]


# -- the picture

LEFT, WIDE, HIGH, GAP = 40, 560, 70, 34  # pixels


def plot(found: Run) -> str:
    """Memory and disk over the time, a panel for each, from nothing to the most; SVG."""
    panels = [_panel(found, figure, number * (HIGH + GAP) + GAP) for number, figure in enumerate(PLOTTED)]
    size = f"width='{LEFT + WIDE + LEFT}' height='{len(panels) * (HIGH + GAP) + GAP}'"
    style = "font-family='sans-serif' font-size='12'"
    # White behind it, since a page may be dark.
    begin = f"<svg xmlns='http://www.w3.org/2000/svg' {size} {style}><rect width='100%' height='100%' fill='white'/>"
    below = f"<text x='{LEFT}' y='{len(panels) * (HIGH + GAP) + 14}'>{found.minutes:.0f} minutes; grey: warm-up</text>"
    return "\n".join([begin, *panels, below, "</svg>", ""])


def _panel(found: Run, figure: Figure, top: int) -> str:
    values = series(found.samples, figure.key)
    most, seconds = max(*values, 1e-9), found.minutes * 60
    points = " ".join(
        f"{LEFT + WIDE * sample.at / seconds:.1f},{top + HIGH * (1 - value / most):.1f}"
        for sample, value in zip(found.samples, values, strict=True)
    )
    title = html.escape(f"{figure.label.replace('`', '')}: at most {most / figure.unit:,.{figure.digits}f}")
    warm = WIDE * found.warmup / found.minutes
    return "".join([
        f"<text x='{LEFT}' y='{top - 6}'>{title}</text>",
        f"<rect x='{LEFT}' y='{top}' width='{warm:.1f}' height='{HIGH}' fill='#e6e9eb'/>",
        f"<path d='M{LEFT} {top + HIGH}H{LEFT + WIDE}' stroke='#b0b7bd'/>",
        f"<polyline points='{points}' fill='none' stroke='#1f6f8b' stroke-width='1.5'/>",
    ])  # fmt: skip


def main() -> int:
    """Run, judge, print, write; 1 where something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of load, the warm-up included")
    parser.add_argument("--warmup", type=float, help="minutes of them that are not judged; a third unless told")
    parser.add_argument("--keep", type=Path, default=KEEP, help="the file for the samples")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--of", type=Path, help="judge the samples in this file, and run nothing")
    given = parser.parse_args()
    warmup = given.minutes * WARMUP if given.warmup is None else given.warmup
    if given.of is None:
        found = run(given.minutes, warmup, given.keep)
    else:
        found = msgspec.json.decode(given.of.read_bytes(), type=Run)
    judged = trends(found)
    page.report("bench-soak", [lambda: section(found, judged)], "aiokafka", "rocksdict", "river", keep=given.write)
    if given.write:
        PLOT.write_text(plot(found), "utf-8")
    return 1 if grown(judged) else 0


if __name__ == "__main__":
    sys.exit(main())
