"""Runs Headwater and its peers over the same events, in turn and again, and writes docs/performance.md.

`make bench` makes both environments and runs it. Each run has a Kafka of its own, so that none finds warm what another
has left. What each said is read back from its topic and held against the bare loop, to the last bit. Headwater's
lessons come back through its training log, so its predictions are of other versions; of them the vectors are compared.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.peers import file, page, topics
from bench.peers.check import Expected, compare, expected
from bench.peers.systems import SYSTEMS, THEIRS, Run, System, run
from bench.peers.work import Order, values_of
from bench.peers.workloads import WORKLOADS
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig

EVENTS = int(os.environ.get("EVENTS", "150000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
ONLY = os.environ.get("ONLY", "")  # systems and workloads, by commas; where none of a kind is named, all are run
WARM = 0.2  # share of the events that is done before the measurement begins
# Against trees no framework matters, so Headwater is held against the bare loop alone, with fewer events.
SHARES = {"cards": 1.0, "flights": 1.0, "cards_tree": 0.3, "cards_forest": 0.1}
AGAINST_TREES = ("headwater", "headwater-apart", "file")


def systems_of(workload: str) -> list[System]:
    """Who gets this workload."""
    asked = [system for system in SYSTEMS if system.name in ONLY.split(",")] or SYSTEMS
    return [system for system in asked if WORKLOADS[workload].is_linear or system.name in AGAINST_TREES]


def events_for(workload: str, system: System) -> int:
    """How many events it gets."""
    share = system.share if WORKLOADS[workload].is_linear else 1.0
    return max(1, int(EVENTS * SHARES[workload] * share))


def order_for(workload: str, system: System, items: Sequence[Any], folder: Path, broker: str) -> Order:
    """What this system is told."""
    events = sum(isinstance(item, WORKLOADS[workload].pipeline.events.struct) for item in items)
    warm, lessons = max(1, int(events * WARM)), len(items) - events
    return Order(workload, events, lessons, warm, folder, broker, topics.SOURCE, topics.TARGET, system.guarantee)


def over_file(workload: str, system: System, items: Sequence[Any], folder: Path) -> tuple[Run, list[bytes]]:
    """A run without Kafka, and what it said."""
    lines = (value + b"\n" for _, value in values_of(WORKLOADS[workload].pipeline, items))
    (folder / file.SOURCE).write_bytes(b"".join(lines))
    found = run(system, order_for(workload, system, items, folder, ""))
    return found, (folder / file.TARGET).read_bytes().splitlines()


def over_kafka(workload: str, system: System, items: Sequence[Any], folder: Path) -> tuple[Run, list[bytes]]:
    """A run on a Kafka of its own, and what it said."""
    pipeline = WORKLOADS[workload].pipeline
    with LocalKafka(folder / "kafka") as broker:
        config = EngineConfig(bootstrap=broker.bootstrap, app_id=f"headwater-{pipeline.name}", partitions=1)
        own = folder / "own"
        own.mkdir()
        told = order_for(workload, system, items, own, broker.bootstrap)
        first = items
        if system.is_headwater:
            first = WORKLOADS[workload].first(items, told.warm)
            rest = topics.streams_of(pipeline, items[len(first) :])
            (own / topics.REST).write_bytes(msgspec.msgpack.encode(rest))
        fill = topics.for_headwater if system.is_ours else topics.for_peer
        asyncio.run(fill(config, pipeline, first))
        found = run(system, told)
        target = pipeline.predictions_topic if system.is_ours else topics.TARGET
        return found, asyncio.run(topics.said(config, target))


def once(workload: str, system: System, items: Sequence[Any], must: Expected) -> Run:
    """One run, checked. Raises RuntimeError where it did not do the same work."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        way = over_kafka if system.needs_kafka else over_file
        found, said = way(workload, system, items, Path(folder))
    if len(said) != found.events:
        message = f"{system.label}: got {len(said):,} predictions, expected {found.events:,}"
        raise RuntimeError(message)
    if not system.is_floor:
        compare(system.label, said, must, versions=not system.is_headwater)
    return found


def measured(workload: str) -> page.Measured:
    """All rounds of all systems over one workload."""
    systems = systems_of(workload)
    work = WORKLOADS[workload]
    everything = work.items(max(events_for(workload, system) for system in systems))
    must = expected(work.pipeline, everything)
    items = {system: work.first(everything, events_for(workload, system)) for system in systems}
    found: page.Measured = {system: [] for system in systems}
    for number in range(ROUNDS):
        for system in systems:
            done = once(workload, system, items[system], must)
            found[system].append(done)
            said = f"{done.rate:,.0f} events/s, {done.cpu:.2f} CPU s per 100,000"
            print(f"{workload} {number + 1}/{ROUNDS} {system.label}: {said}", flush=True)
    return found


def main() -> None:
    """Run, print; write the page when all systems had all workloads."""
    if not Path(THEIRS).exists():
        sys.exit(f"got no {THEIRS}, expected the peers' environment; make .venv-peers/.stamp makes it")
    workloads = [name for name in WORKLOADS if name in ONLY.split(",")] or list(WORKLOADS)
    found = {workload: measured(workload) for workload in workloads}
    command = f"EVENTS={EVENTS} ROUNDS={ROUNDS} make bench"
    print(page.section(found, ROUNDS, command))
    if not ONLY:
        page.write(found, ROUNDS, command)


if __name__ == "__main__":
    main()
