"""Whether a worker with its state on disk grows: memory, disk, descriptors, lags, for an hour of the same load.

    python -m bench.soak                 # an hour, into docs/performance.md; exit code 1 where something grows
    python -m bench.soak --minutes 3     # to the screen
    python -m bench.soak --of FILE       # judge the samples of an earlier run again, which are in this file

A worker, a local Kafka and a producer, each a process of its own. Event time goes on so fast that horizon and windows
are over in the warm-up: from then on all that a worker keeps has a bound, and whatever still grows is a leak.
"""

import argparse
import asyncio
import contextlib
import math
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.metrics import parse
from app.worker import prepared
from bench import page
from bench.load import Plan, Sender
from bench.payments import DAY_MS, weekly
from bench.worker import Worker, cpu_seconds
from streaming import topics
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig
from streaming.stores import Stores

APP = "bench-soak"
RATE = 500  # events a second
CUSTOMERS = 9_973  # a prime, so that every customer has events with a label and without
UNLABELLED = 10
DAY = 8.0  # seconds in which event time goes on by a day; the horizon is seven and the longest window too
CACHE_MB = 64  # of HEADWATER_STORE_CACHE_MB: little, so that it is full in the warm-up
PARTITIONS = 4
MINUTES, WARMUP = 60.0, 10.0
EVERY = 10.0  # seconds between two samples
SETTLE = 60.0  # seconds that the worker gets for what is left when the last event has been sent

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
        "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
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
    """What can be seen of the worker now. Raises OSError where it has ended."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics").read()
    metrics = dict(parse(text.decode()))
    figures = process_figures(worker.process.pid) | log_figures(broker, compacted_topics())
    figures["data"] = float(bytes_of(data))
    figures["page"] = float(len(text))
    figures["consumer_lag"] = sum(value for name, value in metrics.items() if name.startswith("consumer_lag"))
    figures["model_lag"] = metrics.get("model_lag", math.nan)
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
            with Worker(broker.bootstrap, "bench.payments:weekly", data_dir=data, **settings) as worker:
                worker.ready()
                plan = Plan(
                    broker.bootstrap, RATE, minutes * 60, customers=CUSTOMERS, step=round(DAY_MS / DAY / RATE),
                    unlabelled=UNLABELLED,
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


def main() -> None:
    """Run, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of load, the warm-up included")
    parser.add_argument("--warmup", type=float, default=WARMUP, help="minutes of them that are not judged")
    parser.add_argument("--keep", type=Path, default=Path("soak.json"), help="where the samples go")
    given = parser.parse_args()
    found = run(given.minutes, given.warmup, given.keep)
    print(found.kept, found.samples[-1])


if __name__ == "__main__":
    main()
