"""Fills the topics that a run reads, and reads back what it wrote."""

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from app.worker import prepared
from bench.peers.work import values_of
from pipelines.definition import Pipeline
from streaming import clients, reading
from streaming.config import EngineConfig
from streaming.topics import UNCLEANED, admin_client

SOURCE, TARGET = "bench", "said"
BATCH_BYTES = 900_000

Written = tuple[bytes, bytes, int]  # key, value, time in ms


async def for_headwater(config: EngineConfig, pipeline: Pipeline, items: Sequence[Any]) -> None:
    """Events and labels in their two topics, as a producer of one's own would write them."""
    await prepared(pipeline, config)
    for stream in (pipeline.events, pipeline.labels):
        of_it = (item for item in items if isinstance(item, stream.struct))
        written = ((stream.key_of(item).encode(), stream.encode(item), stream.time_of(item)) for item in of_it)
        await _fill(config, stream.topic, written)


async def for_peer(config: EngineConfig, pipeline: Pipeline, items: Sequence[Any]) -> None:
    """Events and labels merged in one topic, and an empty one for predictions."""
    async with admin_client(config) as admin:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=UNCLEANED) for name in (SOURCE, TARGET)])
    times = (_time_of(pipeline, item) for item in items)
    await _fill(config, SOURCE, ((*pair, at) for pair, at in zip(values_of(pipeline, items), times, strict=True)))


def _time_of(pipeline: Pipeline, item: Any) -> int:
    return (pipeline.events if isinstance(item, pipeline.events.struct) else pipeline.labels).time_of(item)


async def _fill(config: EngineConfig, topic: str, records: Iterable[Written]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=config.bootstrap, max_batch_size=BATCH_BYTES) as producer:
        batch = producer.create_batch()
        for key, value, time_ms in records:
            if batch.append(key=key, value=value, timestamp=time_ms) is None:  # full
                await producer.send_batch(batch, topic, partition=0)
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=time_ms)
        if batch.record_count():
            await producer.send_batch(batch, topic, partition=0)


async def said(config: EngineConfig, topic: str) -> list[bytes]:
    """Every value of the topic's one partition that was committed, in order."""
    place = TopicPartition(topic, 0)
    async with clients.consumer(config, auto_offset_reset="none") as consumer:
        consumer.assign([place])
        ends = await consumer.end_offsets([place])
        consumer.seek(place, 0)
        batches = reading.read_up_to(consumer, ends, patience=config.request_timeout)
        return [record.value async for batch in batches for records in batch.values() for record in records]
