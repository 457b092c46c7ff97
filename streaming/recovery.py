"""Recovery: what a unit needs to know from Kafka before it may be opened. Fencing comes first, in `engine`.

Whatever Kafka says that does not fit together is refused: state or records that have been lost must not look like
state or records that there never were.
"""

import asyncio
import gc
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnknownError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

from streaming import clients
from streaming.config import EngineConfig
from streaming.errors import EngineError
from streaming.reading import read_up_to
from streaming.requests import DescribeTopicIds
from streaming.state import Changelog, Partition
from streaming.topics import admin_client, topic_configs

log = logging.getLogger(__name__)

MOST_RESTORED = 20_000  # records between two writes of a store that is being built
BACKOFF = 0.1  # seconds before a group's coordinator is asked again


async def read_changelogs(
    config: EngineConfig, parts: Mapping[TopicPartition, Partition[Any]]
) -> dict[TopicPartition, int]:
    """Bulk-read changelogs into their partitions, each from where it says; returns the position reached in each.

    Raises EngineError for a changelog that has lost its head, or that nothing comes from.
    """
    if not parts:
        return {}
    kept = sorted({tp.topic for tp, part in parts.items() if part.on_disk})
    topics = await _described(config, kept) if kept else {}
    consumer = clients.consumer(config, auto_offset_reset="none")
    await consumer.start()
    try:
        consumer.assign(list(parts))
        begins = await consumer.beginning_offsets(list(parts))
        refuse_without_head(begins)
        asked = time.time()
        ends = await consumer.end_offsets(list(parts))
        logs = {tp: Changelog(begins[tp], ends[tp], asked, *topics.get(tp.topic, ())) for tp in parts}
        for tp, part in parts.items():
            consumer.seek(tp, part.start(logs[tp]))
        most = MOST_RESTORED if kept else None
        with no_collector():
            async for batches in read_up_to(consumer, ends, patience=config.request_timeout, most=most):
                for tp, records in batches.items():
                    restore = parts[tp].restore
                    # Of a key that changed often only the newest is decoded.
                    for key, value in {record.key: record.value for record in records}.items():
                        restore(key, value)
                    parts[tp].restored(records[-1].offset + 1, logs[tp])
        for tp, part in parts.items():
            part.restored(ends[tp], logs[tp])
        return dict(ends)
    finally:
        await consumer.stop()


@contextmanager
def no_collector() -> Iterator[None]:
    """Have Python's garbage collector rest.

    It looks through all state that has been made so far each time that this has grown by a quarter, a third of the time
    that profiles take to be made; state is kept, and has no cycles.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


async def _described(config: EngineConfig, names: list[str]) -> dict[str, tuple[bytes, float | None]]:
    """Of each topic its id, and for how many seconds it keeps removals, as far as the broker says.

    Raises EngineError where it cannot be asked: topics that cannot be told apart are no ground to believe a store on.
    """
    async with admin_client(config) as admin:
        try:
            answer: Any = await admin._send_request(DescribeTopicIds(names))
            configs = await topic_configs(admin, names)
        except (IncompatibleBrokerVersion, NotImplementedError) as error:
            message = "HEADWATER_STORE=disk needs a broker of Kafka 2.8 or newer, which tells topics apart by their ids"
            raise EngineError(message) from error
        except KafkaError as error:
            message = f"the changelogs cannot be described: {error!r}. Start the worker again when its broker is well"
            raise EngineError(message) from error
    found: dict[str, tuple[bytes, float | None]] = {}
    for code, name, topic_id, *_ in answer.topics:
        milliseconds = configs.get(name, {}).get("delete.retention.ms")
        known = topic_id if not code and any(topic_id) else b""
        found[name] = (known, None if milliseconds is None else int(milliseconds) / 1000)
    return found


def refuse_without_head(begins: Mapping[TopicPartition, int]) -> None:
    """Raise EngineError for changelogs that do not begin at offset 0.

    Compaction never moves the beginning of a log; retention and `kafka-delete-records` do. What they removed may have
    been the newest record of some keys, and nothing tells of which.
    """
    lost = {tp: begin for tp, begin in begins.items() if begin > 0}
    if lost:
        places = ", ".join(f"{tp.topic}-{tp.partition} at offset {begin}" for tp, begin in sorted(lost.items()))
        message = (
            f"the changelog begins late: {places}, expected 0. Its head has been removed, and with it state that"
            " nobody can name, so profiles or waiting labels would be wrong in silence. Give the topic"
            " cleanup.policy=compact and nothing else, so that it does not happen again, and the pipeline another"
            " name to start anew from its events and labels"
        )
        raise EngineError(message)


async def committed_offsets(config: EngineConfig, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The group's committed offsets; where there is none, the beginning of the partition.

    Raises EngineError for an offset beyond the end of its partition, and where the group cannot be asked.
    """
    wanted = list(tps)
    async with admin_client(config) as admin:
        stored = await _patiently(config, admin, wanted)
    begins = await begin_offsets(config, wanted)
    ends = await end_offsets(config, wanted)
    for tp, offset in stored.items():
        if offset > ends[tp]:
            raise _beyond_its_end(config, tp, offset, ends[tp])
        if offset < begins[tp]:
            log.error(
                "%d records of %s-%d were removed before they were read (offsets %d to %d): they are lost; its"
                " retention is shorter than this group was away or behind",
                begins[tp] - offset,
                tp.topic,
                tp.partition,
                offset,
                begins[tp] - 1,
            )
    return {tp: max(stored.get(tp, 0), begins[tp]) for tp in wanted}


async def _patiently(
    config: EngineConfig, admin: AIOKafkaAdminClient, tps: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """What `stored_offsets` says, asked again while the group's coordinator is moving or loading."""
    until = time.monotonic() + config.request_timeout
    while True:
        try:
            return await stored_offsets(admin, config.group, tps)
        except KafkaError as error:
            if not error.retriable or time.monotonic() > until:
                message = (
                    f"the committed offsets of group {config.group} cannot be read: {error!r}. Start the worker again"
                    " when its broker is well"
                )
                raise EngineError(message) from error
        await asyncio.sleep(BACKOFF)


async def stored_offsets(
    admin: AIOKafkaAdminClient, group: str, tps: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offsets that a group has committed, of these partitions. Raises KafkaError.

    aiokafka passes over the error of the answer as a whole, by which a coordinator says that it is still loading (as
    it is after a restart) or is none any more. Its empty list then reads as a group that has never committed, and
    everything would be done once more.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    for tp in tps:
        asked[tp.topic].append(tp.partition)
    coordinator = await admin.find_coordinator(group)
    answer: Any = await admin._send_request(OffsetFetchRequest(group, list(asked.items())), coordinator)
    if answer.error_code:
        raise for_code(answer.error_code)
    found: dict[TopicPartition, int] = {}
    for topic, partitions in answer.topics:
        for partition, offset, _, code in partitions:
            if code:
                raise for_code(code)
            found[TopicPartition(topic, partition)] = offset
    missing = [
        tp for topic, partitions in asked.items() for p in partitions if (tp := TopicPartition(topic, p)) not in found
    ]
    if missing:
        message = f"got no answer for {missing[0]}"
        raise UnknownError(message)
    return {tp: offset for tp, offset in found.items() if offset >= 0}


def _beyond_its_end(config: EngineConfig, tp: TopicPartition, offset: int, end: int) -> EngineError:
    return EngineError(
        f"group {config.group} has read {tp.topic}-{tp.partition} to offset {offset}, but it ends at {end}: it"
        " has lost its tail, or has been deleted and created again. What comes next would be passed over up to there."
        " Give the pipeline another name to start anew, or set the group's offsets to where to go on"
        " (kafka-consumer-groups --reset-offsets)"
    )


async def end_offsets(config: EngineConfig, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Where read_committed readers of these partitions end as of now."""
    return await _edges(config, list(tps), at_end=True)


async def begin_offsets(config: EngineConfig, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Where these partitions begin, after what was removed."""
    return await _edges(config, list(tps), at_end=False)


async def _edges(config: EngineConfig, tps: list[TopicPartition], *, at_end: bool) -> dict[TopicPartition, int]:
    if not tps:
        return {}
    consumer: AIOKafkaConsumer = clients.consumer(config)
    await consumer.start()
    try:
        edges = consumer.end_offsets(tps) if at_end else consumer.beginning_offsets(tps)
        return dict(await edges)
    finally:
        await consumer.stop()
