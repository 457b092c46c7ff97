"""Looks for what is known to go wrong and says what to do about it: `headwater doctor`."""

from collections.abc import AsyncIterator
from typing import Literal

import msgspec
from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from app import loops
from app.settings import Settings
from features.compiled import CompiledError
from pipelines.definition import Pipeline
from streaming import clients, permissions, roles, topics
from streaming.config import EngineConfig
from streaming.errors import StartupError
from streaming.roles import Division

SAMPLE = 200
STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at."""

    check: str
    verdict: Literal["ok", "warning", "problem"]
    message: str


async def examine(settings: Settings, pipeline: Pipeline) -> AsyncIterator[Finding]:
    """Findings in an order in which a problem makes the later checks pointless."""
    config = settings.engine_config(pipeline.name)
    yield Finding("settings", "ok", f"broker {settings.broker}, app id {config.app_id}, {config.guarantee}")
    count = len(pipeline.feature_set.names)
    yield Finding("pipeline", "ok", f"{pipeline.name}: {count} features, {pipeline.task}")
    yield hot_loops(settings)
    try:
        async with topics.admin_client(config) as admin:
            brokers = len((await admin.describe_cluster())["brokers"])
            yield Finding("broker", "ok", f"{brokers} broker(s) answer")
            specs = topics.topics_of(pipeline, config.app_id, config.partitions)
            counts = await topics.partition_counts(admin, [spec.name for spec in specs])
            rights = await permissions.survey(admin, specs, config)
            configs = await topics.topic_configs(admin, [spec.name for spec in specs if spec.name in counts])
            running = await roles.division(admin, config, pipeline.training_log_topic)
    except StartupError as error:
        yield Finding("broker", "problem", str(error))
        return
    if settings.replication_factor > brokers:
        got = settings.replication_factor
        message = f"got {got}, but only {brokers} broker(s) answer; lower HEADWATER_REPLICATION_FACTOR"
        yield Finding("replication", "problem", message)
    found = topics.problems(specs, counts, rights.unseen)
    for problem in found:
        yield Finding("topics", "problem", problem)
    if not found:
        yield Finding("topics", "ok", f"{len(specs)} topics, {counts[specs[0].name]} partitions")
    for problem in rights.problems():
        yield Finding("rights", "problem", f"{problem}; `headwater topics check` prints the command that grants it")
    if not rights.lacking:
        unknown = sum(state == "unknown" for state in rights.acls.values())
        said = f", {unknown} of them not to be asked about yet" if unknown else ""
        yield Finding("rights", "ok", f"a worker needs {len(rights.acls)}{said}, and lacks none")
    yield workers(running)
    for problem in topics.forgetful(specs, configs):
        yield Finding("cleanup", "problem", problem)
    for warning in topics.expiring(specs, configs):
        yield Finding("retention", "warning", warning)
    for stream in (pipeline.events, pipeline.labels):
        if stream.topic in counts:
            yield await partitioner(config, stream.topic, counts[stream.topic])


def workers(running: Division) -> Finding:
    """Whether those that run do all there is to do between them.

    >>> workers(Division(all=0, serve=2, watch=0)).verdict, workers(Division(all=0, serve=0, watch=0)).message
    ('warning', 'none runs')
    """
    if running.serve and not running.watch:
        message = f"{running.serve} serve and none watches; start one with HEADWATER_ROLE=watch"
        return Finding("workers", "warning", message)
    if running.watch and not running.serve:
        message = f"{running.watch} watch and none serves; start one with HEADWATER_ROLE=serve"
        return Finding("workers", "warning", message)
    counts = {"do all": running.all, "serve": running.serve, "watch": running.watch}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return Finding("workers", "ok", said or "none runs")


def hot_loops(settings: Settings) -> Finding:
    """Whether a worker's hot loops would run compiled here."""
    try:
        return Finding("loops", "ok", loops.said(loops.choose(settings)))
    except CompiledError as error:
        return Finding("loops", "problem", f"{error}; or set HEADWATER_COMPILED=auto")


async def partitioner(config: EngineConfig, topic: str, partitions: int) -> Finding:
    """Whether the records of a topic lie where murmur2 puts their keys.

    A producer with another partitioner (librdkafka's default is CRC32) puts an event and its label in different
    partitions, and then they never meet.
    """
    name = f"partitioner of {topic}"
    choose, numbers = DefaultPartitioner(), list(range(partitions))
    seen = wrong = 0
    consumer = clients.consumer(config)
    async with consumer:
        tps = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        for tp in tps:
            consumer.seek(tp, max(ends[tp] - SAMPLE, 0))
        for _ in range(5):
            for tp, records in (await consumer.getmany(timeout_ms=300)).items():
                keyed = [record for record in records if record.key is not None]
                seen += len(keyed)
                wrong += sum(choose(record.key, numbers, numbers) != tp.partition for record in keyed)
    if wrong:
        return Finding(
            name,
            "problem",
            f"{wrong} of {seen} records are not in the partition that murmur2 gives their key; set the producer's"
            " partitioner to murmur2_random (librdkafka) or use the Java default, for events and labels alike",
        )
    verdict: Literal["ok", "warning"] = "ok" if seen else "warning"
    return Finding(name, verdict, f"{seen} records looked at" if seen else "no records to look at yet")
