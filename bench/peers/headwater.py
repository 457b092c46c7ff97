"""Headwater itself: a whole worker, as `headwater worker` starts it, watched from outside.

It reads events and labels from their two topics, of one partition each, and does more than its peers: every lesson goes
through the training log, quality and data are surveyed, the page and the metrics are served. With HEADWATER_ROLE=serve
a second worker does the watching, and only the first is measured.
"""

import json
import os
import time
from collections.abc import Mapping
from typing import cast

from bench.peers.work import Order, order
from bench.peers.workloads import WORKLOADS
from bench.worker import Worker, behind, working
from streaming.config import Role

LOOK = 0.25  # seconds between two looks at the worker's metrics, which cost it some milliseconds each


def run(told: Order) -> None:
    """Until everything is read, learned and durable; prints what was measured, as JSON in a line."""
    settings = {
        "partitions": 1,
        "guarantee": told.guarantee or "exactly_once",
        "compiled": os.environ.get("HEADWATER_COMPILED", "auto"),
    }
    where, role = WORKLOADS[told.workload].where, os.environ.get("HEADWATER_ROLE", "all")
    with working(told.broker, where, role=cast("Role", role), **settings) as (*_, worker):
        started = _until(worker, events=told.warm, lessons=0)
        cpu, wall = worker.cpu(), time.monotonic()
        done = _until(worker, events=told.events, lessons=told.lessons)
        cpu, wall = worker.cpu() - cpu, time.monotonic() - wall
    found = {"events": done["events_total"], "lessons": done["training_examples_total"]}
    print(json.dumps({**found, "timed": done["events_total"] - started["events_total"], "cpu_s": cpu, "wall_s": wall}))


def _until(worker: Worker, *, events: int, lessons: int) -> Mapping[str, float]:
    """The worker's metrics as soon as it has done so much; a lesson is one that came back from the training log.

    Where lessons are waited for, so is all that it does besides: what it puts off would cost it later.
    """

    def enough(now: Mapping[str, float]) -> bool:
        done = now and now["events_total"] >= events and now["training_examples_total"] >= lessons
        return bool(done) and not (lessons and behind(now))

    return worker.wait(f"it has done {events:,} events and {lessons:,} lessons", enough, LOOK)


if __name__ == "__main__":
    run(order())
