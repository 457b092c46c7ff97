"""What an event costs by how much there is of everything: keys, windows, features, trees, partitions, workers.

    python -m bench.scaling            # all of it, into docs/performance.md; a quarter of an hour
    python -m bench.scaling --quick    # small, to the screen

First in one process without Kafka, CPU time of features, prediction and lesson; then whole workers, exactly once, on a
backlog in Kafka; then the memory of a key and of a pending entry.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from app.worker import prepared
from bench import page
from bench.payments import (
    FEATURES,
    Payment,
    adaptive,
    arf,
    customer,
    features_of,
    hoeffding,
    logistic,
    over_days,
    payments,
    pipeline,
    verdict,
    windows_of,
)
from bench.worker import PATIENCE, Worker, behind
from features import Profile, compiled, proof
from learning import linear_compiled
from learning.label import PendingLabels
from learning.learn import Learner
from learning.records import Example, Prediction
from pipelines.definition import Pipeline
from streaming import clients
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig
from streaming.state import StatePartition

BLOCK = 200
DAYS = 40.0
CUSTOMERS = 1_000
KEYS = (1_000, 10_000, 100_000, 1_000_000)
WINDOWS = ("1h", "6h", "1d", "7d", "30d")
NUMBERS = (10, 25, 50, 100, 200)
MODELS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": logistic,
    "HoeffdingTreeClassifier": hoeffding,
    "HoeffdingAdaptiveTreeClassifier": adaptive,
    "ARFClassifier, 10 trees": arf,
}
PARTITIONS = (1, 4, 12, 48)
PARTS = ("cost", "workers", "memory")
SHARED = 4  # partitions that two workers share
LEAST = 0.25  # share of a backlog that must be left when all workers are at work, or the rest says too little


class Cost(NamedTuple):
    """CPU microseconds per event, medians over blocks of the second half."""

    features: float
    predict: float
    learn: float


def cost(of: Pipeline, events: Sequence[Payment], profiles: dict[str, Profile]) -> Cost:
    """What these events cost a pipeline without Kafka. Raises RuntimeError where not all were learned."""
    learner, features = Learner(of), of.feature_set
    spent: list[tuple[float, float, float]] = []
    offset = 0
    for at in range(0, len(events), BLOCK):
        block = events[at : at + BLOCK]
        outcomes = [verdict(event, event.at).outcome for event in block]
        began = time.process_time()
        vectors = [features.compute(event, event.customer, event.at, profiles)[0] for event in block]
        computed = time.process_time()
        said: list[Any] = [learner.predict(vector) for vector in vectors]
        predicted = time.process_time()
        for event, vector, value, outcome in zip(block, vectors, said, outcomes, strict=True):
            example = Example(
                event.payment, event.customer, event.at, event.at, value, offset, vector, features.schema, outcome, ""
            )
            learner.apply(offset, example)
            offset += 1
        learned = time.process_time()
        spent.append((computed - began, predicted - computed, learned - predicted))
    if learner.examples != len(events):
        message = f"learned {learner.examples:,} of {len(events):,} events"
        raise RuntimeError(message)
    half = spent[len(spent) // 2 :]
    return Cost(*(statistics.median(stage) / BLOCK * 1e6 for stage in zip(*half, strict=True)))


def both(of: Pipeline, events: Sequence[Payment], cache: Path, keys: int = 0) -> Iterator[tuple[str, Cost]]:
    """In Python, then compiled; with so many profiles there beforehand."""
    for way in ("Python", "compiled"):
        compiled.choose("on" if way == "compiled" else "off", [linear_compiled.prove, proof.prove], cache)
        yield way, cost(of, events, known(of, keys))


def known(of: Pipeline, keys: int) -> dict[str, Profile]:
    """A profile that has seen a few events for each of so many customers."""
    features = of.feature_set
    seen: dict[str, Profile] = {}
    for event in over_days(10, 1, 1.0):
        features.compute(event, event.customer, event.at - int(DAYS) * 86_400_000, seen)
    data = features.dump(next(iter(seen.values()))) if keys else b""
    return {customer(number): features.load("", data) for number in range(keys)}


def in_process(events: int, keys: Sequence[int], cache: Path) -> list[str]:
    """Tables of what an event costs without Kafka."""
    usual = over_days(events, CUSTOMERS, DAYS)
    cases: list[tuple[str, Pipeline, list[Payment], int]] = []
    cases += [(f"{n:,} keys", payments, over_days(events, n, DAYS), n) for n in keys]
    cases += [(f"windows of {window}", pipeline(windows_of(window)), usual, 0) for window in WINDOWS]
    cases += [(f"{n} features", pipeline(features_of(n)), usual, 0) for n in NUMBERS]
    cases += [(name, pipeline(FEATURES, model), usual, 0) for name, model in MODELS.items()]
    body = []
    for name, of, of_events, n_keys in cases:
        for way, found in both(of, of_events, cache, n_keys):
            body.append([name, way, *(f"{us:.1f}" for us in found), f"{sum(found):.1f}"])
    compiled.choose("off", [], cache)
    head = ["without Kafka", "loops", "features, us", "predict, us", "learn, us", "all, us"]
    return [
        f"{events:,} events in {DAYS:.0f} days, of {CUSTOMERS:,} customers unless it says otherwise, with"
        f" {len(payments.feature_set.names)} features over windows of 1 h, 1 d and 7 d and a logistic regression unless"
        " it says otherwise; the second half timed.",
        page.rows(head, body, words=2),
    ]


# -- whole workers


class Drained(NamedTuple):
    """A backlog done by one worker or more.

    Attributes:
        partitions: of the events.
        workers: how many.
        loops: "on" or "off" for compiled ones.
        us: CPU microseconds of all workers per event.
        rate: events a second by the clock.
    """

    partitions: int
    workers: int
    loops: str
    us: float
    rate: float


def drained(partitions: int, workers: int, loops: str, events: int) -> Drained:
    """Have a backlog done on a Kafka of its own."""
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
        config = EngineConfig(bootstrap=broker.bootstrap, app_id="bench-scaling", partitions=partitions)
        asyncio.run(_fill(config, events))
        settings = {"app_id": config.app_id, "partitions": partitions, "compiled": loops, "snapshot_examples": 0}
        made: list[Worker] = []
        try:
            for _ in range(workers):
                made.append(Worker(broker.bootstrap, "bench.payments:payments", **settings))
            return Drained(partitions, workers, loops, *_watched(made, events))
        finally:
            for worker in made:
                worker.end()


async def _fill(config: EngineConfig, events: int) -> None:
    await prepared(payments, config)
    producer = clients.producer(config)
    await producer.start()
    try:
        for event in over_days(events, CUSTOMERS, DAYS):
            for stream, item in ((payments.events, event), (payments.labels, verdict(event, event.at + 60_000))):
                value, key = stream.encode(item), stream.key_of(item).encode()
                await producer.send(stream.topic, value, key, timestamp_ms=stream.time_of(item))
    finally:
        await producer.stop()


def _watched(workers: Sequence[Worker], events: int) -> tuple[float, float]:
    """CPU microseconds and events a second from when all workers are at work until all is done and learned."""
    for worker in workers:
        worker.wait("it predicts", lambda found: found.get("predictions_total", 0.0) > 0)
    seen, cpu, began = _done(workers), sum(worker.cpu() for worker in workers), time.monotonic()
    if events - seen < LEAST * events:
        message = f"{seen:,.0f} of {events:,} events were done before all workers were at work; give more (--backlog)"
        raise RuntimeError(message)
    while _done(workers) < events or any(behind(worker.samples()) for worker in workers):
        if time.monotonic() - began > PATIENCE:
            message = f"{_done(workers):,.0f} of {events:,} events were done in {PATIENCE:.0f} s"
            raise TimeoutError(message)
        time.sleep(0.1)
    used, took = sum(worker.cpu() for worker in workers) - cpu, time.monotonic() - began
    if (done := _done(workers)) != events:
        message = f"{done:,.0f} predictions of {events:,} events"
        raise RuntimeError(message)
    return used / (events - seen) * 1e6, (events - seen) / took


def _done(workers: Sequence[Worker]) -> float:
    return sum(worker.samples().get("predictions_total", 0.0) for worker in workers)


def whole(backlog: int, cases: Sequence[tuple[int, int, str]]) -> list[str]:
    """The table of whole workers."""
    found = [drained(*case, backlog) for case in cases]
    body = [
        [f"{one.partitions}", f"{one.workers}", {"on": "compiled", "off": "Python"}[one.loops], f"{one.us:.0f}",
         f"{one.rate:,.0f}"]
        for one in found
    ]  # fmt: skip
    return [
        f"A backlog of {backlog:,} events with their labels, exactly once. Broker and workers share the machine's"
        " cores, so two workers can do no more than these allow.",
        page.rows(["partitions", "workers", "loops", "CPU us per event, all workers", "events/s"], body, words=0),
    ]


# -- memory


class Memory(NamedTuple):
    """Bytes per entry: what the process grew by, and what the changelog holds of it."""

    grown: float
    written: float


def memory(what: str, entries: int) -> Memory:
    """Build so many in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_grown, what, entries).result()


def _grown(what: str, entries: int) -> Memory:
    build = {"profile": _profiles, "pending entry": _waiting}[what]
    build(100)  # what is needed once
    before = _resident()
    held, written = build(entries)
    grown = _resident() - before
    if len(held[0]) < entries:
        message = f"built {len(held[0]):,} of {entries:,} entries"
        raise RuntimeError(message)
    return Memory(grown / entries, written / entries)


def _profiles(entries: int) -> tuple[Any, int]:
    """A partition as it is after a recovery, and the bytes of its changelog."""
    features = payments.feature_set
    part = StatePartition[Any]("t", load=features.load, dump=features.dump)
    data, written = features.dump(known(payments, 1)[customer(0)]), 0
    for number in range(entries):
        name = customer(number).encode()
        part.restore(name, data)
        written += len(name) + len(data)
    return (part,), written


def _waiting(entries: int) -> tuple[Any, int]:
    """A partition with its label join, in which predictions wait, and the bytes of its changelog."""
    part = StatePartition[Any]("t", load=lambda _, data: data, dump=bytes)
    join = PendingLabels(part, horizon_ms=86_400_000, expired="drop", corrected="log")
    features, written = payments.feature_set, 0
    seen: dict[str, Profile] = {}
    for number, event in enumerate(over_days(entries, 10, 0.5), 1):
        vector, _ = features.compute(event, event.customer, event.at, seen)
        join.open(Prediction(event.payment, event.customer, event.at, 0.5, 0, vector, features.schema))
        if number % BLOCK == 0 or number == entries:  # as checkpoints do
            written += sum(len(one.key or b"") + len(one.value or b"") for one in part.take_changes())
    return (part, join), written


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kept(entries: int) -> list[str]:
    """The table of memory."""
    body = []
    for what in ("profile", "pending entry"):
        found = memory(what, entries)
        body.append([what, f"{entries:,}", f"{found.grown:,.0f}", f"{found.written:,.0f}"])
    return [page.rows(["memory of a", "entries", "bytes of the process", "bytes in the changelog"], body)]


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000, help="without Kafka")
    parser.add_argument("--keys", type=int, nargs="+", default=KEYS, help="numbers of keys")
    parser.add_argument("--backlog", type=int, default=60_000, help="events for whole workers")
    parser.add_argument("--entries", type=int, default=200_000, help="whose memory is taken")
    parser.add_argument("--only", choices=PARTS, help="a part, to the screen")
    parser.add_argument("--quick", action="store_true", help="little of it, and nothing is written")
    given = parser.parse_args()
    events, keys, backlog, entries = given.events, given.keys, given.backlog, given.entries
    cases = [(partitions, 1, loops) for partitions in PARTITIONS for loops in ("off", "on")]
    cases += [(SHARED, 2, loops) for loops in ("off", "on")]
    if given.quick:
        events, keys, backlog, entries, cases = (
            2_000,
            (1_000, 10_000),
            20_000,
            20_000,
            [(SHARED, 1, "on"), (SHARED, 2, "on")],
        )
    with tempfile.TemporaryDirectory() as folder:
        sections: dict[str, page.Section] = {
            "cost": lambda: in_process(events, keys, Path(folder)),
            "workers": lambda: whole(backlog, cases),
            "memory": lambda: kept(entries),
        }
        keep = not (given.quick or given.only)
        page.report("bench-scaling", page.wanted(sections, given.only), "river", "numba", keep=keep)


if __name__ == "__main__":
    main()
