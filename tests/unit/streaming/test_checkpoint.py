"""The order of a checkpoint's steps, and what a failure leaves behind."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder

from streaming.checkpoint import PlainWriter, TransactionalWriter, send_batches
from streaming.config import EngineConfig
from streaming.unit import Cut, Output

OUT, SOURCE = TopicPartition("out", 0), TopicPartition("events", 0)
CUT = Cut({OUT: [Output(b"k", b"v")]}, {SOURCE: 7})


class Producer:
    """Writes down what it is asked to do; fails where it is told to."""

    def __init__(self, fails: str = "", batch_bytes: int = 10_000) -> None:
        self.done: list[Any] = []
        self._fails = fails
        self._batch_bytes = batch_bytes

    def _do(self, what: str, *more: Any) -> None:
        if what == self._fails:
            raise OSError(what)
        self.done.append((what, *more) if more else what)

    async def begin_transaction(self) -> None:
        self._do("begin")

    def create_batch(self) -> Any:
        return BatchBuilder(self._batch_bytes, 0, is_transactional=0)

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        self._do("send", topic, partition, batch.record_count())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._fails == "delivery":
            future.set_exception(OSError("delivery"))
        else:
            future.set_result(None)
        return future

    async def send_offsets_to_transaction(self, offsets: Any, group: str) -> None:
        self._do("offsets", offsets, group)

    async def commit_transaction(self) -> None:
        self._do("commit")


def config() -> EngineConfig:
    return EngineConfig(bootstrap="nowhere:1", app_id="app")


def test_a_transaction_has_its_steps_in_order() -> None:
    producer, steps = Producer(), list[str]()
    asyncio.run(TransactionalWriter(producer, config(), steps.append).write(CUT))
    assert producer.done == ["begin", ("send", "out", 0, 1), ("offsets", {SOURCE: 7}, "app"), "commit"]
    assert steps == [f"{s}:{w}" for s in ("begin", "send", "offsets", "commit") for w in ("before", "after")]


@pytest.mark.parametrize("fails", ["begin", "send", "delivery", "offsets"])
def test_nothing_is_committed_after_a_failed_step(fails: str) -> None:
    producer = Producer(fails)
    with pytest.raises(OSError, match=fails):
        asyncio.run(TransactionalWriter(producer, config()).write(CUT))
    assert "commit" not in producer.done


def test_without_transactions_offsets_are_committed_after_all_is_delivered() -> None:
    committed: list[Any] = []

    async def commit(offsets: Any) -> None:
        committed.append(offsets)

    asyncio.run(PlainWriter(Producer(), commit).write(CUT))
    assert committed == [{SOURCE: 7}]
    with pytest.raises(OSError, match="delivery"):
        asyncio.run(PlainWriter(Producer("delivery"), commit).write(CUT))
    assert committed == [{SOURCE: 7}]


@pytest.mark.timeout(20)
def test_a_record_larger_than_a_batch_gets_one_of_its_own_and_ends() -> None:
    producer = Producer(batch_bytes=500)
    records = [Output(b"k", b"x" * size) for size in (100, 5_000, 100, 5_000, 300, 300)]

    async def send() -> None:
        await send_batches(producer, OUT, records)

    asyncio.run(send())
    assert sum(count for _, _, _, count in producer.done) == len(records)
