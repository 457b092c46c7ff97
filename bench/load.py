"""Payments and their verdicts at a fixed rate from a process of their own, and who sees the predictions of them.

The load is open: event number n is due at a time that is fixed beforehand and is waited for by nobody, so a worker that
stands still has its delay counted for every event that was due meanwhile. Times are of the monotonic clock, which on
Linux all processes share.
"""

import asyncio
import multiprocessing
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.payments import START_MS, Payment, number_of, payment, payments, verdict
from streaming import clients
from streaming.config import EngineConfig

ID = slice(len(b'{"id":"'), None)
TICK = 0.001  # seconds; less is not to be had of an event loop
AHEAD = 0.2  # seconds from when the sender is ready to its first event


class Plan(NamedTuple):
    """What is to be sent.

    Attributes:
        bootstrap: the broker.
        rate: events a second, and as many labels.
        seconds: for how long events come.
        first: number of the first.
        customers: how many there are.
        labels_after: seconds from an event to its label.
        step: ms that event time goes on by from one number to the next, whatever the rate.
        unlabelled: one event in so many gets no label; 0: each gets one.
        start: when the first is due, of the monotonic clock; the sender says, when it is ready.
    """

    bootstrap: str
    rate: float
    seconds: float
    first: int = 0
    customers: int = 1_000
    labels_after: float = 1.0
    step: int = 1
    unlabelled: int = 0
    start: float = 0.0

    @property
    def numbers(self) -> range:
        """The events' numbers."""
        return range(self.first, self.first + int(self.rate * self.seconds))

    def due(self, number: int) -> float:
        """When the event of this number is due."""
        return self.start + (number - self.first) / self.rate

    def is_labelled(self, number: int) -> bool:
        """Whether the event of this number gets a label."""
        return not self.unlabelled or number % self.unlabelled != self.unlabelled - 1


class Sent(NamedTuple):
    """What was sent, and how much later than due: seconds, of each event."""

    events: int
    labels: int
    late: list[float]


class Sender:
    """A process that sends. As a context: it ends with it, done or not."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._plan = plan
        self._process = context.Process(target=_send, args=(plan, there), daemon=True)
        self._process.start()
        there.close()  # so that what the process does not say any more is an error and no wait

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.join()

    async def begin(self) -> Plan:
        """The plan, with the time that the first event is due. Raises EOFError where it has failed."""
        return self._plan._replace(start=await asyncio.to_thread(self._here.recv))

    async def sent(self) -> Sent:
        """What it has sent, once it has sent all. Raises EOFError where it has failed."""
        sent: Sent = await asyncio.to_thread(self._here.recv)
        return sent


def _send(plan: Plan, told: Any) -> None:
    asyncio.run(_sending(plan, told))


async def _sending(plan: Plan, told: Any) -> None:
    producer = clients.producer(EngineConfig(bootstrap=plan.bootstrap, app_id="bench-load"))
    await producer.start()
    try:
        for topic in (payments.events.topic, payments.labels.topic):
            await producer.partitions_for(topic)  # or the first records would wait for it
        plan = plan._replace(start=time.monotonic() + AHEAD)
        told.send(plan.start)
        told.send(await _paced(plan, producer))
    finally:
        await producer.stop()


async def _paced(plan: Plan, producer: AIOKafkaProducer) -> Sent:
    events, labels = iter(plan.numbers), filter(plan.is_labelled, plan.numbers)
    event, label = next(events, None), next(labels, None)
    labelled, late = 0, []
    delay_ms = int(plan.labels_after * plan.rate * plan.step)  # in event time as long as by the clock
    waiting: deque[asyncio.Future[Any]] = deque()

    async def put(item: Any) -> None:
        while waiting and waiting[0].done():  # or an hour of them would be held
            waiting.popleft().result()
        waiting.append(await _put(producer, item))

    while event is not None or label is not None:
        now = time.monotonic()
        while event is not None and plan.due(event) <= now:
            await put(event_of(plan, event))
            late.append(time.monotonic() - plan.due(event))
            event = next(events, None)
        while label is not None and plan.due(label) + plan.labels_after <= now:
            made = event_of(plan, label)
            await put(verdict(made, made.at + delay_ms))
            labelled += 1
            label = next(labels, None)
        await asyncio.sleep(TICK)
    await asyncio.gather(*waiting)
    return Sent(len(late), labelled, late)


def event_of(plan: Plan, number: int) -> Payment:
    """The event of this number. Its time goes on by the plan's step a number, whatever the rate."""
    return payment(number, plan.customers, START_MS + number * plan.step)


async def _put(producer: AIOKafkaProducer, item: Any) -> "asyncio.Future[Any]":
    stream = payments.stream_of(item)
    key = stream.key_of(item).encode()
    sent: asyncio.Future[Any] = await producer.send(
        stream.topic, stream.encode(item), key, timestamp_ms=stream.time_of(item)
    )
    return sent


async def put(bootstrap: str, numbers: range) -> None:
    """Write the events of these numbers at once, and wait until the broker has them."""
    plan = Plan(bootstrap, 1.0, 0.0)
    producer = clients.producer(EngineConfig(bootstrap=bootstrap, app_id="bench-load"))
    await producer.start()
    try:
        await asyncio.gather(*[await _put(producer, event_of(plan, number)) for number in numbers])
    finally:
        await producer.stop()


class Seen(NamedTuple):
    """One prediction as a reader of committed records saw it.

    Attributes:
        number: of its payment.
        partition: where it was.
        at: when it was seen, of the monotonic clock.
    """

    number: int
    partition: int
    at: float


class Watcher:
    """Reads predictions as they become readable; `watching` makes one."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: int) -> None:
        self._consumer = consumer
        self.partitions = partitions

    async def until(self, enough: Callable[[Seen], bool], patience: float) -> list[Seen]:
        """All that is seen up to the first that is enough. Raises TimeoutError with how far it came."""
        seen: list[Seen] = []
        end = time.monotonic() + patience
        while time.monotonic() < end:
            batches = await self._consumer.getmany(timeout_ms=200)
            at = time.monotonic()
            for tp, records in batches.items():
                for record in records:
                    identity = record.value[ID].partition(b'"')[0].decode()
                    seen.append(Seen(number_of(identity), tp.partition, at))
                    if enough(seen[-1]):
                        return seen
        message = f"saw {len(seen):,} predictions in {patience:.0f} s, the last one {seen[-1:]}, and waited for more"
        raise TimeoutError(message)


@asynccontextmanager
async def watching(config: EngineConfig) -> AsyncIterator[Watcher]:
    """Watch the predictions from now on, by a consumer of aiokafka as it is, which fetches without a pause."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=config.bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        fetch_max_wait_ms=clients.FETCH_MAX_WAIT_MS,
    )
    await consumer.start()
    try:
        found = await consumer._client.fetch_all_metadata()
        topic = payments.predictions_topic
        tps = [TopicPartition(topic, number) for number in sorted(found.partitions_for_topic(topic) or ())]
        consumer.assign(tps)
        for tp, offset in (await consumer.end_offsets(tps)).items():
            consumer.seek(tp, offset)
        yield Watcher(consumer, len(tps))
    finally:
        await consumer.stop()
