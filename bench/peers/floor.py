"""The floor of a worker on Kafka: the records that Headwater reads and writes, exactly once, and nothing computed.

It reads events, labels and the training log. For each event it writes a prediction, the profile and the entry that
waits; for each label what is remembered of the id, and the example; by checkpoints of half a second, with a worker's
clients and batches. All are bytes that were made once, of the first event: so what is measured is what Kafka takes
through aiokafka, below which no worker comes that promises the same.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition

from bench.peers.work import Meter, Order, Work, order
from learning.label import PendingLabels
from learning.learn import Learner
from learning.records import Example, encode
from learning.score import Scored, score
from pipelines.definition import Pipeline
from streaming import clients
from streaming.checkpoint import send_all
from streaming.config import EngineConfig
from streaming.unit import Output


class Bytes(NamedTuple):
    """What Headwater writes of one event and its label."""

    prediction: bytes
    profile: bytes
    waiting: bytes
    remembered: bytes
    example: bytes


def bytes_of(pipeline: Pipeline, value: bytes) -> Bytes:
    """Of an event that came as these bytes. Raises TypeError where it makes no prediction."""
    event = pipeline.events.decode(value)
    key, name, time_ms = pipeline.events.key_of(event), "first", pipeline.events.time_of(event)
    profiles: dict[str, Any] = {}
    entries: dict[str, bytes] = {}
    join = PendingLabels(
        entries, horizon_ms=pipeline.horizon_ms, expired=pipeline.expired, corrected=pipeline.corrected
    )
    scored = score(pipeline, Learner(pipeline), profiles, join, event, key, name, time_ms)
    if not isinstance(scored, Scored):
        message = f"got {scored}, expected a prediction"
        raise TypeError(message)
    waiting, profile = entries[name], pipeline.feature_set.dump(profiles[key])
    example = join.resolve(name, key, outcome=False, label_time_ms=time_ms).record
    if not isinstance(example, Example):
        message = f"got {example} of a label that came at once, expected an example"
        raise TypeError(message)
    return Bytes(encode(scored.prediction), profile, waiting, entries[name], encode(example))


class Topics(NamedTuple):
    """Where the records are, each in one partition."""

    events: TopicPartition
    labels: TopicPartition
    log: TopicPartition
    predictions: TopicPartition
    profiles: TopicPartition
    pending: TopicPartition

    @classmethod
    def of(cls, pipeline: Pipeline, app_id: str) -> "Topics":
        """Those of a worker."""
        names = (
            pipeline.events.topic,
            pipeline.labels.topic,
            pipeline.training_log_topic,
            pipeline.predictions_topic,
            f"{app_id}-profiles-changelog",
            f"{app_id}-pending-changelog",
        )
        return cls(*(TopicPartition(name, 0) for name in names))


class Cut:
    """What one checkpoint writes: of a key that changed several times, the last of its changelog."""

    def __init__(self, topics: Topics, write: Bytes) -> None:
        self._topics, self._write = topics, write
        self._streams: dict[TopicPartition, list[Output]] = {topics.predictions: [], topics.log: []}
        self._tables: dict[TopicPartition, dict[bytes, bytes]] = {topics.profiles: {}, topics.pending: {}}
        self.offsets: dict[TopicPartition, int] = {}

    def take(self, tp: TopicPartition, records: Sequence[Any], meter: Meter) -> None:
        """Events or labels came. A label is taken for that of the event at the same place of its topic."""
        topics, write = self._topics, self._write
        predictions, log = (self._streams[to] for to in (topics.predictions, topics.log))
        profiles, pending = (self._tables[to] for to in (topics.profiles, topics.pending))
        self.offsets[tp] = records[-1].offset + 1
        for record in records:
            name = b"%d" % record.offset
            if tp == topics.events:
                predictions.append(Output(record.key, write.prediction))
                profiles[record.key] = write.profile
                pending[name] = write.waiting
                meter.event()
            else:
                pending[name] = write.remembered
                log.append(Output(name, write.example))

    def outputs(self) -> Mapping[TopicPartition, Sequence[Output]]:
        """All of it."""
        tables = {tp: [Output(*each) for each in changed.items()] for tp, changed in self._tables.items()}
        return {tp: records for tp, records in {**self._streams, **tables}.items() if records}


async def run(told: Order) -> None:
    """Until all is read, the training log to its end included, and all is committed."""
    work, meter = Work(told.pipeline), Meter(told.warm)
    config = EngineConfig(bootstrap=told.broker, app_id=f"headwater-{told.pipeline.name}", partitions=1)
    topics = Topics.of(told.pipeline, config.app_id)
    async with clients.consumer(config) as consumer, clients.producer(config, "floor") as producer:
        consumer.assign([topics.events])
        write = bytes_of(told.pipeline, (await consumer.getone()).value)
        consumer.assign([topics.events, topics.labels, topics.log])
        await consumer.seek_to_beginning()
        saving = asyncio.create_task(asyncio.sleep(0))
        while meter.events < told.events or work.lessons < told.lessons:
            cut, until = Cut(topics, write), time.monotonic() + config.checkpoint_interval
            while (left := until - time.monotonic()) > 0:
                for tp, records in (await consumer.getmany(timeout_ms=int(left * 1000))).items():
                    if tp == topics.log:
                        work.lessons += len(records)
                    else:
                        cut.take(tp, records, meter)
            await saving
            saving = asyncio.create_task(_save(producer, cut, config.group))  # while more is read
        await saving
    meter.report(work)


async def _save(producer: AIOKafkaProducer, cut: Cut, group: str) -> None:
    outputs = cut.outputs()
    if outputs:
        async with producer.transaction():
            await send_all(producer, outputs)
            await producer.send_offsets_to_transaction(cut.offsets, group)


if __name__ == "__main__":
    asyncio.run(run(order()))
