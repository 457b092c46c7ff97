"""Recoveries that take long or are interrupted, and a record that once ended every worker that met it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.chaos.run import Run
from tests.integration import test_engine
from tests.integration.test_bad_input import event, label

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

SLOW = """
import asyncio, sys
from streaming import recovery
read = recovery.read_changelogs
async def slow(config, parts):
    await asyncio.sleep(float(sys.argv[4]))
    return await read(config, parts)
recovery.read_changelogs = slow
from tests.integration.tally_worker import create
from streaming.app import run
run(create(*sys.argv[1:4]))
"""


def start_slow(bench: test_engine.Bench, seconds: float) -> "subprocess.Popen[bytes]":
    """A tally worker (session timeout 3 s) whose recovery takes so many seconds."""
    with (bench.logs / f"slow-{len(bench.workers)}.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", SLOW, bench.bootstrap, bench.name, bench.guarantee, str(seconds)],
            cwd=test_engine.ROOT,
            env=dict(os.environ),
            stdout=log,
            stderr=log,
        )
    bench.workers.append(worker)
    return worker


def test_a_recovery_longer_than_the_session_ends(kafka: str, tmp_path: Path) -> None:
    """aiokafka does not heartbeat until on_partitions_assigned has returned: the group expelled who recovered."""
    bench = test_engine.Bench(kafka, "exactly_once", tmp_path)

    async def scenario() -> None:
        await bench.prepare()
        await bench.produce()
        start_slow(bench, 6.0)
        answers = await bench.answers(35.0)
        assert len(answers) == test_engine.EVENTS

    try:
        asyncio.run(scenario())
    finally:
        bench.end()


def test_a_worker_told_to_stop_while_it_recovers_stops(kafka: str, tmp_path: Path) -> None:
    bench = test_engine.Bench(kafka, "exactly_once", tmp_path)

    async def scenario() -> None:
        await bench.prepare()
        await bench.produce()
        worker = start_slow(bench, 15.0)
        await asyncio.sleep(6)
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, 40)

    try:
        asyncio.run(scenario())
    finally:
        bench.end()


def test_a_record_that_fits_its_topic_ends_no_worker(kafka: str, tmp_path: Path) -> None:
    """An id of 600 kB is in a lesson twice, as key and in the value: larger than max.message.bytes, at each start."""
    run = Run(kafka, tmp_path)
    name = "f" * 600_000

    async def scenario() -> None:
        await run.prepare()
        producer: Any = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=4_000_000)
        await producer.start()
        await producer.send_and_wait(
            run.pipeline.events.topic, event(flight_id=name), b"JFK", timestamp_ms=1_357_041_600_000
        )
        await producer.send_and_wait(run.pipeline.labels.topic, label(name), b"JFK", timestamp_ms=1_357_063_200_000)
        await producer.stop()
        worker = run.start()
        await asyncio.sleep(15)
        assert worker.poll() is None, run.last_words()

    try:
        asyncio.run(scenario())
    finally:
        run.end()
