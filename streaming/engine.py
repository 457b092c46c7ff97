"""The engine: opens, checkpoints and closes units, and follows the training log.

One object per worker. Faust calls it at rebalances through `streaming.app`; agents ask it for units.
"""

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streaming import clients, recovery
from streaming.checkpoint import PlainWriter, Step, TransactionalWriter, no_step
from streaming.config import EngineConfig
from streaming.errors import CheckpointError, EngineError, StoreError
from streaming.follower import Follower, Lesson
from streaming.immediate import Immediate
from streaming.state import Partition
from streaming.stores import Stores
from streaming.tables import StateTable
from streaming.telemetry import OWNERS_GAUGES, Metrics
from streaming.unit import Chunk, Unit

log = logging.getLogger(__name__)

STOPPING = 3.0  # seconds for a producer to stop
# New objects after which the garbage collector looks for cycles. An event makes some twenty that it must look at, all
# but none of them in a cycle, and with CPython's 700 these looks were a tenth of what an event costs.
YOUNG = 10_000


class Group(msgspec.Struct, frozen=True):
    """A co-partitioned group of source topics and the tables that belong to it.

    Attributes:
        name: what its units are called.
        topics: the sources.
        tables: the state.
        saved_every: checkpoint intervals from one checkpoint of its units to the next while they have nothing to say;
            what they emit waits for no more than one.
    """

    name: str
    topics: tuple[str, ...]
    tables: tuple[StateTable[Any], ...]
    saved_every: int = 1


class Owned(msgspec.Struct):
    """A unit that this worker owns, with what makes it durable."""

    unit: Unit
    writer: TransactionalWriter | PlainWriter
    lock: asyncio.Lock
    task: "asyncio.Task[None] | None" = None
    sent: list["asyncio.Future[None]"] = msgspec.field(default_factory=list)
    failed: bool = False
    made: deque[tuple[float, Any]] = msgspec.field(default_factory=deque)

    def settled(self, now: float, age: float) -> Any:
        """The newest progress of this age at least; notes the present one."""
        self.made.append((now, self.unit.progress))
        progress = None
        while len(self.made) > 1 and self.made[0][0] <= now - age:
            progress = self.made.popleft()[1]
        return progress


def keep_what_is_there() -> None:
    """Have the garbage collector pass over all that there is by now, modules and recovered state.

    It stays. A full collection that looks through it again takes 0.2 s where there is no state yet, in which nothing is
    predicted, and more with every entity.
    """
    gc.unfreeze()  # what was kept before the last rebalance, and may be garbage by now
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer. What it has not delivered is not waited for: it belongs to no checkpoint that succeeded."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STOPPING):
            await producer.stop()


class Engine:
    """Units of one worker and their durability."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        log_topic: str,
        metrics: Metrics,
        fatal: Callable[[BaseException], Coroutine[Any, Any, None]],
        step: Step = no_step,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.stores = Stores(config) if config.store == "disk" else None
        self.groups: list[Group] = []
        self.log_topic = log_topic
        self._fatal = fatal
        self._step = step
        self._owned: dict[tuple[str, int], Owned] = {}
        self._closing = asyncio.Lock()
        self._immediate = Immediate(config)
        self._edges: AIOKafkaConsumer | None = None
        self._asking: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.lessons: Any = None  # the Faust channel on which the learn agent runs
        self.follower = Follower(config, log_topic, self._teach)
        self._following: asyncio.Task[None] | None = None
        self.ready = False
        self.generation: Callable[[], int] = lambda: 0
        self.reached: Callable[[TopicPartition, int], int] = lambda tp, mark: mark
        self.on_open: Callable[[Unit], None] | None = None
        self.on_ends: Callable[[Unit], Awaitable[None]] | None = None
        self.restore: Callable[[], Awaitable[int]] | None = None  # a snapshot, and the log position it ends at

    # -- asked by agents

    def unit_of(self, tp: TopicPartition) -> Unit | None:
        """The open unit that owns this source partition."""
        for group in self.groups:
            if tp.topic in group.topics:
                owned = self._owned.get((group.name, tp.partition))
                return owned.unit if owned and owned.unit.open else None
        return None

    def units(self) -> list[Unit]:
        """All open units."""
        return [owned.unit for owned in self._owned.values() if owned.unit.open]

    def marks(self) -> dict[TopicPartition, int]:
        """The next offset of every owned source partition."""
        return {tp: mark for unit in self.units() for tp, mark in unit.marks.items()}

    def take(self, unit: Unit | None, chunk: Chunk) -> Sequence["ConsumerRecord[Any, Any]"]:
        """The chunk's records that are still to be done; none when its unit is gone or it is from before a rebalance.

        Raises EngineError for a chunk that would skip records.
        """
        if unit is None or not unit.open or chunk.generation != self.generation():
            return ()
        records = unit.take(chunk)
        if records is None:
            message = f"got records of {chunk.tp} from offset {chunk.base} on, expected {unit.marks.get(chunk.tp)}"
            raise EngineError(message)
        return records

    @staticmethod
    async def breathe() -> None:
        """Give the loop a turn; agents call it so that a chunk never holds the loop for long."""
        await asyncio.sleep(0)

    def read_to(self, unit: Unit, topic: str) -> Any:
        """The newest progress of the unit by which the source topic held nothing that is still to be done."""
        return unit.read_to(topic, self.reached)

    def publish(self, unit: Unit) -> None:
        """Send the unit's immediate records outside its transaction; its next checkpoint waits for their delivery.

        Not awaited, so that no checkpoint can come between taking the records and knowing of their delivery.
        """
        owned = self._owned.get((unit.group, unit.partition))
        if owned is not None:
            self._publish_owned(owned)

    def _publish_owned(self, owned: Owned) -> None:
        records = owned.unit.take_immediate()
        if records:
            owned.sent.append(self._immediate.publish(records))

    # -- asked by the app

    async def open(
        self,
        assigned: Iterable[tuple[str, int]],
        commit: Callable[[Mapping[TopicPartition, int]], Awaitable[None]],
    ) -> None:
        """Open the units of these source partitions, in the order that makes them safe.

        1. initialise each unit's producer, which fences the previous owner and settles its open transaction;
        2. read the changelogs; 3. fetch the committed offsets; 4. follow the training log to its end as of now;
        5. only then may the units be fed.
        """
        started = time.monotonic()
        topics = set(assigned)
        wanted = [
            (group, partition)
            for group in self.groups
            for partition in sorted({p for t, p in topics if t == group.topics[0]})
        ]
        # 1.
        self._step("fence:before")
        writers = await self._writers(wanted, commit)
        self._step("fence:after")
        try:
            await self._open(wanted, writers)
        except BaseException:
            await asyncio.gather(*(stop_producer(writer.producer) for writer in writers))
            raise
        self.metrics.gauge("recovery_seconds", time.monotonic() - started)
        if self._asking is None:
            self._asking = asyncio.create_task(self._guard(self._ask_ends_forever()))
        keep_what_is_there()
        self.ready = True
        self._step("open:after")
        log.info("opened %d units in %.1f s", len(wanted), time.monotonic() - started)

    async def _open(
        self, wanted: Sequence[tuple[Group, int]], writers: Sequence[TransactionalWriter | PlainWriter]
    ) -> None:
        # 2.
        state: dict[tuple[str, int], dict[str, Partition[Any]]] = {}
        try:
            await self._recover(wanted, writers, state)
        except BaseException:
            for part in [part for parts in state.values() for part in parts.values()]:
                part.close()
            raise

    async def _recover(
        self,
        wanted: Sequence[tuple[Group, int]],
        writers: Sequence[TransactionalWriter | PlainWriter],
        state: dict[tuple[str, int], dict[str, Partition[Any]]],
    ) -> None:
        for group, partition in wanted:
            parts = state.setdefault((group.name, partition), {})
            for table in group.tables:
                parts[table.name] = await table.open_partition(partition, self.stores)
        changelogs = {
            TopicPartition(part.topic, partition): part
            for (_, partition), parts in state.items()
            for part in parts.values()
        }
        positions = await recovery.read_changelogs(self.config, changelogs)
        for group, partition in wanted:
            for table in group.tables:
                table.recovered(partition, positions[TopicPartition(table.changelog, partition)])
        self._step("changelogs:after")
        # 3.
        sources = [TopicPartition(topic, partition) for group, partition in wanted for topic in group.topics]
        offsets = await recovery.committed_offsets(self.config, sources)
        log_tp = TopicPartition(self.log_topic, 0)
        ends = await recovery.end_offsets(self.config, [log_tp])
        # 4.
        if wanted or self.config.serves:  # who stands by to watch needs no model yet, and has one within seconds
            await self._follow()
            await self.follower.wait_for(ends[log_tp])
        self._step("follow:after")
        # 5.
        for place, ((group, partition), writer) in enumerate(zip(wanted, writers, strict=True)):
            marks = {
                TopicPartition(topic, partition): offsets[TopicPartition(topic, partition)] for topic in group.topics
            }
            unit = Unit(group.name, partition, state[group.name, partition], marks)
            if self.on_open is not None:
                self.on_open(unit)
            owned = Owned(unit, writer, asyncio.Lock())
            self._owned[group.name, partition] = owned
            saving = self._checkpoint_forever(owned, place / len(wanted), group.saved_every)
            owned.task = asyncio.create_task(saving)

    async def close(self, *, save: bool = True) -> None:
        """Close all units: refuse records first, then the last checkpoint, then stop the producers.

        The state is dropped: another worker may own the units next. So whoever calls this while another closes, as
        when a worker is told to stop within a rebalance, returns only when all is saved.
        """
        self.ready = False
        async with self._closing:
            await self._close(save=save)

    async def _close(self, *, save: bool) -> None:
        owned, self._owned = list(self._owned.values()), {}
        for one in owned:
            one.unit.close()
        for name in OWNERS_GAUGES:
            self.metrics.forget(name)
        # All at once: each may have to wait for a broker that is away, and none needs another.
        results = await asyncio.gather(*(self._close_one(one, save=save) for one in owned), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _close_one(self, one: Owned, *, save: bool) -> None:
        if one.task is not None:
            # Under the lock no checkpoint is in flight, so cancelling cannot tear one.
            async with one.lock:
                one.task.cancel()
        try:
            if save:
                await self._checkpoint(one)
        finally:
            one.unit.drop()
            await stop_producer(one.writer.producer)

    async def stop(self) -> None:
        """Stop following, asking and the immediate producer."""
        for task in (self._following, self._asking):
            if task is not None:
                task.cancel()
        if self._edges is not None:
            await self._edges.stop()
        await self._immediate.stop()

    # -- inside

    async def _ask_ends_forever(self) -> None:
        """Learn again and again where the source partitions end: for lag, and for what is known to be read."""
        self._edges = clients.consumer(self.config)
        await self._edges.start()
        while True:
            await asyncio.sleep(self.config.checkpoint_interval)
            owned = [one for one in self._owned.values() if one.unit.open]
            # Taken before asking, so what was written by then is before the ends that are answered. And a while
            # before, since a producer's record for one partition may be written after its next one for another.
            progress = [one.settled(time.monotonic(), self.config.settle) for one in owned]
            tps = [tp for one in owned for tp in one.unit.marks]
            if not tps:
                continue
            try:
                ends = await self._edges.end_offsets(tps)
            except KafkaError as exc:  # a broker that is away comes back; meanwhile nothing new is known
                log.warning("end offsets are not to be had: %r", exc)
                continue
            for one, made in zip(owned, progress, strict=True):
                await self._learn_ends(one.unit, ends, made)

    async def _learn_ends(self, unit: Unit, ends: Mapping[TopicPartition, int], made: Any) -> None:
        if not unit.open:  # closed while the broker was asked
            return
        if made is not None:
            unit.ends_at(ends, made)
        for tp, mark in unit.marks.items():
            lag = unit.lag[tp.topic] = max(0, ends[tp] - self.reached(tp, mark))
            self.metrics.gauge("consumer_lag", lag, topic=tp.topic, partition=str(tp.partition))
        if self.on_ends is not None and unit.open:
            await self.on_ends(unit)

    async def _teach(self, lesson: Lesson) -> None:
        await self.lessons.put(lesson)

    async def _writers(
        self,
        wanted: Sequence[tuple[Group, int]],
        commit: Callable[[Mapping[TopicPartition, int]], Awaitable[None]],
    ) -> list[TransactionalWriter | PlainWriter]:
        """Started producers of these units. Raises EngineError where their coordinator does not answer in time."""
        patience = self.config.request_timeout
        try:
            # aiokafka asks for a producer id without end; whoever waits for that would never say why.
            async with asyncio.timeout(patience):
                return list(await asyncio.gather(*(self._writer(group, number, commit) for group, number in wanted)))
        except TimeoutError as exc:
            message = (
                f"the producers of {len(wanted)} units were not ready after {patience:.0f} s"
                " (HEADWATER_REQUEST_TIMEOUT): the coordinator of their transactions does not answer, is loading, or"
                " has too few replicas in sync. Start the worker again when the broker is well"
            )
            raise EngineError(message) from exc

    async def _writer(
        self, group: Group, partition: int, commit: Callable[[Mapping[TopicPartition, int]], Awaitable[None]]
    ) -> TransactionalWriter | PlainWriter:
        if self.config.guarantee == "exactly_once":
            producer = clients.producer(self.config, f"{self.config.app_id}-{group.name}-{partition}")
            await producer.start()
            return TransactionalWriter(producer, self.config, self._step)
        producer = clients.producer(self.config)
        await producer.start()
        return PlainWriter(producer, commit, self._step)

    async def _follow(self) -> None:
        if self._following is None:
            if self.restore is not None:
                await self.follower.start_at(await self.restore())
            self._following = asyncio.create_task(self._guard(self.follower.run()))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            # In a task of its own: this one may be cancelled by what ending the worker entails.
            self._ending = asyncio.create_task(self._fatal(exc))
            raise

    async def _checkpoint_forever(self, owned: Owned, phase: float, every: int = 1) -> None:
        """Checkpoints of one unit; `phase`, in [0, 1), is what of an interval the first comes sooner.

        Without outputs it is saved each so many intervals.

        The units take turns, since as many transactions at once take longer, all of them.
        """
        interval, waited = self.config.checkpoint_interval, 0
        due = time.monotonic() - interval * phase
        while owned.unit.open:
            # What a checkpoint takes is part of the interval, or who reads predictions would wait for it twice. But
            # one that takes as long as that leaves time for work.
            due = max(due + interval, time.monotonic() + interval / 2)
            await asyncio.sleep(due - time.monotonic())
            waited += 1
            if owned.unit.open and (waited >= every or owned.unit.has_outputs):
                waited = 0
                await self._guard(self._checkpoint(owned))

    async def _checkpoint(self, owned: Owned) -> None:
        """One checkpoint of one unit; the next waits for this one, processing does not."""
        async with owned.lock:
            if owned.failed:  # what comes after a cut that was lost must not be committed over it
                message = f"{owned.unit} is not saved, since an earlier checkpoint of it failed"
                raise CheckpointError(message)
            started = time.monotonic()
            self._publish_owned(owned)
            patience = self.config.request_timeout
            try:
                # 1. and 2.
                self._step("cut:before")
                cut = owned.unit.cut()
                self._step("cut:after")
                sent, owned.sent = owned.sent, []
                # aiokafka tries a transaction without end. By then another worker may own the unit, and be waiting.
                async with asyncio.timeout(patience):
                    await asyncio.gather(*sent)
                    if cut.empty:
                        return
                    written = await owned.writer.write(cut)
            except BaseException as exc:
                owned.failed = True
                late = f"it was not durable after {patience:.0f} s (HEADWATER_REQUEST_TIMEOUT)"
                why = late if isinstance(exc, TimeoutError) else repr(exc)
                msg = (
                    f"checkpoint of {owned.unit} failed: {why}. The worker ends, since its memory may be ahead of "
                    "Kafka; start it again and it recovers. Fenced means that another worker owns the unit now."
                )
                raise CheckpointError(msg) from exc
            try:
                owned.unit.committed(written)
            except StoreError:
                owned.failed = True
                raise
            self.metrics.observe("checkpoint_seconds", time.monotonic() - started)
            if owned.unit.after_save is not None:
                owned.unit.after_save(owned.unit)
