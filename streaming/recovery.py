"""Recovery: what a unit needs to know from Kafka before it may be opened. Fencing comes first, in `engine`."""

from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streaming import clients
from streaming.config import EngineConfig
from streaming.state import StatePartition


async def read_changelogs(
    config: EngineConfig, parts: Mapping[TopicPartition, "StatePartition[object]"]
) -> dict[TopicPartition, int]:
    """Bulk-read changelogs into their (empty) partitions; returns the position reached in each.

    Loops on position < end rather than on records, because the last offset of a transactional log is a marker
    that is never delivered.
    """
    if not parts:
        return {}
    consumer = clients.consumer(config)
    await consumer.start()
    try:
        consumer.assign(list(parts))
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(list(parts))
        waiting = set(parts)
        while waiting:
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp]}
            if waiting:
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    restore = parts[tp].restore
                    for record in records:
                        restore(record.key, record.value)
        return dict(ends)
    finally:
        await consumer.stop()


async def committed_offsets(config: EngineConfig, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The group's committed offsets; where there is none, the beginning of the partition."""
    wanted = list(tps)
    admin = AIOKafkaAdminClient(bootstrap_servers=config.bootstrap, **config.security.options())
    await admin.start()
    try:
        stored = await admin.list_consumer_group_offsets(config.app_id)
    finally:
        await admin.close()
    found = {tp: stored[tp].offset for tp in wanted if tp in stored and stored[tp].offset >= 0}
    missing = [tp for tp in wanted if tp not in found]
    begin = await _edges(config, missing, at_end=False)
    return {tp: max(found.get(tp, 0), begin.get(tp, 0)) for tp in wanted}


async def end_offsets(config: EngineConfig, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Where read_committed readers of these partitions end as of now."""
    return await _edges(config, list(tps), at_end=True)


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
