"""What consumers do here otherwise than aiokafka has it: light records, and fetches that keep a distance.

aiokafka's own record is a frozen dataclass of eleven fields with as many checks before it, and to make it costs a
worker a twentieth of its time. Of these eight are asked for. And it asks a broker for more as soon as it has an answer;
from a busy topic it gets a record or two each time, and a request costs a millisecond of CPU all in all.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult

APART = 0.01  # seconds between the beginnings of two fetches from a broker


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


def tuned(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """Have a consumer that is not started yet do both. It has no deserializers, which would be passed over."""
    made: Any = consumer
    start = made.start

    async def starting() -> None:
        await start()
        _lighten_fetched(made._fetcher)
        keep_apart(made._fetcher)

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


def keep_apart(fetcher: Any, seconds: float = APART) -> None:
    """Have a fetcher ask no broker again sooner than so many seconds after it asked last.

    What it is about to ask for, it works out anew when the time has come, since by then more has been consumed. A topic
    that is read to its end is asked for at once: its last fetch, which the broker held until there was something, is
    longer ago.
    """
    actions, asked = fetcher._get_actions_per_node, dict[Any, float]()

    def at_a_distance(assignment: Any) -> tuple[Any, Any, float, Any, Any]:
        requests, resets, timeout, unknown, resumed = actions(assignment)
        now, due = time.monotonic(), []
        for node, request in requests:
            wait = asked.get(node, -math.inf) + seconds - now
            if wait <= 0.0:
                asked[node] = now
                due.append((node, request))
            else:
                timeout = min(timeout, wait)
        return due, resets, timeout, unknown, resumed

    fetcher._get_actions_per_node = at_a_distance
