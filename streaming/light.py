"""Records as consumers deliver them here: aiokafka's own costs a worker a twentieth of its time to make.

That is a frozen dataclass of eleven fields with as many checks before it. Of these eight are asked for.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult


class Record(msgspec.Struct, frozen=True, gc=False):
    """As `aiokafka.ConsumerRecord`, of which all else here is typed, without checksum and sizes."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def _record(tp: TopicPartition, one: Any) -> Record:
    return Record(
        tp.topic, tp.partition, one.offset, one.timestamp, one.timestamp_type, one.key, one.value, tuple(one.headers)
    )


def lighten(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """Have a consumer that is not started yet deliver these. It has no deserializers, which would be passed over."""
    made: Any = consumer
    start = made.start

    async def starting() -> None:
        await start()
        _lighten_fetched(made._fetcher)

    made.start = starting
    return consumer


def _lighten_fetched(fetcher: Any) -> None:
    """Each partition's part of a fetch makes its records when they are asked for, which is after this."""
    fetch = fetcher._proc_fetch_request

    async def fetching(assignment: Any, node: Any, request: Any) -> bool:
        got: bool = await fetch(assignment, node, request)
        for result in fetcher._records.values():
            if type(result) is FetchResult and result._partition_records is not None:
                result._partition_records._consumer_record = _record
        return got

    fetcher._proc_fetch_request = fetching
