"""What is published outside of transactions: in order, together where the broker is slow, and never silently lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition

from streaming import clients
from streaming import immediate as publishing
from streaming.config import EngineConfig
from streaming.immediate import Immediate
from streaming.unit import Output

CONFIG = EngineConfig(bootstrap="nowhere:1", app_id="app")
ONE, OTHER = TopicPartition("out", 0), TopicPartition("out", 1)


class Batch:
    """A batch that takes three records."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, value: bytes, **_: Any) -> object | None:
        if len(self.values) == 3:
            return None
        self.values.append(value)
        return self

    def record_count(self) -> int:
        return len(self.values)


class Producer:
    """Takes a batch of a partition when it is let, as aiokafka does when the one before has left."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[bytes]]] = []
        self.deliveries: list[asyncio.Future[None]] = []
        self.free = asyncio.Event()
        self.taken = asyncio.Event()
        self.broken: Exception | None = None
        self.stopped = False

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        self.stopped = True

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> "asyncio.Future[None]":
        await self.free.wait()
        if self.broken:
            raise self.broken
        self.sent.append((partition, batch.values))
        self.taken.set()
        self.deliveries.append(asyncio.get_running_loop().create_future())
        return self.deliveries[-1]


def outputs(*values: bytes) -> list[Output]:
    return [Output(None, value) for value in values]


def scenario(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Immediate, Producer], Any], *, linger: float = 0.0
) -> None:
    async def run() -> None:
        producer = Producer()
        monkeypatch.setattr(publishing, "LINGER", linger)
        monkeypatch.setattr(clients, "producer", lambda config: producer)
        immediate = Immediate(CONFIG)
        await work(immediate, producer)
        await immediate.stop()
        assert producer.stopped

    asyncio.run(run())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_is_published_while_the_broker_is_slow_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each publication waited for the one before it; a worker of small chunks fell behind by a second and more."""

    async def work(immediate: Immediate, producer: Producer) -> None:
        first = immediate.publish({ONE: outputs(b"a"), OTHER: outputs(b"x")})
        await turns()
        rest = [immediate.publish({ONE: outputs(value)}) for value in (b"b", b"c")]
        rest.append(immediate.publish({OTHER: outputs(b"y")}))
        producer.free.set()
        await turns()
        assert producer.sent == [(0, [b"a"]), (1, [b"x"]), (0, [b"b", b"c"]), (1, [b"y"])]
        assert not first.done()
        for delivery in producer.deliveries[:2]:
            delivery.set_result(None)
        await turns()
        assert first.done()
        assert not any(one.done() for one in rest)
        for delivery in producer.deliveries[2:]:
            delivery.set_result(None)
        await asyncio.gather(first, *rest)

    scenario(monkeypatch, work)


def test_what_is_published_in_one_breath_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the records of one fetch each partition's agent published by itself: four requests, and as much CPU."""

    async def work(immediate: Immediate, producer: Producer) -> None:
        producer.free.set()
        published = [immediate.publish({ONE: outputs(b"a")})]
        await turns()
        published.append(immediate.publish({ONE: outputs(b"b"), OTHER: outputs(b"x")}))
        assert not producer.sent
        async with asyncio.timeout(10):
            await producer.taken.wait()
        await turns()
        assert producer.sent == [(0, [b"a", b"b"]), (1, [b"x"])]
        for delivery in producer.deliveries:
            delivery.set_result(None)
        await asyncio.gather(*published)

    scenario(monkeypatch, work, linger=0.5)  # a busy machine may stand still for a while


def test_more_than_a_batch_stays_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(immediate: Immediate, producer: Producer) -> None:
        producer.free.set()
        published = immediate.publish({ONE: outputs(b"a", b"b", b"c", b"d")})
        await turns()
        assert producer.sent == [(0, [b"a", b"b", b"c"]), (0, [b"d"])]
        producer.deliveries[0].set_result(None)
        await turns()
        assert not published.done()
        producer.deliveries[1].set_result(None)
        await published

    scenario(monkeypatch, work)


@pytest.mark.parametrize("when", ["sent", "delivered"])
def test_whoever_waits_is_told_of_a_failure_and_what_follows_is_sent(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    async def work(immediate: Immediate, producer: Producer) -> None:
        producer.free.set()
        producer.broken = OSError("away") if when == "sent" else None
        lost = immediate.publish({ONE: outputs(b"a")})
        await turns()
        if when == "delivered":
            producer.deliveries[0].set_exception(OSError("away"))
        with pytest.raises(OSError, match="away"):
            await lost
        producer.broken = None
        kept = immediate.publish({ONE: outputs(b"b")})
        await turns()
        producer.deliveries[-1].set_result(None)
        await kept

    scenario(monkeypatch, work)
