"""The consumer that Faust makes, as the engine has it."""

import asyncio
from typing import Any

from streaming.app import StreamApp
from streaming.config import EngineConfig
from streaming.telemetry import NullMetrics
from streaming.transport import BatchConsumer, BatchThread


def test_a_busy_partition_does_not_wait_for_the_long_fetch_of_idle_ones() -> None:
    """aiokafka leaves it out of a fetch while its records wait for the agents; Faust has that fetch wait 1.5 s."""

    async def scenario() -> Any:
        app = StreamApp(EngineConfig(bootstrap="127.0.0.1:1", app_id="app"), log_topic="log", metrics=NullMetrics())
        thread: Any = app.consumer._thread  # type: ignore[attr-defined]
        assert isinstance(app.consumer, BatchConsumer)
        assert isinstance(thread, BatchThread)
        consumer = thread._create_worker_consumer(app.transport)
        await consumer.stop()
        return consumer

    consumer = asyncio.run(scenario())
    assert consumer._fetch_max_wait_ms <= 100
    assert consumer._isolation_level == "read_committed"
