"""The consumer that Faust makes, as the engine has it."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from streaming.transport import BatchThread


def test_a_busy_partition_does_not_wait_for_the_long_fetch_of_idle_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka leaves it out of a fetch while its records wait for the agents; Faust has that fetch wait 1.5 s."""

    async def scenario() -> Any:
        fausts = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", fetch_max_wait_ms=1500)
        assert fausts._fetch_max_wait_ms == 1500  # what aiokafka's own start takes it from
        monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", lambda self, transport: fausts)
        made = BatchThread._create_worker_consumer(object.__new__(BatchThread), None)
        await fausts.stop()
        return made

    consumer = asyncio.run(scenario())
    assert consumer._fetch_max_wait_ms == 100
    assert consumer._isolation_level == "read_committed"
