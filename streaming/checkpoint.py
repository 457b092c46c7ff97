"""The checkpoint: outputs, state and offsets of a unit made durable together.

Steps 1 and 2 (fix offsets, take outputs and dirty state) are `Unit.cut`, without an await. Here are
3 begin, 4 send outputs and changelog as whole record batches, 5 send the source offsets, 6 commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition

from streaming.config import EngineConfig
from streaming.state import Span
from streaming.unit import Cut, Output

Step = Callable[[str], None]
"""Called with its name before and after each step of a checkpoint, and at those of a recovery: for the chaos tests."""

CommitOffsets = Callable[[Mapping[TopicPartition, int]], Awaitable[None]]


def no_step(name: str) -> None:
    """The step hook of a worker that nobody wants to kill."""


class Sent(msgspec.Struct, frozen=True):
    """One record batch on its way: how many records, and the future of its delivery."""

    count: int
    future: Any


async def send_batches(producer: AIOKafkaProducer, tp: TopicPartition, records: Iterable[Output]) -> list[Sent]:
    """Send records to one partition as few whole record batches."""
    sent = []
    batch = producer.create_batch()
    for record in records:
        while batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers)) is None:
            count = batch.record_count()
            sent.append(Sent(count, await producer.send_batch(batch, tp.topic, partition=tp.partition)))
            batch = producer.create_batch()
    if count := batch.record_count():
        sent.append(Sent(count, await producer.send_batch(batch, tp.topic, partition=tp.partition)))
    return sent


async def send_all(
    producer: AIOKafkaProducer, outputs: Mapping[TopicPartition, Sequence[Output]]
) -> dict[TopicPartition, Span]:
    """Send everything and wait until the broker has it; returns where it is. Raises the first delivery error.

    A partition is left out where the broker did not say, or where somebody else wrote between the batches.
    """
    sent = {tp: await send_batches(producer, tp, records) for tp, records in outputs.items()}
    await asyncio.gather(*(one.future for batches in sent.values() for one in batches))
    spans = {tp: _span(batches) for tp, batches in sent.items()}
    return {tp: span for tp, span in spans.items() if span is not None}


def _span(batches: Sequence[Sent]) -> Span | None:
    """Where delivered batches are, if they are known to be one behind the other."""
    first = after = None
    for one in batches:
        delivered = one.future.result()
        # A broker that had a batch already, and has forgotten where, says -1.
        if delivered is None or delivered.offset < 0 or (after is not None and delivered.offset != after):
            return None
        first = delivered.offset if first is None else first
        after = delivered.offset + one.count
    return None if first is None or after is None else Span(first, after)


class TransactionalWriter:
    """Writes cuts of one unit in Kafka transactions: `guarantee = exactly_once`."""

    def __init__(self, producer: AIOKafkaProducer, config: EngineConfig, step: Step = no_step) -> None:
        self.producer = producer
        self._group = config.group
        self._step = step

    async def write(self, cut: Cut) -> Mapping[TopicPartition, Span]:
        """Make one cut durable; returns where its records are.

        3. begin; 4. outputs and changelog; 5. source offsets; 6. commit. Any exception leaves the transaction
        to be aborted by whoever opens the unit next, and the worker must end.
        """
        # 3.
        self._step("begin:before")
        await self.producer.begin_transaction()
        self._step("begin:after")
        # 4.
        self._step("send:before")
        written = await send_all(self.producer, cut.outputs)
        self._step("send:after")
        # 5.
        if cut.offsets:
            self._step("offsets:before")
            await self.producer.send_offsets_to_transaction(dict(cut.offsets), self._group)
            self._step("offsets:after")
        # 6.
        self._step("commit:before")
        await self.producer.commit_transaction()
        self._step("commit:after")
        return written


class PlainWriter:
    """Writes cuts in order without transactions: `guarantee = at_least_once`.

    State first, offsets last, so a crash in between repeats records and never skips one.
    """

    def __init__(self, producer: AIOKafkaProducer, commit: CommitOffsets, step: Step = no_step) -> None:
        self.producer = producer
        self._commit = commit
        self._step = step

    async def write(self, cut: Cut) -> Mapping[TopicPartition, Span]:
        """Send outputs and changelog, wait for the broker, then commit the source offsets; returns where they are."""
        self._step("send:before")
        written = await send_all(self.producer, cut.outputs)
        self._step("send:after")
        if cut.offsets:
            self._step("commit:before")
            await self._commit(cut.offsets)
            self._step("commit:after")
        return written
