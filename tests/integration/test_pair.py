"""A worker as it is by default, two processes on a real Kafka: one page for both, and neither without the other."""

import asyncio
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.children import free_port
from bench.worker import children, samples
from streaming.app import EXIT_FAILED
from tests.chaos.run import Run, Worker
from tests.chaos.workers import within
from tests.integration.test_loop import reported

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

ITEMS = 3_000


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Run]:
    made = Run(kafka, tmp_path)
    yield made
    made.end()


def second(worker: Worker) -> int:
    """The process that watches beside a worker."""
    (found,) = children(worker.pid)
    return found


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for its code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def state(port: int) -> Any:
    """What a worker's page is made of."""
    return msgspec.json.decode(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/state").read())


def test_both_processes_have_one_page_and_end_together_when_told_to(run: Run, year: list[Any]) -> None:
    port = free_port()

    async def scenario() -> None:
        await run.prepare()
        await run.produce(year[:ITEMS])
        worker = run.start(HEADWATER_WEB_PORT=str(port))
        seen = await run.assert_all_true(year[:ITEMS])
        examples = len(seen.log)
        report = await reported(run, examples)
        log = f'consumer_lag{{partition="0",topic="{run.pipeline.training_log_topic}"}}'
        assert await within(lambda: samples(port).get(log) == 0.0, 10)
        loss = report.quality["total"]["log_loss"]
        assert await within(lambda: samples(port).get('quality{metric="log_loss"}') == loss, 10)
        metrics = samples(port)
        assert metrics["training_examples_total"] == examples  # though each of the two has learned them
        assert any(name.startswith("consumer_lag") and run.pipeline.events.topic in name for name in metrics)
        assert state(port)["worker"][log] == 0.0
        beside = second(worker)
        run.send(worker, signal.SIGTERM)
        assert await run.ended(worker) == 0, run.last_words()
        assert not runs(beside)

    asyncio.run(scenario())


def test_a_worker_ends_with_the_process_that_watches_and_the_next_goes_on(run: Run, year: list[Any]) -> None:
    half = ITEMS // 2

    async def scenario() -> None:
        await run.prepare()
        await run.produce(year[:half])
        worker = run.start()
        await run.until(1, 1)
        os.kill(second(worker), signal.SIGKILL)
        assert await run.ended(worker) == EXIT_FAILED
        assert "Error: the process that watches beside this one ended with code -9" in run.said(worker)
        run.start()
        await run.produce(year[half:ITEMS])
        seen = await run.assert_all_true(year[:ITEMS])
        await reported(run, len(seen.log))

    asyncio.run(scenario())


def test_a_worker_stops_when_the_process_that_watches_is_told_to(run: Run, year: list[Any]) -> None:
    async def scenario() -> None:
        await run.prepare()
        await run.produce(year[:100])
        worker = run.start()
        await run.until(1, 0)
        os.kill(second(worker), signal.SIGTERM)
        assert await run.ended(worker) == 0, run.last_words()

    asyncio.run(scenario())


def test_the_process_that_watches_ends_when_a_power_cut_takes_the_other(run: Run, year: list[Any]) -> None:
    async def scenario() -> None:
        await run.prepare()
        await run.produce(year[:100])
        worker = run.start()
        await run.until(1, 0)
        beside = second(worker)
        run.send(worker, signal.SIGKILL)
        assert await within(lambda: not runs(beside), 20)
        assert "the process that predicts is gone" in run.said(worker)

    asyncio.run(scenario())


def test_a_worker_that_is_refused_says_so_once_and_leaves_nothing(run: Run) -> None:
    async def scenario() -> None:
        worker = run.start(HEADWATER_CREATE_TOPICS="false")
        assert await run.ended(worker) != 0
        assert run.said(worker).count("Error:") == 1

    asyncio.run(scenario())


def test_who_stands_by_to_watch_learns_nothing_until_it_is_in_charge(run: Run, year: list[Any]) -> None:
    """Each of some workers would learn every example once more for nothing; its model is there within seconds."""
    ports = free_port(), free_port()

    async def scenario() -> None:
        await run.prepare()
        await run.produce(year[:ITEMS])
        run.start(HEADWATER_ROLE="serve")
        first = run.start(HEADWATER_ROLE="watch", HEADWATER_WEB_PORT=str(ports[0]))
        await run.until(1_000, 500)
        run.start(HEADWATER_ROLE="watch", HEADWATER_WEB_PORT=str(ports[1]))
        assert await within(lambda: samples(ports[1]).get(f'ready{{pipeline="{run.pipeline.name}"}}') == 1.0, 60)
        seen = await run.assert_all_true(year[:ITEMS])
        await reported(run, len(seen.log))
        counts = [samples(port)["training_examples_total"] for port in ports]
        assert sorted(counts) == [0.0, len(seen.log)]
        assert counts[0], "the second took over from the first, which runs"
        run.send(first, signal.SIGTERM)
        assert await run.ended(first) == 0, run.last_words()
        assert await within(lambda: samples(ports[1]).get("training_examples_total") == len(seen.log), 60)
        await run.produce(year[ITEMS : 2 * ITEMS])
        seen = await run.assert_all_true(year[: 2 * ITEMS])
        await reported(run, len(seen.log))

    asyncio.run(scenario())
