"""What Kafka, exactly once, costs: the whole loop in a worker against the same pipeline in a bare loop, in one run.

`make bench` prints CPU microseconds per event of both, interleaved, and their ratio. An event is a departure with its
arrival: features, prediction, label join, one example learned, quality and drift.
"""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.children import free_port
from app.metrics import parse
from app.worker import prepared
from learning.backtest import backtest
from pipelines.flights import Departure, flights, history
from streaming import clients
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig

ITEMS = int(os.environ.get("ITEMS", "60000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
PATIENCE = 300.0


def bare(items: list[Any]) -> float:
    """CPU seconds of the backtest, which is the same steps without Kafka."""
    started = time.process_time()
    backtest(flights, iter(items))
    return time.process_time() - started


async def fill(config: EngineConfig, items: list[Any]) -> None:
    """Write events and labels to their topics."""
    await prepared(flights, config)
    producer = clients.producer(config)
    await producer.start()
    for item in items:
        stream = flights.events if isinstance(item, Departure) else flights.labels
        value, key = stream.encode(item), stream.key_of(item).encode()
        await producer.send(stream.topic, value, key, timestamp_ms=stream.time_of(item))
    await producer.stop()


def samples(port: int) -> Mapping[str, float]:
    """The worker's metrics; empty where it does not answer yet."""
    try:
        return parse(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    except OSError:
        return {}


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loop(bootstrap: str, events: int, number: int, module: str = "app.cli") -> tuple[float, float]:
    """CPU and wall seconds of a worker from its first event to its last lesson; a new group each time.

    `module` runs it when it is told `worker`.
    """
    port = free_port()
    environment = {
        "HEADWATER_BROKER": bootstrap,
        "HEADWATER_APP_ID": f"bench-{number}",
        "HEADWATER_WEB_PORT": str(port),
        "HEADWATER_SNAPSHOT_EXAMPLES": "0",
    }
    with Path(os.devnull).open("wb") as nowhere:
        command = [sys.executable, "-m", module, "worker"]
        worker = subprocess.Popen(command, env={**os.environ, **environment}, stdout=nowhere, stderr=nowhere)
    try:
        while not samples(port).get("events_total"):
            time.sleep(0.02)
        cpu, wall = cpu_seconds(worker.pid), time.monotonic()
        seen = samples(port)["events_total"]
        while (seen_now := samples(port)["events_total"]) < events or _behind(port):
            if time.monotonic() - wall > PATIENCE:
                message = f"the worker did {seen_now:,.0f} of {events:,} events in {PATIENCE:.0f} s"
                raise TimeoutError(message)
            time.sleep(0.1)
        share = events / (events - seen)
        return (cpu_seconds(worker.pid) - cpu) * share, (time.monotonic() - wall) * share
    finally:
        worker.terminate()
        worker.wait()


def _behind(port: int) -> bool:
    lags = [value for name, value in samples(port).items() if name.startswith("consumer_lag") or name == "model_lag"]
    return not lags or any(lags)


def main() -> None:
    """Run and print."""
    items = list(itertools.islice(history(), ITEMS))
    events = sum(isinstance(item, Departure) for item in items)
    rows: list[tuple[float, float, float]] = []
    for number in range(ROUNDS):
        # A broker of its own for each round: the training log of the last would be learned again.
        with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
            config = EngineConfig(bootstrap=broker.bootstrap, app_id=f"bench-{number}")
            asyncio.run(fill(config, items))
            cpu, wall = loop(broker.bootstrap, events, number)
        rows.append((bare(items) / events * 1e6, cpu / events * 1e6, events / wall))
        print(
            f"round {number + 1}: bare {rows[-1][0]:.0f} us, worker {rows[-1][1]:.0f} us, {rows[-1][2]:,.0f} events/s"
        )
    bare_us, worker_us, rate = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{events:,} events, median of {ROUNDS}: bare loop {bare_us:.0f} us CPU per event, worker {worker_us:.0f} us")
    print(f"exactly once on Kafka costs {worker_us / bare_us:.2f} times the bare loop; {rate:,.0f} events/s")


if __name__ == "__main__":
    main()
