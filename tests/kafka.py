"""Reads topics as users of committed records see them; what the tests on a real Kafka share."""

from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


async def committed(consumer: AIOKafkaConsumer, topic: str, partitions: Iterable[int]) -> list[Any]:
    """Every committed record there is now, in offset order within each partition."""
    tps = [TopicPartition(topic, number) for number in partitions]
    consumer.assign(tps)
    await consumer.seek_to_beginning(*tps)
    ends = await consumer.end_offsets(tps)
    records: list[Any] = []
    while [tp for tp in tps if await consumer.position(tp) < ends[tp]]:
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            records += batch
    return records
