"""Reads topics as they are now, and rebuilds the model at any version from the training log.

`headwater explain` and `headwater export` are made of it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretBytes

from agents.snapshots import Refused, Shelf
from app.settings import Settings
from learning.learn import Learner, ModelError, Turn
from learning.records import LogRecord, decode_log
from learning.rollback import fold
from pipelines.definition import Pipeline
from streaming import clients, topics
from streaming.config import EngineConfig
from streaming.errors import EngineError, StartupError
from streaming.snapshots import SnapshotStore

Progress = Callable[[int, int], None]  # offsets read, and how many there are
See = Callable[[int, LogRecord], None]

CHUNK = 2_000  # records between two looks at the progress


def nothing(*_: object) -> None:
    """Look at nothing, show nothing."""


class LostHeadError(EngineError):
    """A model cannot be made again: what it would learn first is in the log no more, and no snapshot has it."""


class Trust(msgspec.Struct, frozen=True):
    """Which snapshots are looked at and believed.

    Attributes:
        slots: how many slots there are; 0 to look at none.
        keys: one of them must have signed, where there are any.
    """

    slots: int = 0
    keys: tuple[SecretBytes, ...] = ()


NO_SNAPSHOTS = Trust()


def trust_of(settings: Settings) -> Trust:
    """What a worker with these settings believes."""
    return Trust(settings.snapshot_slots, tuple(settings.snapshot_keys()))


class Topic:
    """The committed records of a topic as it was when it was opened; what is written since is not seen.

    Attributes:
        name: the topic's name.
        begins: first offset of each partition.
        ends: offset after the last of each partition.
    """

    def __init__(self, consumer: AIOKafkaConsumer, name: str, begins: dict[int, int], ends: dict[int, int]) -> None:
        self.name = name
        self.begins = begins
        self.ends = ends
        self._consumer = consumer

    @property
    def begin(self) -> int:
        """First offset of partition 0, for a log that has no other."""
        return self.begins[0]

    @property
    def end(self) -> int:
        """Offset after the last of partition 0."""
        return self.ends[0]

    async def first_after(self, time_ms: int) -> int:
        """Offset of the first record of partition 0 that was appended after a time; the end where none was."""
        tp = TopicPartition(self.name, 0)
        found = (await self._consumer.offsets_for_times({tp: time_ms + 1}))[tp]
        if found is None:
            return self.end
        # It may be a transaction's marker, which is no record, and is written after records that are older than it.
        async with aclosing(self.records(found.offset)) as records:
            async for record in records:
                if record.timestamp > time_ms:
                    return int(record.offset)
        return self.end

    async def records(
        self, start: int = 0, stop: int | None = None, progress: Progress = nothing
    ) -> AsyncGenerator[Any, None]:
        """Records at offsets from start to before stop, in order within each partition."""
        stops = {number: end if stop is None else min(stop, end) for number, end in self.ends.items()}
        starts = {number: min(max(start, begin), stops[number]) for number, begin in self.begins.items()}
        total = sum(stops.values()) - sum(starts.values())
        consumer = self._consumer
        waiting = {TopicPartition(self.name, number) for number in stops if starts[number] < stops[number]}
        consumer.assign(list(waiting))
        for tp in waiting:
            consumer.seek(tp, starts[tp.partition])
        places = dict(starts)
        while waiting:
            batches = await consumer.getmany(*waiting, timeout_ms=200, max_records=CHUNK)
            for tp, records in batches.items():
                for record in records:
                    if record.offset < stops[tp.partition]:
                        yield record
            # By position and not by record: the last offset of a transactional log is a marker, which is not delivered.
            for tp in tuple(waiting):
                places[tp.partition] = min(await consumer.position(tp), stops[tp.partition])
                if places[tp.partition] >= stops[tp.partition]:
                    waiting.discard(tp)
            progress(sum(places.values()) - sum(starts.values()), total)
        progress(total, total)


@asynccontextmanager
async def opened(config: EngineConfig, name: str) -> AsyncIterator[Topic]:
    """The topic, to be read as it is now. Raises StartupError where it does not exist."""
    async with topics.admin_client(config) as admin:
        counts = await topics.partition_counts(admin, [name])
    if name not in counts:
        message = f"topic {name} does not exist; create it with `headwater topics create`, or name another --pipeline"
        raise StartupError(message)
    async with clients.consumer(config) as consumer:
        tps = [TopicPartition(name, number) for number in range(counts[name])]
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        yield Topic(consumer, name, {tp.partition: begins[tp] for tp in tps}, {tp.partition: ends[tp] for tp in tps})


async def lessons(
    log: Topic, start: int = 0, stop: int | None = None, progress: Progress = nothing
) -> AsyncGenerator[tuple[int, LogRecord], None]:
    """Records of the training log with their offsets; what is none is passed over, as every worker does."""
    async with aclosing(log.records(start, stop, progress)) as records:
        async for record in records:
            try:
                entry = decode_log(record.value or b"")
            except msgspec.DecodeError:
                continue
            yield record.offset, entry


async def shelf(pipeline: Pipeline, config: EngineConfig, trust: Trust, refused: Refused = nothing) -> Shelf:
    """The pipeline's snapshots as they are now, to be believed as a worker would; none where their topic is not."""
    async with topics.admin_client(config) as admin:
        counts = await topics.partition_counts(admin, [pipeline.snapshots_topic])
    store = SnapshotStore(config, pipeline.snapshots_topic, trust.slots)
    found = await store.read() if trust.slots and counts else []
    return Shelf(found, pipeline, [key.get_secret_value() for key in trust.keys], refused)


def needed(
    log: Topic, start: int, stop: int, progress: Progress = nothing
) -> AsyncGenerator[tuple[int, LogRecord], None]:
    """Lessons that a model is made of. Raises LostHeadError where the log does not have all of them any more."""
    if start < min(stop, log.begin):
        message = (
            f"the training log {log.name} begins at offset {log.begin}, expected {start}: what was before is gone"
            " (retention, or deleted records) and no snapshot that can be believed reaches it, so the model cannot be"
            " made again; set HEADWATER_SNAPSHOT_KEY as the worker has it, and the topic's retention.ms=-1 for the"
            " future"
        )
        raise LostHeadError(message)
    return lessons(log, start, stop, progress)


async def learner_at(
    pipeline: Pipeline,
    log: Topic,
    version: int,
    *,
    start: Learner | None = None,
    saved: Shelf | None = None,
    see: See = nothing,
    progress: Progress = nothing,
) -> Learner:
    """The model as it was at a version: the fold over the training log up to there, rollbacks on the way included.

    Raises LostHeadError.

    Args:
        pipeline: whose model.
        log: its training log.
        version: the offset up to which the model has learned. Beyond the log, it is the model at the log's end.
        start: a learner at an earlier version to go on from, such as a snapshot; it is changed. Without, a new one.
        saved: snapshots to make the models from that rollbacks on the way go back to.
        see: called with each record on the way and its offset, after it was learned.
        progress: called now and then with the offsets read and how many there are.
    """
    saved = Shelf([], pipeline, (), nothing) if saved is None else saved
    learner = Learner(pipeline) if start is None else start
    if learner.version > version:
        message = f"cannot go back from version {learner.version} to {version}; start from an earlier one"
        raise ValueError(message)
    while (stopped := await _up_to_turn(log, learner, version, see, progress)) is not None:
        record, turn = stopped
        turns = (*learner.turns, turn)
        then, runs = await saved.before(turns, turn.offset + 1)
        await fold(then, turns, runs, lambda start, stop: needed(log, start, stop))
        learner.take_turn(turn, then)
        see(turn.offset, record)
    return learner


async def _up_to_turn(
    log: Topic, learner: Learner, version: int, see: See, progress: Progress
) -> tuple[LogRecord, Turn] | None:
    """Learn up to the version, or to before the next turn, which is returned: a topic is read once at a time."""
    async with aclosing(needed(log, learner.version, version, progress)) as found:
        async for offset, record in found:
            turn = learner.turn_at(offset, record)
            if turn is not None:
                return record, turn
            with suppress(ModelError):  # every worker passed over it too, so this is the same model
                learner.apply(offset, record)
            see(offset, record)
    return None
