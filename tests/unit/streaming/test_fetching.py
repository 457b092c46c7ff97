"""Records as consumers deliver them say what aiokafka's own would, and fetches keep their distance."""

import asyncio
import dataclasses
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streaming import clients
from streaming.config import EngineConfig
from streaming.fetching import Record, keep_apart, tuned

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
    consumer._fetcher = SimpleNamespace(_records=buffer, _proc_fetch_request=fetch, _get_actions_per_node=None)

    async def scenario() -> None:
        await tuned(consumer).start()
        assert await consumer._fetcher._proc_fetch_request(None, 0, None)

    asyncio.run(scenario())
    light = list(cast("Any", buffer[TP]._partition_records))
    assert len(light) == len(WRITTEN)
    for ours, theirs in zip(light, cast("Any", fetched()), strict=True):
        assert isinstance(ours, Record)
        expected = dataclasses.asdict(theirs)
        assert all(getattr(ours, name) == expected[name] for name in Record.__struct_fields__)


def test_a_broker_is_asked_again_after_a_while_with_what_is_to_be_asked_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two fetches of a busy topic had a record each; all that surrounds one cost as much as ten events."""
    clock, wanted = [100.0], [(0, "a"), (1, "b")]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    fetcher: Any = SimpleNamespace(
        _get_actions_per_node=lambda assignment: (list(wanted), {2: ["reset"]}, 0.2, True, [])
    )
    keep_apart(fetcher, 0.01)
    actions = fetcher._get_actions_per_node
    assert actions(None) == (wanted, {2: ["reset"]}, 0.2, True, [])
    clock[0] += 0.004
    wanted[:] = [(0, "c"), (3, "d")]
    due, resets, timeout, *rest = actions(None)
    assert (due, resets, rest) == ([(3, "d")], {2: ["reset"]}, [True, []])  # of this broker it had asked nothing
    assert timeout == pytest.approx(0.006)
    clock[0] += 0.006
    wanted[:] = [(0, "e")]
    assert actions(None)[0] == [(0, "e")]
    clock[0] += 3.0  # the broker had nothing, and held the fetch
    assert actions(None)[0] == [(0, "e")]


def test_all_consumers_are_light() -> None:
    async def scenario() -> AIOKafkaConsumer:
        made = clients.consumer(EngineConfig(bootstrap="nowhere:1", app_id="app"))
        await made.stop()
        return made

    assert "tuned" in cast("Any", asyncio.run(scenario())).start.__qualname__
