"""Reading a topic's partitions up to where they ended when asked, and never for ever."""

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streaming import clients
from streaming.config import EngineConfig
from streaming.errors import EngineError

Batches = Mapping[TopicPartition, list["ConsumerRecord[Any, Any]"]]

POLL_MS = 200


async def read_up_to(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int], *, patience: float, most: int | None = None
) -> AsyncGenerator[Batches, None]:
    """Batches of assigned partitions, from where the consumer stands until each has come to its end.

    Goes by position and not by record, because the last offsets of a transactional log are markers that are never
    delivered. The consumer must know its positions, from `seek`, and have no `auto_offset_reset`.

    Args:
        consumer: the consumer.
        ends: where each partition ends.
        patience: seconds in which something has to come.
        most: records of a batch at most.

    Raises:
        EngineError: nothing came for so long, or what was to be read has been removed.
    """
    before: dict[TopicPartition, int] = {}
    moved = time.monotonic()
    while True:
        at = {tp: await consumer.position(tp) for tp in ends}
        waiting = [tp for tp in ends if at[tp] < ends[tp]]
        if not waiting:
            return
        if at != before:
            before, moved = at, time.monotonic()
        elif time.monotonic() - moved > patience:
            tp = waiting[0]
            raise stalled(tp, at[tp], ends[tp], patience)
        try:
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=most)
        except OffsetOutOfRangeError as error:
            raise removed(error) from error
        yield batches
        if batches:
            moved = time.monotonic()  # what was done with them does not count


async def read_between(
    config: EngineConfig, spans: Mapping[TopicPartition, tuple[int, int]], *, most: int | None = None
) -> AsyncGenerator[Batches, None]:
    """Batches of what partitions hold from one offset to before another, which must have been written by now.

    With a consumer of its own. Raises EngineError as `read_up_to` does; `most` is of a batch.
    """
    if not spans:
        return
    consumer = clients.consumer(config, auto_offset_reset="none")
    await consumer.start()
    try:
        consumer.assign(list(spans))
        for tp, (start, _) in spans.items():
            consumer.seek(tp, start)
        ends = {tp: end for tp, (_, end) in spans.items()}
        async for batches in read_up_to(consumer, ends, patience=config.request_timeout, most=most):
            yield {tp: [record for record in batch if record.offset < ends[tp]] for tp, batch in batches.items()}
    finally:
        await consumer.stop()


def stalled(tp: TopicPartition, at: int, end: int, patience: float) -> EngineError:
    """The error for a partition that a broker has more of and does not give."""
    return EngineError(
        f"{tp.topic}-{tp.partition} is read to offset {at} and ends at {end}, but nothing came for {patience:.0f} s"
        " (HEADWATER_REQUEST_TIMEOUT): its broker is away, or slow beyond that. Start the worker again when it is back"
    )


def removed(error: OffsetOutOfRangeError) -> EngineError:
    """The error for records that were removed while they were being read."""
    places = ", ".join(f"{tp.topic}-{tp.partition} at offset {at}" for tp, at in dict(error.args[0]).items())
    return EngineError(
        f"records were removed before they could be read: {places}. What state and model are made of must stay:"
        " changelogs need cleanup.policy=compact alone, the training log retention.ms=-1 and retention.bytes=-1"
    )
