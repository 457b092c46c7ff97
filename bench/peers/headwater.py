"""Headwater itself: a whole worker, as `headwater worker` starts it, watched from outside.

It reads events and labels from their two topics, of one partition each, and does more than its peers: every lesson goes
through the training log, quality and data are surveyed, the page and the metrics are served.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from app.children import free_port
from app.metrics import parse
from bench.peers.work import Order, order
from bench.peers.workloads import WORKLOADS

PATIENCE = 600.0
LOOK = 0.25  # seconds between two looks at the worker's metrics, which cost it some milliseconds each


def run(told: Order) -> None:
    """Until everything is read, learned and durable; prints what was measured, as JSON in a line."""
    port, compiled = free_port(), os.environ.get("HEADWATER_COMPILED", "auto")
    environment = {
        "HEADWATER_BROKER": told.broker,
        "HEADWATER_PIPELINE": WORKLOADS[told.workload].where,
        "HEADWATER_PARTITIONS": "1",
        "HEADWATER_GUARANTEE": told.guarantee or "exactly_once",
        "HEADWATER_COMPILED": compiled,
        "HEADWATER_WEB_PORT": str(port),
    }
    said = told.folder / "worker.log"
    with said.open("wb") as log:
        command = [sys.executable, "-m", "app.cli", "worker"]
        worker = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT)
    try:
        started = _until(worker, port, events=told.warm, lessons=0)
        cpu, wall = cpu_seconds(worker.pid), time.monotonic()
        ended = _until(worker, port, events=told.events, lessons=told.lessons)
        cpu, wall = cpu_seconds(worker.pid) - cpu, time.monotonic() - wall
    except RuntimeError as error:
        message = f"{error}; the worker said:\n{said.read_text('utf-8')[-4000:]}"
        raise RuntimeError(message) from error
    finally:
        worker.terminate()
        worker.wait()
    found = {"events": ended["events_total"], "lessons": ended["training_examples_total"]}
    print(json.dumps({**found, "timed": ended["events_total"] - started["events_total"], "cpu_s": cpu, "wall_s": wall}))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far, user and system. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, map(int, children)))


def _until(worker: "subprocess.Popen[bytes]", port: int, *, events: int, lessons: int) -> Mapping[str, float]:
    """The worker's metrics as soon as it has done so much; a lesson is one that came back from the training log.

    Where lessons are waited for, so is all that it does besides: what it puts off would cost it later.
    """
    ends = time.monotonic() + PATIENCE
    while True:
        now = _samples(port)
        enough = now and now["events_total"] >= events and now["training_examples_total"] >= lessons
        if enough and not (lessons and _behind(now)):
            return now
        if worker.poll() is not None or time.monotonic() > ends:
            done = f"{now.get('events_total', 0):,.0f} events, {now.get('training_examples_total', 0):,.0f} lessons"
            message = f"got {done} from the worker, expected {events:,} and {lessons:,}"
            raise RuntimeError(message)
        time.sleep(LOOK)


def _behind(now: Mapping[str, float]) -> bool:
    """Whether some source has records that the worker has not read yet."""
    return any(lag for name, lag in now.items() if name.startswith("consumer_lag") or name == "model_lag")


def _samples(port: int) -> Mapping[str, float]:
    """The metrics; empty where the worker does not answer yet."""
    try:
        return parse(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    except OSError:
        return {}


if __name__ == "__main__":
    run(order())
