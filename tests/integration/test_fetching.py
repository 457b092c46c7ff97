"""How consumers fetch, on a real Kafka."""

import asyncio
import time
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streaming import clients
from streaming.config import EngineConfig
from streaming.fetching import APART

pytestmark = pytest.mark.kafka

WRITTEN = 200


def test_a_trickle_is_read_whole_by_fetches_that_keep_their_distance(kafka: str) -> None:
    topic, asked = f"trickle-{uuid.uuid4().hex[:8]}", list[float]()

    async def trickle() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for number in range(WRITTEN):
                await producer.send_and_wait(topic, str(number).encode())

    async def scenario() -> list[int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1)])
        await admin.close()
        async with clients.consumer(EngineConfig(bootstrap=kafka, app_id="app"), topic) as consumer:
            note(consumer)
            asked.append(time.monotonic())
            writing, read = asyncio.create_task(trickle()), list[int]()
            while len(read) < WRITTEN:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    read += [int(record.value) for record in records]
            await writing
            return read

    def note(consumer: Any) -> None:
        fetch = consumer._fetcher._proc_fetch_request

        async def noted(assignment: Any, node: Any, request: Any) -> bool:
            asked.append(time.monotonic())
            got: bool = await fetch(assignment, node, request)
            return got

        consumer._fetcher._proc_fetch_request = noted

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == [*range(WRITTEN)]
    # On a busy machine one may come late and the next in time; in all there are no more than there may be.
    began, *_, last = asked
    assert 2 < len(asked) - 1 <= (last - began) / APART + 1
