"""The training log in order: followed by every worker outside the group, and read again where a model is made again."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streaming import clients, recovery
from streaming.config import EngineConfig
from streaming.errors import EngineError
from streaming.reading import POLL_MS, read_between, removed, stalled


class Lesson(msgspec.Struct, frozen=True):
    """A run of training-log records and the position that follows them (markers included)."""

    records: list["ConsumerRecord[Any, Any]"]
    position: int
    end: int


class Follower:
    """Reads the log from its beginning, or from where a snapshot ends, without end, and hands lessons to a sink.

    The fold's place is kept by `applied`, which the learn agent calls; `wait_for` lets recovery wait until the
    model is as new as the log is.
    """

    def __init__(self, config: EngineConfig, topic: str, sink: Callable[[Lesson], Awaitable[None]]) -> None:
        self._config = config
        self._tp = TopicPartition(topic, 0)
        self._sink = sink
        self._start = 0
        self._applied = -1
        self._wanted = 0  # where the log is known to go on to, because somebody waits for it
        self._moved = asyncio.Condition()

    async def start_at(self, position: int) -> None:
        """Begin here instead of at the beginning, because everything before it has been learned. Before `run`."""
        self._start = position
        await self.applied(position)

    async def applied(self, position: int) -> None:
        """Say that everything before this log position has been learned."""
        async with self._moved:
            self._applied = max(self._applied, position)
            self._moved.notify_all()

    async def wait_for(self, position: int) -> None:
        """Wait until everything before this log position has been learned."""
        self._wanted = max(self._wanted, position)
        async with self._moved:
            await self._moved.wait_for(lambda: self._applied >= position)

    async def run(self) -> None:
        """Follow the log until cancelled.

        Raises EngineError where what is to be learned next has been removed, or where nothing comes for too long of
        what is known to be there.
        """
        # A log that loses records while it is followed is an error, not a place to start from.
        consumer = clients.consumer(self._config, auto_offset_reset="none")
        await consumer.start()
        try:
            consumer.assign([self._tp])
            begin = (await consumer.beginning_offsets([self._tp]))[self._tp]
            if begin > self._start:
                message = (
                    f"the training log {self._tp.topic} begins at offset {begin}, expected {self._start}: its head has"
                    " been removed and no snapshot of the model reaches it, so the model cannot be made again; set the"
                    " topic's retention.ms=-1, and give the pipeline another name to start anew"
                )
                raise EngineError(message)
            consumer.seek(self._tp, self._start)
            await self._follow(consumer)
        except OffsetOutOfRangeError as error:
            raise removed(error) from error
        finally:
            await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        delivered, heard = -1, time.monotonic()
        while True:
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=self._config.chunk)
            records = batches.get(self._tp, [])
            position = await consumer.position(self._tp)
            if records or position > delivered:
                delivered = position
                end = consumer.highwater(self._tp) or position
                await self._sink(Lesson(list(records), position, end))
                heard = time.monotonic()
            elif position >= self._wanted:
                heard = time.monotonic()
            elif time.monotonic() - heard > self._config.request_timeout:
                raise stalled(self._tp, position, self._wanted, self._config.request_timeout)


async def read_again(
    config: EngineConfig, topic: str, start: int, stop: int
) -> AsyncGenerator[Sequence["ConsumerRecord[Any, Any]"], None]:
    """Runs of the log's records from one offset to before another that has been written. Raises EngineError.

    With a consumer of its own, so the follower keeps its place.
    """
    if start >= stop:
        return
    tp = TopicPartition(topic, 0)
    begin = (await recovery.begin_offsets(config, [tp]))[tp]
    if begin > start:
        message = (
            f"the training log {topic} begins at offset {begin}, expected {start}: a rollback needs what came from"
            f" there on to make the model of then again, and it has been removed, and no snapshot reaches it; set"
            " the topic's retention.ms=-1, and give the pipeline another name to start anew"
        )
        raise EngineError(message)
    batches = read_between(config, {tp: (start, stop)}, most=config.chunk)
    async with aclosing(batches):
        async for batch in batches:
            yield batch.get(tp, [])
