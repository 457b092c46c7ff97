"""The engine: opens, checkpoints and closes units, and follows the training log.

One object per worker. Faust calls it at rebalances through `streaming.app`; agents ask it for units.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from streaming import clients, recovery
from streaming.checkpoint import PlainWriter, Step, TransactionalWriter, no_step, send_batches
from streaming.config import EngineConfig
from streaming.errors import CheckpointError
from streaming.follower import Follower, Lesson
from streaming.tables import StateTable
from streaming.telemetry import Metrics
from streaming.unit import Chunk, Output, Unit

log = logging.getLogger(__name__)


class Group(msgspec.Struct, frozen=True):
    """A co-partitioned group of source topics and the tables that belong to it."""

    name: str
    topics: tuple[str, ...]
    tables: tuple[StateTable[Any], ...]


class Owned(msgspec.Struct):
    """A unit that this worker owns, with what makes it durable."""

    unit: Unit
    writer: TransactionalWriter | PlainWriter
    lock: asyncio.Lock
    task: "asyncio.Task[None] | None" = None


class Engine:
    """Units of one worker and their durability."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        log_topic: str,
        metrics: Metrics,
        fatal: Callable[[BaseException], Awaitable[None]],
        step: Step = no_step,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.groups: list[Group] = []
        self.log_topic = log_topic
        self._fatal = fatal
        self._step = step
        self._owned: dict[tuple[str, int], Owned] = {}
        self._immediate: AIOKafkaProducer | None = None
        self._sent: list[asyncio.Future[object]] = []
        self.lessons: Any = None  # the Faust channel on which the learn agent runs
        self.follower = Follower(config, log_topic, self._teach)
        self._following: asyncio.Task[None] | None = None
        self.ready = False
        self.refused: Callable[[TopicPartition, int], None] = lambda tp, mark: None

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
        """The chunk's records that are still to be done; none when its unit is gone or the chunk does not follow.

        A chunk that does not follow the unit's mark is fetched again from the mark.
        """
        if unit is None:
            return ()
        records = unit.take(chunk)
        if records is None:
            if unit.open and chunk.tp in unit.marks:
                self.refused(chunk.tp, unit.marks[chunk.tp])
            return ()
        return records

    @staticmethod
    async def breathe() -> None:
        """Give the loop a turn; agents call it so that a chunk never holds the loop for long."""
        await asyncio.sleep(0)

    async def publish_now(self, tp: TopicPartition, records: list[Output]) -> None:
        """Send predictions outside the transaction; the next checkpoint waits for their delivery."""
        if self._immediate is None:
            self._immediate = clients.producer(self.config)
            await self._immediate.start()
        self._sent += await send_batches(self._immediate, tp, records)

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
        writers = await asyncio.gather(*(self._writer(group, partition, commit) for group, partition in wanted))
        # 2.
        state = {
            (group.name, partition): {table.name: table.new_partition() for table in group.tables}
            for group, partition in wanted
        }
        changelogs = {
            TopicPartition(part.topic, partition): part
            for (_, partition), parts in state.items()
            for part in parts.values()
        }
        positions = await recovery.read_changelogs(self.config, changelogs)
        for group, partition in wanted:
            for table in group.tables:
                table.recovered(partition, positions[TopicPartition(table.changelog, partition)])
        # 3.
        sources = [TopicPartition(topic, partition) for group, partition in wanted for topic in group.topics]
        offsets = await recovery.committed_offsets(self.config, sources)
        ends = await recovery.end_offsets(self.config, [*sources, TopicPartition(self.log_topic, 0)])
        # 4.
        self._follow()
        await self.follower.wait_for(ends[TopicPartition(self.log_topic, 0)])
        # 5.
        for (group, partition), writer in zip(wanted, writers, strict=True):
            marks = {
                TopicPartition(topic, partition): offsets[TopicPartition(topic, partition)] for topic in group.topics
            }
            unit = Unit(group.name, partition, state[group.name, partition], marks)
            unit.ends.update({tp: ends[tp] for tp in marks})
            owned = Owned(unit, writer, asyncio.Lock())
            self._owned[group.name, partition] = owned
            owned.task = asyncio.create_task(self._checkpoint_forever(owned))
        self.metrics.gauge("recovery_seconds", time.monotonic() - started)
        self.ready = True
        log.info("opened %d units in %.1f s", len(wanted), time.monotonic() - started)

    async def close(self, *, save: bool = True) -> None:
        """Close all units: refuse records first, then the last checkpoint, then stop the producers.

        The state is dropped: another worker may own the units next.
        """
        self.ready = False
        owned, self._owned = list(self._owned.values()), {}
        for one in owned:
            one.unit.close()
        for one in owned:
            if one.task is not None:
                # Under the lock no checkpoint is in flight, so cancelling cannot tear one.
                async with one.lock:
                    one.task.cancel()
            if save:
                await self._checkpoint(one)
            await one.writer.producer.stop()

    async def stop(self) -> None:
        """Stop following and the immediate producer."""
        if self._following is not None:
            self._following.cancel()
        if self._immediate is not None:
            await self._immediate.stop()

    # -- inside

    async def _teach(self, lesson: Lesson) -> None:
        await self.lessons.put(lesson)

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

    def _follow(self) -> None:
        if self._following is None:
            self._following = asyncio.create_task(self._guard(self.follower.run()))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            await self._fatal(exc)
            raise

    async def _checkpoint_forever(self, owned: Owned) -> None:
        while owned.unit.open:
            await asyncio.sleep(self.config.checkpoint_interval)
            if owned.unit.open:
                await self._guard(self._checkpoint(owned))

    async def _checkpoint(self, owned: Owned) -> None:
        """One checkpoint of one unit; the next waits for this one, processing does not."""
        async with owned.lock:
            started = time.monotonic()
            cut = owned.unit.cut()
            sent, self._sent = self._sent, []
            try:
                await asyncio.gather(*sent)
                if cut.empty:
                    return
                await owned.writer.write(cut)
            except Exception as exc:
                msg = (
                    f"checkpoint of {owned.unit} failed: {exc!r}. The worker ends, since its memory may be ahead of "
                    "Kafka; start it again and it recovers. Fenced means that another worker owns the unit now."
                )
                raise CheckpointError(msg) from exc
            self.metrics.observe("checkpoint_seconds", time.monotonic() - started)
