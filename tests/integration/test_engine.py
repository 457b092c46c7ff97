"""The engine on a real Kafka: every event answered exactly once, whatever is done to the workers."""

import asyncio
import collections
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.kafka import committed

pytestmark = pytest.mark.kafka

EVENTS = 20_000
PARTITIONS = 4
ROOT = Path(__file__).parents[2]


class Bench:
    """Topics, input and workers of one run, and what can be read of it afterwards."""

    def __init__(self, bootstrap: str, guarantee: str, logs: Path) -> None:
        self.logs = logs
        self.bootstrap = bootstrap
        self.guarantee = guarantee
        self.name = f"tally-{uuid.uuid4().hex[:8]}"
        self.keys = [f"k{i % 97}" for i in range(EVENTS)]
        self.workers: list[subprocess.Popen[bytes]] = []

    async def prepare(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        compact = {"cleanup.policy": "compact"}
        await admin.create_topics(
            [
                NewTopic(f"{self.name}-events", PARTITIONS, 1),
                NewTopic(f"{self.name}-answers", PARTITIONS, 1),
                NewTopic(f"{self.name}-log", 1, 1),
                NewTopic(f"{self.name}-counts-changelog", PARTITIONS, 1, topic_configs=compact),
            ]
        )
        await admin.close()

    async def produce(self, pause: float = 0.0) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)
        await producer.start()
        for i, key in enumerate(self.keys):
            await producer.send(f"{self.name}-events", key=key.encode(), value=str(i).encode())
            if pause and i % 500 == 499:
                await asyncio.sleep(pause)
        await producer.stop()

    def start(self) -> subprocess.Popen[bytes]:
        with (self.logs / f"{self.name}-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.tally_worker", self.bootstrap, self.name, self.guarantee],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    async def read(self, topic: str) -> list[Any]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level="read_committed")
        await consumer.start()
        try:
            return await committed(consumer, topic, range(PARTITIONS))
        finally:
            await consumer.stop()

    async def answers(self, patience: float = 40.0) -> list[bytes]:
        """The answers, once there is one for every event, or what there is at the timeout."""
        end = time.monotonic() + patience
        while True:
            values = [record.value for record in await self.read(f"{self.name}-answers")]
            if len({v.split(b":")[0] for v in values}) >= EVENTS or time.monotonic() > end:
                return values
            await asyncio.sleep(1.0)

    async def counts(self) -> dict[str, int]:
        return {r.key.decode(): int(r.value) for r in await self.read(f"{self.name}-counts-changelog")}


def assert_exactly_once(bench: Bench, answers: list[bytes], counts: dict[str, int]) -> None:
    ids = collections.Counter(int(value.split(b":")[0]) for value in answers)
    assert len(set(range(EVENTS)) - ids.keys()) == 0, "events lost"
    assert [i for i, n in ids.items() if n > 1] == [], "events answered twice"
    assert counts == dict(collections.Counter(bench.keys)), "state differs from the oracle"
    seen: collections.Counter[str] = collections.Counter()
    for i, _ in sorted((int(v.split(b":")[0]), v) for v in answers):
        seen[bench.keys[i]] += 1
    expected = {}
    running: collections.Counter[str] = collections.Counter()
    for i, key in enumerate(bench.keys):
        running[key] += 1
        expected[i] = running[key]
    assert {int(v.split(b":")[0]): int(v.split(b":")[1]) for v in answers} == expected


@pytest.fixture(params=["exactly_once"])
def bench(kafka: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = Bench(kafka, request.param, tmp_path)
    yield made
    made.end()


def test_uninterrupted_worker_answers_each_event_once(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.prepare()
        await bench.produce()
        worker = bench.start()
        answers = await bench.answers()
        worker.send_signal(signal.SIGTERM)
        worker.wait(40)
        assert_exactly_once(bench, answers, await bench.counts())

    asyncio.run(scenario())


def test_at_least_once_skips_no_event_at_a_rebalance(kafka: str, tmp_path: Path) -> None:
    bench = Bench(kafka, "at_least_once", tmp_path)

    async def scenario() -> None:
        await bench.prepare()
        producing = asyncio.create_task(bench.produce(pause=0.4))
        first = bench.start()
        await asyncio.sleep(5)
        bench.start()
        await asyncio.sleep(6)
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, 40) == 0
        await producing
        ids = {int(value.split(b":")[0]) for value in await bench.answers()}
        assert ids == set(range(EVENTS))

    try:
        asyncio.run(scenario())
    finally:
        bench.end()
