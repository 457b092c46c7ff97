"""What Kafka, exactly once, costs: the whole loop in a worker against the same pipeline in a bare loop, in one run.

`make bench-loop` prints CPU microseconds per event of both, interleaved, and their ratio. An event is a departure with
its arrival: features, prediction, label join, one example learned, quality and drift.
"""

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from app.worker import prepared
from bench.worker import Worker, behind
from learning.backtest import backtest
from pipelines.definition import Pipeline
from pipelines.flights import Departure, flights, history
from streaming import clients
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig

ITEMS = int(os.environ.get("ITEMS", "60000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
EVERY = 0.5  # seconds between two looks at the worker's metrics; ten a second cost it a twentieth of its time


def bare(items: list[Any]) -> float:
    """CPU seconds of the backtest, which is the same steps without Kafka."""
    started = time.process_time()
    backtest(flights, iter(items))
    return time.process_time() - started


async def fill(config: EngineConfig, items: list[Any], pipeline: Pipeline = flights) -> None:
    """Write events and labels to their topics."""
    await prepared(pipeline, config)
    producer = clients.producer(config)
    await producer.start()
    for item in items:
        stream = pipeline.stream_of(item)
        value, key = stream.encode(item), stream.key_of(item).encode()
        await producer.send(stream.topic, value, key, timestamp_ms=stream.time_of(item))
    await producer.stop()


def loop(  # noqa: PLR0917  # the later ones have defaults
    items: list[Any],
    events: int,
    number: int,
    module: str = "app.cli",
    pipeline: Pipeline = flights,
    name: str = "flights",
) -> tuple[float, float]:
    """CPU and wall seconds of a worker from its first event to its last lesson.

    On a broker of its own: the training log of the last would be learned again. `module` runs it when it is told
    `worker`; `name` is what HEADWATER_PIPELINE calls the pipeline.
    """
    app_id = f"bench-{number}"
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
        asyncio.run(fill(EngineConfig(bootstrap=broker.bootstrap, app_id=app_id), items, pipeline))
        with Worker(broker.bootstrap, name, module, app_id=app_id, snapshot_examples=0) as worker:
            first = worker.wait("it has done an event", lambda found: bool(found.get("events_total")))
            cpu, wall = worker.cpu(), time.monotonic()
            worker.wait(
                "it has done all", lambda found: found.get("events_total", 0) >= events and not behind(found), EVERY
            )
            share = events / (events - first["events_total"])
            return (worker.cpu() - cpu) * share, (time.monotonic() - wall) * share


def main() -> None:
    """Run and print."""
    items = list(itertools.islice(history(), ITEMS))
    events = sum(isinstance(item, Departure) for item in items)
    rows: list[tuple[float, float, float]] = []
    for number in range(ROUNDS):
        cpu, wall = loop(items, events, number)
        rows.append((bare(items) / events * 1e6, cpu / events * 1e6, events / wall))
        print(
            f"round {number + 1}: bare {rows[-1][0]:.0f} us, worker {rows[-1][1]:.0f} us, {rows[-1][2]:,.0f} events/s"
        )
    bare_us, worker_us, rate = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{events:,} events, median of {ROUNDS}: bare loop {bare_us:.0f} us CPU per event, worker {worker_us:.0f} us")
    print(f"exactly once on Kafka costs {worker_us / bare_us:.2f} times the bare loop; {rate:,.0f} events/s")


if __name__ == "__main__":
    main()
