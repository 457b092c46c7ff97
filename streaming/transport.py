"""Batch transport: agents get one Faust event per chunk of records of one partition, not one per record.

Faust spends about 60 us on each event, half of it in `wait_first`; per chunk of 500 records that is nothing.
Progress is the units' marks, never Faust's acks (which skip records in flight), so committing is switched off here.
"""

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, cast

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.events import Event
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streaming import clients
from streaming.fetching import tuned
from streaming.unit import Chunk

if TYPE_CHECKING:
    from streaming.app import StreamApp


class BatchThread(driver.AIOKafkaConsumerThread):
    """The consumer thread, reading committed records only."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads committed records only under its own exactly_once, which loses state (FAUST notes section 3).
        consumer._isolation_level = "read_committed"
        # aiokafka has one fetch at a time under way to a broker, and leaves partitions out whose records wait for the
        # agents. What comes for these meanwhile is not asked for before that fetch is answered: with Faust's 1.5 s
        # a busy partition stood still for that long beside idle ones.
        consumer._fetch_max_wait_ms = clients.FETCH_MAX_WAIT_MS
        # Faust calls the group what it calls the application, after which changelogs are named.
        consumer._group_id = cast("Any", self.app).engine.config.group
        return tuned(consumer)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock warnings look at its commits, which are not used here."""


class BatchListener(driver.ConsumerRebalanceListener):
    """Faust's listener, with the heart beating while partitions are being opened.

    aiokafka starts heartbeats only when `on_partitions_assigned` has returned, so a recovery that takes longer than the
    session would be expelled, begin again, and never end.
    """

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Open the partitions."""
        consumer: Any = self._thread._ensure_consumer()
        consumer._coordinator._start_heartbeat_task()
        with consumer._subscription.fetch_context():  # or it would count as a member that does not poll
            await super().on_partitions_assigned(assigned)


class BatchConsumer(driver.Consumer):
    """Delivers whole chunks and seeks to the units' marks.

    One coroutine seeks, fetches and delivers, so that no fetch can be on its way while a seek moves the position: its
    records would be taken for those that follow the mark.
    """

    RebalanceListener = BatchListener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next: dict[TopicPartition, int] = {}
        self._passed: dict[TopicPartition, int] = {}
        self._last: dict[TopicPartition, weakref.ref[Chunk]] = {}  # weakly: one that Faust drops takes nothing more
        self._must_seek = False
        self._sought_generation: int | None = None

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def engine_app(self) -> "StreamApp":
        """The app, with its engine."""
        return cast("StreamApp", self.app)

    def reached(self, tp: TopicPartition, mark: int) -> int:
        """The offset that has been read to, given that everything before the mark is done.

        Beyond the mark when what follows it is known to hold nothing that is ever delivered.
        """
        return max(mark, self._passed.get(tp, 0)) if mark >= self._next.get(tp, mark + 1) else mark

    async def perform_seek(self) -> None:
        """Have every owned source partition sought to its unit's mark before the next fetch."""
        self._must_seek = True
        self._sought_generation = self.app.consumer_generation_id

    async def _seek_to_marks(self) -> None:
        self._must_seek = False
        self._passed, self._next, self._last = {}, {}, {}
        try:
            for tp, mark in self.engine_app.engine.marks().items():
                await self._seek(cast("TP", tp), mark)
                self._next[tp] = mark
        except IllegalStateError:  # a partition has just been taken away; there will be another generation
            self._must_seek = True

    def ack(self, message: Any) -> bool:
        """Forget a finished chunk; offsets are committed by checkpoints."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Do nothing: offsets are committed by checkpoints."""
        return False

    async def _drain_messages(self, fetcher: Any) -> None:
        size = self.engine_app.engine.config.chunk
        try:
            while not (self.should_stop or fetcher.should_stop):
                generation = self.app.consumer_generation_id
                if self._sought_generation != generation:
                    await asyncio.sleep(0.01)
                    continue
                if self._must_seek:
                    await self._seek_to_marks()
                records, active = await self._wait_next_records(1.0)
                if records is None or self.should_stop:
                    continue
                if self._must_seek or not self._current(generation):
                    self._must_seek = True
                    await asyncio.sleep(0.01)
                    continue
                await self._deliver(records, active, generation, size)
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    def _current(self, generation: int) -> bool:
        return bool(self.flow_active) and self.app.consumer_generation_id == generation

    async def _deliver(self, records: Any, active: Any, generation: int, size: int) -> None:
        """Round robin over partitions, one chunk each, so that no partition starves the others."""
        todo = {tp: batch for tp, batch in records.items() if active is None or TP(*tp) in active}
        if len(todo) < len(records):
            self._must_seek = True  # what is not delivered is to be fetched again
        at = 0
        while todo:
            for tp in list(todo):
                part = todo[tp][at : at + size]
                if not part:
                    del todo[tp]
                    continue
                if not self._current(generation):
                    self._must_seek = True
                    return
                base, self._next[tp] = self._next.get(tp, part[0].offset), part[-1].offset + 1
                if not self._joined(tp, part, generation, size):
                    await self._hand_over(Chunk(tp, base, part, generation))
            at += size
        if self._current(generation) and not self._must_seek:
            self._note_passed(set(self._next))

    def _joined(self, tp: TopicPartition, records: list[Any], generation: int, size: int) -> bool:
        """Whether the records went into the chunk before, which still waits for its agent.

        An agent's turn, and what it publishes at its end, cost far more than a record, so a worker that has much to do
        is not to do it in chunks of a few records.
        """
        last = self._last.get(tp)
        chunk = None if last is None else last()
        if chunk is None or chunk.begun or chunk.generation != generation or len(chunk.records) + len(records) > size:
            return False
        chunk.records.extend(records)
        return True

    async def _hand_over(self, chunk: Chunk) -> None:
        """Give a chunk to its agent; where that has too many already, wait until it has not or a rebalance begins.

        Waiting for whichever is first takes four tasks and several turns of the loop, so it is done only where needed.
        """
        self._last[chunk.tp] = weakref.ref(chunk)
        message = self._message(chunk)
        conductor = cast("BatchConductor", self.app.topics)
        if conductor.has_room(message.tp):
            await self.callback(message)
        else:
            await self.wait_first(self.callback(message), self.suspend_flow.wait())

    def _note_passed(self, tps: set[TopicPartition]) -> None:
        """Everything fetched so far has been delivered, so the consumer's position is how far has been read."""
        thread: Any = self._thread
        assignment = thread._ensure_consumer()._subscription.subscription.assignment
        for tp in tps & set(assignment.tps):
            state = assignment.state_value(tp)
            if state.has_valid_position:
                self._passed[tp] = state.position

    @staticmethod
    def _message(chunk: Chunk) -> ConsumerMessage:
        tp, last = chunk.tp, chunk.records[-1]
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=last.offset,
            timestamp=last.timestamp / 1000.0,
            timestamp_type=last.timestamp_type,
            headers=None,
            key=None,
            value=cast("Any", chunk),
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=TP(*tp),
            generation_id=chunk.generation,
        )


class BatchConductor(Conductor):
    """Hands chunks to the subscribed channels as they are, without decoding."""

    def acks_enabled_for(self, topic: str) -> bool:
        """No: Faust's compiled streams note each ack in its consumer, past `ack`, where only a commit takes it out.

        Commits are the checkpoints', so the notes of every chunk would be kept for as long as the worker runs.
        """
        return False

    def has_room(self, tp: TP) -> bool:
        """Whether the agents of this partition take a chunk without being waited for."""
        channels: Any = self._tp_index.get(tp, ())
        return not any(subscriber.queue.full() for channel in channels for subscriber in channel._subscribers)

    def _build_handler(self, tp: TP, channels: Any) -> Any:
        async def handle(message: ConsumerMessage) -> None:
            channel, *others = channels
            if others:
                msg = (
                    f"{tp.topic} has {1 + len(others)} agents; a source topic must have one, so that marks are in order"
                )
                raise RuntimeError(msg)
            message.incref(1)
            self.app.consumer.track_message(message)
            event: Event = Event(self.app, None, message.value, {}, message)
            await channel.put(event)

        return handle


class Transport(driver.Transport):
    """Faust's aiokafka transport with the batch consumer and conductor."""

    Consumer = BatchConsumer
    Conductor = BatchConductor
