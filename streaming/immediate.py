"""Records that are published outside of transactions: in order, as few batches as their broker's pace makes of them."""

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition

from streaming import clients
from streaming.checkpoint import send_batches
from streaming.config import EngineConfig
from streaming.unit import Output

LINGER = 0.002  # seconds from a publication to its sending; a worker has other partitions' turns in them

Records = Mapping[TopicPartition, Sequence[Output]]


class Immediate:
    """One producer for all units of a worker.

    aiokafka takes a batch for a partition when the one before it has left. Whatever is published meanwhile goes
    together, or a worker that publishes little and often would fall behind its own predictions. And so does what is
    published within `LINGER`: the agents' turns for one fetch, which otherwise are a request each.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._producer: AIOKafkaProducer | None = None
        self._waiting: list[tuple[Records, asyncio.Future[None]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._on_their_way: set[asyncio.Task[None]] = set()

    def publish(self, records: Records) -> "asyncio.Future[None]":
        """Send these after all that was published before; done when they are delivered, or have failed."""
        delivered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, delivered))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return delivered

    async def stop(self) -> None:
        """Stop the producer. Nobody waits any more for what it has not delivered."""
        if self._sending is not None:
            self._sending.cancel()
        if self._producer is not None:
            await self._producer.stop()

    async def _send(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(LINGER)
                taken, self._waiting = self._waiting, []
                await self._send_together(taken)
        finally:
            self._sending = None

    async def _send_together(self, taken: Sequence[tuple[Records, "asyncio.Future[None]"]]) -> None:
        together: dict[TopicPartition, list[Output]] = {}
        for records, _ in taken:
            for tp, outputs in records.items():
                together.setdefault(tp, []).extend(outputs)
        told = [delivered for _, delivered in taken]
        try:
            producer = await self._started()
            sent = await asyncio.gather(*(send_batches(producer, tp, outputs) for tp, outputs in together.items()))
        except Exception as error:  # noqa: BLE001  # whoever waits for a delivery is told; nothing else knows of it
            _tell(told, error)
            return
        task = asyncio.create_task(_told(told, [one.future for batches in sent for one in batches]))
        self._on_their_way.add(task)
        task.add_done_callback(self._on_their_way.discard)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = clients.producer(self._config)
            await producer.start()
            self._producer = producer
        return self._producer


async def _told(told: Sequence["asyncio.Future[None]"], deliveries: Sequence["asyncio.Future[object]"]) -> None:
    try:
        await asyncio.gather(*deliveries)
    except Exception as error:  # noqa: BLE001  # as above
        _tell(told, error)
    else:
        _tell(told, None)


def _tell(told: Sequence["asyncio.Future[None]"], error: Exception | None) -> None:
    for one in told:
        if one.done():  # nobody waits for it any more
            continue
        if error is None:
            one.set_result(None)
        else:
            one.set_exception(error)
