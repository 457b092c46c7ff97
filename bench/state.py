"""What state on disk costs an event beside state in memory, and how much memory it takes, without Kafka.

`make bench-state` builds the state of one worker, as a recovery does, then has events and labels come for keys and ids
at random, with a cut and its commit as often as a worker has them. Each size runs in a process of its own.
"""

import argparse
import asyncio
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from river import linear_model, preprocessing

from bench import page
from features import count, field, mean, since_last
from learning import label
from learning.label import LATEST, PendingLabels
from learning.learn import Learner
from learning.records import Prediction
from learning.score import score
from pipelines.definition import Event, Label, Pipeline
from streaming.config import EngineConfig
from streaming.disk import DiskPartition
from streaming.state import Changelog, Partition, Span, StatePartition
from streaming.stores import Stores

PARTITIONS = 4
CUT = 2_500  # events between two cuts: half a second of 5,000 a second
HORIZON = timedelta(days=7)
T0 = 1_700_000_000_000
BUILT = 20_000  # records between two writes of a store that is being built
TOPIC_ID = b"bench-state-12345"[:16]


class Visit(Event, topic="visits", key="user", id="visit", time="at"):
    """An event."""

    visit: str
    user: str
    at: datetime
    pages: int


class Purchase(Label, topic="purchases", key="user", id="visit", time="at"):
    """A label."""

    visit: str
    user: str
    at: datetime
    outcome: bool


clicks = Pipeline(
    name="clicks",
    event=Visit,
    label=Purchase,
    horizon=HORIZON,
    expired="negative",
    features=[field("pages"), count("1h", "7d"), mean("pages", "7d"), since_last()],
    model=lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
)


class Worker:
    """The state of one worker: profiles and pending labels of each partition, and what a changelog would be at."""

    def __init__(self, stores: Stores | None) -> None:
        features = clicks.feature_set
        self.stores = stores
        self.parts: list[tuple[Partition[Any], Partition[bytes]]] = []
        for number in range(PARTITIONS):
            kinds = {"load": lambda _, data: data, "dump": bytes}
            profiles = self._part(f"profiles-{number}", load=features.load, dump=features.dump)
            pending = self._part(f"pending-{number}", **kinds)
            self.parts.append((profiles, pending))
        self.ends: dict[int, int] = {}

    def _part(self, name: str, *, load: Any, dump: Any) -> Partition[Any]:
        if self.stores is None:
            return StatePartition(name, load=load, dump=dump)
        waits = name.startswith("pending")
        return DiskPartition(
            name,
            asyncio.run(self.stores.open(name, "bench")),
            cache=None if waits else self.stores.cache,
            load=load,
            dump=dump,
            due_of=label.due_of if waits else None,
            kinds=label.KINDS if waits else (),
        )

    def build(self, keys: int, pending: int) -> None:
        """Restore so many keys and waiting predictions, as from a changelog, in bounded batches."""
        for profiles, waiting in self.parts:
            for part in (profiles, waiting):
                part.start(told(0))
        for number, (profiles, waiting) in enumerate(self.parts):
            restore(profiles, profile_records(number, keys))
            restore(waiting, pending_records(number, pending))

    def joins(self) -> list[PendingLabels]:
        """The label join of each partition."""
        return [
            PendingLabels(part, horizon_ms=clicks.horizon_ms, expired="negative", corrected="log", queues=part.queues)
            for _, part in self.parts
        ]

    def checkpoint(self) -> None:
        """A cut of every partition, and its commit."""
        for pair in self.parts:
            for part in pair:
                changes = len(part.take_changes())
                end = self.ends.get(id(part), 1 << 40)
                self.ends[id(part)] = end + changes + 1
                part.committed(Span(end, end + changes))

    def close(self) -> None:
        """Close every store."""
        for pair in self.parts:
            for part in pair:
                part.close()


def told(end: int) -> Changelog:
    """What a broker would say."""
    return Changelog(0, end, time.time(), TOPIC_ID, 86_400.0)


def restore(part: Partition[Any], records: Iterator[tuple[bytes, bytes]]) -> None:
    """Restore records as recovery does."""
    for done, (key, value) in enumerate(records, 1):
        part.restore(key, value)
        if done % BUILT == 0:
            part.restored(done, told(1 << 40))
    part.restored(1 << 40, told(1 << 40))


def user(number: int) -> str:
    """The key of a user."""
    return f"user-{number:010d}"


def profile_records(partition: int, keys: int) -> Iterator[tuple[bytes, bytes]]:
    """Profiles of a partition's users, as one visit each leaves them."""
    made: dict[str, Any] = {}
    features = clicks.feature_set
    visit = Visit(visit="v", user=user(0), at=at(T0 - 1_000), pages=3)
    features.compute(visit, user(0), T0 - 1_000, made)
    ((name, profile),) = made.items()
    data = features.dump(profile)
    for number in range(partition, keys, PARTITIONS):
        yield name.replace(user(0), user(number)).encode(), data


def pending_records(partition: int, pending: int) -> Iterator[tuple[bytes, bytes]]:
    """Predictions that wait, due one after the other over the horizon that comes; of 1,000 vectors, so as not to pack.

    A thousand in turn are further apart than a block of the store is large.
    """
    chance = random.Random(partition)
    made: dict[str, bytes] = {}
    join = PendingLabels(made, horizon_ms=clicks.horizon_ms, expired="negative", corrected="log")
    for number in range(1_000):
        vector = [chance.random() for _ in clicks.feature_set.names]
        join.open(Prediction(f"{number}", user(0), T0, chance.random(), number, vector, clicks.feature_set.schema))
    bodies = [made[f"{number}"][label._HEADER.size :] for number in range(1_000)]
    for number in range(partition, pending, PARTITIONS):
        due = T0 + 1 + number * clicks.horizon_ms // pending
        head = label._HEADER.pack(label._LAYOUT, label._WAITING, due)
        yield visit_id(number).encode(), head + bodies[number // PARTITIONS % 1_000]


def visit_id(number: int) -> str:
    """The id of a visit."""
    return f"visit-{number:012d}"


def at(time_ms: int) -> datetime:
    """A time as events have it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def run_events(worker: Worker, keys: int, pending: int, events: int) -> float:
    """CPU seconds, RocksDB's threads included, of so many events, each with a label and about one wait that ends."""
    chance = random.Random(7)
    learner = Learner(clicks)
    joins = worker.joins()
    step = max(1, clicks.horizon_ms // pending)
    started = time.process_time()
    for number in range(events):
        now = T0 + number * step
        partition = chance.randrange(PARTITIONS)
        key = user(chance.randrange(keys // PARTITIONS) * PARTITIONS + partition)
        profiles, _ = worker.parts[partition]
        name = visit_id(pending + number)
        visit = Visit(visit=name, user=key, at=at(now), pages=3)
        score(clicks, learner, profiles, joins[partition], visit, key, name, now)
        waits = visit_id(chance.randrange(pending // PARTITIONS) * PARTITIONS + partition)
        joins[partition].resolve(waits, key, True, now)
        if number % CUT == CUT - 1:
            for join in joins:
                join.expire(labels_to=LATEST, events_to=LATEST)
            worker.checkpoint()
    return time.process_time() - started


def memory() -> tuple[float, float]:
    """MB that this process holds now, and that it has held at most."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def one(store: str, keys: int, pending: int, events: int, cache_mb: int) -> dict[str, Any]:
    """Build and measure in this process."""
    before = memory()[0]
    with tempfile.TemporaryDirectory(prefix="headwater-state-") as folder:
        stores = None
        if store == "disk":
            settings = EngineConfig(
                bootstrap="none:1", app_id="bench", store="disk", store_cache_mb=cache_mb, data_dir=Path(folder)
            )
            stores = Stores(settings)
        worker = Worker(stores)
        started = time.perf_counter()
        worker.build(keys, pending)
        built = time.perf_counter() - started
        run_events(worker, keys, pending, events // 5)  # caches are as they are in use
        seconds = run_events(worker, keys, pending, events)
        held, most = memory()
        used = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / (1 << 20)
        worker.close()
        started = time.perf_counter()
        again = Worker(Stores(settings)) if stores is not None else None
        opened = time.perf_counter() - started
        if again is not None:
            again.close()
    return {
        "store": store,
        "keys": keys,
        "pending": pending,
        "us": seconds / events * 1e6,
        "build": built,
        "open": opened,
        "before": before,
        "held": held,
        "most": most,
        "disk": used,
    }


def table(rows: list[dict[str, Any]], cache_mb: int) -> str:
    """The section of docs/performance.md."""
    lines = [
        f"{platform.machine()}, Python {platform.python_version()}; HEADWATER_STORE_CACHE_MB={cache_mb},"
        f" {PARTITIONS} partitions.",
        "",
        "| store | keys | pending | CPU us per event | MB held | MB at most | MB on disk | build, s | open, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        disk, opened = (f"{r['disk']:,.0f}", f"{r['open']:.1f}") if r["store"] == "disk" else ("", "")
        lines.append(
            f"| {r['store']} | {r['keys']:,} | {r['pending']:,} | {r['us']:.0f} | {r['held']:,.0f} | {r['most']:,.0f} |"
            f" {disk} | {r['build']:.0f} | {opened} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run, print, and write where the size is the whole one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--pending", type=int, default=20_000_000)
    parser.add_argument("--small", type=int, default=20, help="the size that memory is measured at: so many times less")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--cache-mb", type=int, default=256)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--one", choices=["memory", "disk"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.keys, given.pending, given.events, given.cache_mb)))
        return
    small = given.keys // given.small, given.pending // given.small
    sizes = [("memory", *small), ("disk", *small), ("disk", given.keys, given.pending)]
    rows = []
    for store, keys, pending in sizes:
        command = [sys.executable, "-m", "bench.state", "--one", store, "--keys", str(keys), "--pending", str(pending)]
        command += ["--events", str(given.events), "--cache-mb", str(given.cache_mb)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(rows[-1])
    section = table(rows, given.cache_mb)
    print(section)
    if given.write:
        page.write("bench-state", section)


if __name__ == "__main__":
    main()
