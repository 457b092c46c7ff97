"""Headwater itself: a whole worker, as `headwater worker` starts it, watched from outside.

It reads events and labels from their two topics, of one partition each, and does more than its peers: every lesson goes
through the training log, quality and data are surveyed, the page and the metrics are served. With HEADWATER_ROLE=serve
the watching is another worker's, which is not there: on these cores it would be in the way. Who serves does the same.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping

import msgspec

from bench.peers import topics
from bench.peers.work import Order, order
from bench.peers.workloads import WORKLOADS
from bench.worker import Worker, behind
from streaming.config import EngineConfig

LOOK = 0.25  # seconds between two looks at the worker's metrics, which cost it some milliseconds each


def run(told: Order) -> None:
    """Until everything is read, learned and durable; prints what was measured, as JSON in a line.

    What comes after the warm-up is written when all of that is done, lessons included, and can be read all at once: so
    what is measured is all of it and nothing else.
    """
    settings = {
        "partitions": 1,
        "guarantee": told.guarantee or "exactly_once",
        "compiled": os.environ.get("HEADWATER_COMPILED", "auto"),
    }
    where = WORKLOADS[told.workload].where
    rest = msgspec.msgpack.decode((told.folder / topics.REST).read_bytes(), type=topics.Streams)
    with Worker(told.broker, where, **settings) as worker:
        started = _until(worker, told.warm, told.lessons - len(rest[told.pipeline.labels.topic]))
        asyncio.run(topics.at_once(EngineConfig(bootstrap=told.broker, app_id=""), rest))
        cpu, wall = worker.cpu(), time.monotonic()
        done = _until(worker, told.events, told.lessons)
        cpu, wall = worker.cpu() - cpu, time.monotonic() - wall
    found = {"events": done["events_total"], "lessons": done["training_examples_total"]}
    print(json.dumps({**found, "timed": done["events_total"] - started["events_total"], "cpu_s": cpu, "wall_s": wall}))


def _until(worker: Worker, events: int, lessons: int) -> Mapping[str, float]:
    """The worker's metrics as soon as it has done so much; a lesson is one that came back from the training log.

    And all that it does besides: what it puts off would cost it later.
    """

    def enough(now: Mapping[str, float]) -> bool:
        done = now and now["events_total"] >= events and now["training_examples_total"] >= lessons
        return bool(done) and not behind(now)

    return worker.wait(f"it has done {events:,} events and {lessons:,} lessons", enough, LOOK)


if __name__ == "__main__":
    run(order())
