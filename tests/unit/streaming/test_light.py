"""Records as consumers deliver them are what aiokafka's own would say, for all that is asked of them."""

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streaming import clients
from streaming.config import EngineConfig
from streaming.light import Record, lighten

TP = TopicPartition("events", 3)
WRITTEN: list[tuple[bytes | None, bytes | None, list[Any]]] = [
    (b"key", b"value", []),
    (None, b"", [("a", b"1"), ("a", None)]),
    (b"", None, [("reason", b"")]),
]


def fetched() -> PartitionRecords:
    builder = cast("Any", DefaultRecordBatchBuilder)(2, 0, False, -1, -1, -1, 1 << 16)
    for offset, (key, value, headers) in enumerate(WRITTEN):
        builder.append(offset, 1_000 + offset, key, value, headers)
    return cast("Any", PartitionRecords)(TP, MemoryRecords(bytes(builder.build())), [], 0, None, None, True, 1)


def result(records: PartitionRecords) -> FetchResult:
    return cast("Any", FetchResult)(TP, assignment=None, partition_records=records, backoff=0.0)


def test_records_are_as_aiokafkas_own_in_all_that_they_have() -> None:
    done = result(fetched())
    done._partition_records = None  # taken already, and not yet removed
    buffer: dict[TopicPartition, Any] = {
        TopicPartition("broken", 0): cast("Any", FetchError)(error=OSError(), backoff=0.0),
        TopicPartition("done", 0): done,
    }

    async def start() -> None:
        """A consumer's own."""

    async def fetch(assignment: Any, node: Any, request: Any) -> bool:
        buffer[TP] = result(fetched())
        return True

    consumer: Any = SimpleNamespace(start=start)
    consumer._fetcher = SimpleNamespace(_records=buffer, _proc_fetch_request=fetch)

    async def scenario() -> None:
        await lighten(consumer).start()
        assert await consumer._fetcher._proc_fetch_request(None, 0, None)

    asyncio.run(scenario())
    light = list(cast("Any", buffer[TP]._partition_records))
    assert len(light) == len(WRITTEN)
    for ours, theirs in zip(light, cast("Any", fetched()), strict=True):
        assert isinstance(ours, Record)
        expected = dataclasses.asdict(theirs)
        assert all(getattr(ours, name) == expected[name] for name in Record.__struct_fields__)


def test_all_consumers_are_light() -> None:
    async def scenario() -> AIOKafkaConsumer:
        made = clients.consumer(EngineConfig(bootstrap="nowhere:1", app_id="app"))
        await made.stop()
        return made

    assert "lighten" in cast("Any", asyncio.run(scenario())).start.__qualname__
