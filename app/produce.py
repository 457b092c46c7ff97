"""Replays a pipeline's data set into Kafka, in time order, at a chosen speed: `headwater produce`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipelines.definition import Pipeline
from streaming import clients
from streaming.config import EngineConfig

MAX_WAITING = 20_000  # records sent and not yet acknowledged


class Produced(msgspec.Struct):
    """What a replay has written so far."""

    events: int = 0
    labels: int = 0
    last_time_ms: int = 0


def limited(pipeline: Pipeline, items: Iterator[Any], limit: int | None) -> Iterator[Any]:
    """The first `limit` events, and their labels up to the horizon of the last of them."""
    if limit is None:
        yield from items
        return
    ids: set[str | None] = set()
    events = until = 0
    for item in items:
        if isinstance(item, pipeline.events.struct):
            time_ms = pipeline.events.time_of(item)
            if events < limit:
                events, until = events + 1, time_ms + pipeline.horizon_ms
                ids.add(pipeline.events.id_of(item))
                yield item
        else:
            time_ms = pipeline.labels.time_of(item)
            if pipeline.labels.id_of(item) in ids:
                yield item
        # Some events never get a label, so waiting for the last one would read the data set to its end.
        if events >= limit and time_ms > until:
            return


async def replay(
    pipeline: Pipeline,
    config: EngineConfig,
    *,
    speed: float | None = None,
    limit: int | None = None,
    progress: Callable[[Produced], None] = lambda _: None,
) -> Produced:
    """Write the data set's events and labels, `speed` times real time or as fast as the broker takes them.

    A record's key is its stream's key and its timestamp the event's time; aiokafka's default partitioner hashes
    keys with murmur2 as Java's clients do, so the records land where a Java producer would put them. Raises
    KafkaError when a record could not be delivered.
    """
    if pipeline.source is None:
        message = f"pipeline {pipeline.name} has no data set to replay; give it one with source="
        raise ValueError(message)
    done = Produced()
    producer = clients.producer(config)
    await producer.start()
    waiting: set[asyncio.Future[Any]] = set()
    failures: list[BaseException] = []

    def delivered(future: asyncio.Future[Any]) -> None:
        waiting.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            failures.append(error)

    started, first_ms = time.monotonic(), None
    try:
        for number, item in enumerate(limited(pipeline, pipeline.source(), limit), 1):
            is_event = isinstance(item, pipeline.events.struct)
            stream = pipeline.events if is_event else pipeline.labels
            done.last_time_ms = stream.time_of(item)
            first_ms = done.last_time_ms if first_ms is None else first_ms
            if speed is not None:
                ahead = (done.last_time_ms - first_ms) / 1000 / speed - (time.monotonic() - started)
                if ahead > 0.02:
                    progress(done)
                    await asyncio.sleep(ahead)
            future = await producer.send(
                stream.topic,
                stream.encode(item),
                stream.key_of(item).encode(),
                timestamp_ms=done.last_time_ms,
            )
            waiting.add(future)
            future.add_done_callback(delivered)
            if is_event:
                done.events += 1
            else:
                done.labels += 1
            if number % 500 == 0:
                progress(done)
                await asyncio.sleep(0)
            if len(waiting) >= MAX_WAITING:
                await asyncio.wait(waiting)
            if failures:
                break
        if waiting:
            await asyncio.wait(waiting)
    finally:
        await producer.stop()
    if failures:
        raise failures[0]
    progress(done)
    return done
