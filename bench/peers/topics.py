"""Fills the topics that a run reads, and reads back what it wrote."""

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from app.worker import prepared
from bench.peers.work import values_of
from pipelines.definition import Pipeline
from streaming import reading, recovery
from streaming.config import EngineConfig
from streaming.topics import UNCLEANED, admin_client

SOURCE, TARGET = "bench", "said"
REST = "rest"  # the file of what Headwater gets when it has done its warm-up
BATCH_BYTES = 900_000

Written = tuple[bytes, bytes, int]  # key, value, time in ms
Streams = dict[str, list[Written]]  # by topic


def streams_of(pipeline: Pipeline, items: Iterable[Any]) -> Streams:
    """Events and labels in their two topics, as a producer of one's own would write them."""
    found: Streams = {pipeline.events.topic: [], pipeline.labels.topic: []}
    for item in items:
        stream = pipeline.stream_of(item)
        found[stream.topic].append((stream.key_of(item).encode(), stream.encode(item), stream.time_of(item)))
    return found


async def for_headwater(config: EngineConfig, pipeline: Pipeline, items: Sequence[Any]) -> None:
    """All topics of a worker, with events and labels in their two."""
    await prepared(pipeline, config)
    await at_once(config, streams_of(pipeline, items))


async def at_once(config: EngineConfig, streams: Streams) -> None:
    """Write records so that they are all there to be read at the same time."""
    async with _producer(config, transactional_id="bench") as producer, producer.transaction():
        for topic, records in streams.items():
            await _fill(producer, topic, records)


async def for_peer(config: EngineConfig, pipeline: Pipeline, items: Sequence[Any]) -> None:
    """Events and labels merged in one topic, and an empty one for predictions."""
    async with admin_client(config) as admin:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=UNCLEANED) for name in (SOURCE, TARGET)])
    times = (pipeline.stream_of(item).time_of(item) for item in items)
    records = ((*pair, at) for pair, at in zip(values_of(pipeline, items), times, strict=True))
    async with _producer(config) as producer:
        await _fill(producer, SOURCE, records)


def _producer(config: EngineConfig, **more: Any) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=config.bootstrap, max_batch_size=BATCH_BYTES, **more)


async def _fill(producer: AIOKafkaProducer, topic: str, records: Iterable[Written]) -> None:
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
    ends = await recovery.end_offsets(config, [place])
    batches = reading.read_between(config, {place: (0, ends[place])})
    return [record.value async for batch in batches for records in batch.values() for record in records]
