"""The floor of a latency: payments that go back out as they are read, without state, features, model or labels.

    python -m bench.echo BOOTSTRAP INTERVAL

The same clients as a worker's, and one task that reads and sends. INTERVAL is the seconds between two commits of a
transaction, or 0 for sending without one. Says `ready` when it reads.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.payments import payments
from bench.worker import ROOT, cpu_seconds
from streaming import clients
from streaming.config import EngineConfig

WAIT_MS = 100  # for something to read


class Echo(NamedTuple):
    """One that runs, by its process."""

    pid: int

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid)


@contextmanager
def echoing(bootstrap: str, interval: float) -> Iterator[Echo]:
    """One that reads, as a process of its own. Raises RuntimeError where it has ended instead."""
    command = [sys.executable, "-m", "bench.echo", bootstrap, str(interval)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        if not process.stdout or process.stdout.readline().strip() != b"ready":
            message = f"the echo ended with code {process.wait()} before it was ready"
            raise RuntimeError(message)
        yield Echo(process.pid)
    finally:
        process.kill()
        process.wait()


async def run(bootstrap: str, interval: float) -> None:
    """Until it is killed."""
    config = EngineConfig(bootstrap=bootstrap, app_id="bench-echo")
    consumer = clients.consumer(config, auto_offset_reset="latest")
    producer = clients.producer(config, "bench-echo" if interval else None)
    async with consumer, producer:
        topic = payments.events.topic
        found = await consumer._client.fetch_all_metadata()
        consumer.assign([TopicPartition(topic, number) for number in found.partitions_for_topic(topic) or ()])
        await consumer.seek_to_end()
        print("ready", flush=True)
        while True:
            if interval:
                async with producer.transaction():
                    await _pass_on(consumer, producer, time.monotonic() + interval)
            else:
                await _pass_on(consumer, producer, time.monotonic() + 1)


async def _pass_on(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, until: float) -> None:
    """Read and send. What has been handed to the producer is not waited for: a commit does that."""
    sent: list[Any] = []
    while (left := until - time.monotonic()) > 0:
        batches = await consumer.getmany(timeout_ms=min(WAIT_MS, int(left * 1000)))
        for tp, records in batches.items():
            for record in records:
                said = b'{"id":"' + record.value.partition(b'"payment":"')[2]
                sent.append(await producer.send(payments.predictions_topic, said, record.key, tp.partition))
    for one in sent:  # what failed is no echo
        if one.done():
            one.result()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], float(sys.argv[2])))
