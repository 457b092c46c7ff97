"""Recoveries that take long or are interrupted, and a record that once ended every worker that met it."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

from app.status import records_between
from streaming import recovery
from streaming.app import EXIT_FAILED
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig
from streaming.errors import EngineError
from tests.chaos.run import Run
from tests.integration import test_engine
from tests.integration.test_bad_input import event, label

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

SLOW = """
import asyncio, sys
from streaming import recovery
read = recovery.read_changelogs
async def slow(config, parts):
    await asyncio.sleep(float(sys.argv[4]))
    return await read(config, parts)
recovery.read_changelogs = slow
from tests.integration.tally_worker import create
from streaming.app import run
run(create(*sys.argv[1:4]))
"""


def start_slow(bench: test_engine.Bench, seconds: float) -> "subprocess.Popen[bytes]":
    """A tally worker (session timeout 3 s) whose recovery takes so many seconds."""
    with (bench.logs / f"slow-{len(bench.workers)}.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", SLOW, bench.bootstrap, bench.name, bench.guarantee, str(seconds)],
            cwd=test_engine.ROOT,
            env=dict(os.environ),
            stdout=log,
            stderr=log,
        )
    bench.workers.append(worker)
    return worker


def test_a_recovery_longer_than_the_session_ends(kafka: str, tmp_path: Path) -> None:
    """aiokafka does not heartbeat until on_partitions_assigned has returned: the group expelled who recovered."""
    bench = test_engine.Bench(kafka, "exactly_once", tmp_path)

    async def scenario() -> None:
        await bench.prepare()
        await bench.produce()
        start_slow(bench, 6.0)
        answers = await bench.answers(35.0)
        assert len(answers) == test_engine.EVENTS

    try:
        asyncio.run(scenario())
    finally:
        bench.end()


def test_a_worker_told_to_stop_while_it_recovers_stops(kafka: str, tmp_path: Path) -> None:
    bench = test_engine.Bench(kafka, "exactly_once", tmp_path)

    async def scenario() -> None:
        await bench.prepare()
        await bench.produce()
        worker = start_slow(bench, 15.0)
        await asyncio.sleep(6)
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, 40)

    try:
        asyncio.run(scenario())
    finally:
        bench.end()


def test_a_record_that_fits_its_topic_ends_no_worker(kafka: str, tmp_path: Path) -> None:
    """An id of 600 kB is in a lesson twice, as key and in the value: larger than max.message.bytes, at each start."""
    run = Run(kafka, tmp_path)
    name = "f" * 600_000

    async def scenario() -> None:
        await run.prepare()
        producer: Any = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=4_000_000)
        await producer.start()
        await producer.send_and_wait(
            run.pipeline.events.topic, event(flight_id=name), b"JFK", timestamp_ms=1_357_041_600_000
        )
        await producer.send_and_wait(run.pipeline.labels.topic, label(name), b"JFK", timestamp_ms=1_357_063_200_000)
        await producer.stop()
        worker = run.start()
        await asyncio.sleep(15)
        assert worker.poll() is None, run.last_words()

    try:
        asyncio.run(scenario())
    finally:
        run.end()


async def altered(kafka: str, topic: str, policy: str) -> None:
    """Give a topic another cleanup policy."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": policy})])
    await admin.close()


async def beheaded(kafka: str, tp: TopicPartition, before: int) -> None:
    """Remove the head of a log, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({tp: RecordsToDelete(before_offset=before)})
    await admin.close()


def test_a_changelog_that_loses_or_has_lost_its_head_is_refused(kafka: str, tmp_path: Path) -> None:
    """It was read from wherever it began: profiles started at nothing, in silence."""
    run = Run(kafka, tmp_path)
    changelog = f"{run.config.app_id}-profiles-changelog"

    async def scenario() -> None:
        await run.prepare()
        producer: Any = AIOKafkaProducer(bootstrap_servers=kafka)
        await producer.start()
        for number in range(3):
            await producer.send_and_wait(
                run.pipeline.events.topic, event(flight_id=f"f{number}"), b"JFK", timestamp_ms=1_357_041_600_000
            )
        await producer.stop()
        worker = run.start()
        await run.until(3, 0)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0, run.last_words()
        (partition,) = {record.partition for record in await run.read(changelog)}

        await altered(kafka, changelog, "compact,delete")
        worker = run.start()
        assert await asyncio.to_thread(worker.wait, 60) != 0
        assert f"topic {changelog} has cleanup.policy=compact,delete, expected compact" in run.said(worker)

        await beheaded(kafka, TopicPartition(changelog, partition), 1)
        await altered(kafka, changelog, "compact")
        worker = run.start()
        assert await asyncio.to_thread(worker.wait, 60) != 0
        assert f"the changelog begins late: {changelog}-{partition} at offset 1, expected 0" in run.said(worker)

    try:
        asyncio.run(scenario())
    finally:
        run.end()


def test_offsets_that_do_not_fit_their_topic_are_refused_or_said(kafka: str, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the end, all that comes up to there would be passed over; before the beginning, records have been lost."""
    tp = TopicPartition(f"t{uuid.uuid4().hex[:8]}", 0)
    config = EngineConfig(bootstrap=kafka, app_id=f"g-{tp.topic}")

    async def committed(offset: int) -> dict[TopicPartition, int]:
        async with AIOKafkaConsumer(
            bootstrap_servers=kafka, group_id=config.app_id, enable_auto_commit=False
        ) as consumer:
            consumer.assign([tp])
            await consumer.commit({tp: offset})
        return await recovery.committed_offsets(config, [tp])

    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.create_topics([NewTopic(tp.topic, 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            for _ in range(9):
                await producer.send_and_wait(tp.topic, b"x")
        assert await recovery.committed_offsets(config, [tp]) == {tp: 0}
        assert await committed(9) == {tp: 9}
        with pytest.raises(EngineError, match=rf"has read {tp.topic}-0 to offset 12, but it ends at 9"):
            await committed(12)
        assert "lost" not in caplog.text
        assert await committed(2) == {tp: 2}
        await beheaded(kafka, tp, 5)
        assert await committed(2) == {tp: 5}
        assert f"3 records of {tp.topic}-0 were removed before they were read" in caplog.text

    asyncio.run(scenario())


def test_a_changelog_that_was_created_again_is_another(kafka: str) -> None:
    """By its name and end it may be the same; a store of the old one must not be believed."""
    name = f"t{uuid.uuid4().hex[:8]}"
    config = EngineConfig(bootstrap=kafka, app_id="a")

    async def scenario() -> None:
        found = []
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        for _ in range(2):
            await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"delete.retention.ms": "5000"})])
            while not (described := await recovery._described(config, [name]))[name][0]:  # noqa: ASYNC110  # Kafka says
                await asyncio.sleep(0.1)
            found.append(described[name])
            await admin.delete_topics([name])
            while name in await admin.list_topics():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await admin.close()
        (first, keeps), (second, _) = found
        assert keeps == 5.0
        assert len(first) == len(second) == 16
        assert first != second
        assert (await recovery._described(config, [name]))[name] == (b"", None)

    asyncio.run(scenario())


def test_a_worker_told_to_stop_while_the_broker_is_away_stops(tmp_path: Path) -> None:
    """Its last checkpoint waited for the broker without end; now it ends with a code that says it was not saved."""
    with LocalKafka(tmp_path / "kafka") as broker:
        run = Run(broker.bootstrap, tmp_path)

        async def scenario() -> None:
            await run.prepare()
            # Nothing is checkpointed by itself within the test, so that there is something to save at the end.
            worker = run.start(HEADWATER_CHECKPOINT_INTERVAL="60", HEADWATER_REQUEST_TIMEOUT="6")
            producer: Any = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
            await producer.start()
            await producer.send_and_wait(
                run.pipeline.events.topic, event(flight_id="f"), b"JFK", timestamp_ms=1_357_041_600_000
            )
            await producer.stop()
            while "Worker ready" not in run.said(worker):  # noqa: ASYNC110  # another process says it
                await asyncio.sleep(0.2)
            await asyncio.sleep(6)
            await asyncio.to_thread(broker.kill)
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, 60) == EXIT_FAILED, run.last_words()
            assert "the last checkpoint failed; what it held will be done again" in run.said(worker)
            assert "\nError: checkpoint of <Unit events-" in run.said(worker), (
                "why it ended is not among its last words"
            )

        try:
            asyncio.run(scenario())
        finally:
            run.end()


def test_status_takes_no_marker_of_a_transaction_for_a_record(kafka: str) -> None:
    """A worker that has read all had a lag of 1 for ever where its events are produced in transactions."""
    tp = TopicPartition(f"t{uuid.uuid4().hex[:8]}", 0)
    config = EngineConfig(bootstrap=kafka, app_id=f"g-{tp.topic}")

    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.create_topics([NewTopic(tp.topic, 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=tp.topic) as producer:
            for _ in range(2):
                async with producer.transaction():
                    await producer.send(tp.topic, b"x")
        assert await recovery.end_offsets(config, [tp]) == {tp: 4}
        assert await records_between(config, {tp: (0, 4)}) == {tp: 2}
        assert await records_between(config, {tp: (1, 4)}) == {tp: 1}
        assert await records_between(config, {tp: (3, 4)}) == {tp: 0}
        assert await records_between(config, {}) == {}

    asyncio.run(scenario())
