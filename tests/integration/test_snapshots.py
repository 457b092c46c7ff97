"""Snapshots on a real Kafka: a worker starts from one and predicts as if it had folded the whole log."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from learning import snapshots
from learning.learn import Learner
from learning.records import decode_log
from streaming.snapshots import SnapshotStore, key_of
from tests.chaos.items import labels_of
from tests.chaos.run import Run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

EXAMPLES = 500  # between two snapshots
SETTINGS = {"HEADWATER_SNAPSHOT_EXAMPLES": str(EXAMPLES), "HEADWATER_SNAPSHOT_SLOTS": "3"}


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Run]:
    made = Run(kafka, tmp_path)
    yield made
    made.end()


async def stopped(run: Run, worker: Any) -> str:
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 40) == 0, run.last_words()
    return run.log(len(run.workers) - 1).read_text()


async def more(run: Run, items: list[Any], done: list[Any], **settings: str) -> str:
    """Produce some more, have a new worker do it all, stop it; what it logged.

    Some at a time, each waited for: a model is saved when it is looked after, by then perhaps that of all examples.
    """
    worker = run.start(**{**SETTINGS, **settings})
    everything = list(done)
    for start in range(0, len(items), 1_000):
        await run.produce(some := items[start : start + 1_000])
        everything += some
        n_labels = len(labels_of(everything))
        await run.until(len(everything) - n_labels, n_labels)
        if n_labels > EXAMPLES:
            await run.saved(n_labels - EXAMPLES, signed="HEADWATER_SNAPSHOT_KEY" in settings)
    await run.watched()
    return await stopped(run, worker)


def test_a_worker_starts_from_the_newest_snapshot_that_can_be_believed(run: Run, year: list[Any]) -> None:
    parts = [year[:6_000], year[6_000:7_000], year[7_000:8_000]]
    store = SnapshotStore(run.config, run.pipeline.snapshots_topic, 3)

    async def scenario() -> None:
        await run.prepare()
        assert "starts from a snapshot" not in await more(run, parts[0], [])
        found = await store.read()
        assert len(found) >= 2
        versions = [snapshots.read_manifest(stored.manifest).version for stored in found]
        assert versions == sorted(versions, reverse=True)
        log = [(r.offset, decode_log(r.value)) for r in await run.read(run.pipeline.training_log_topic)]
        for stored in found:
            loaded = snapshots.load(stored.manifest, stored.chunks, run.pipeline)
            folded = Learner(run.pipeline)
            for offset, record in log:
                if offset < loaded.version:
                    folded.apply(offset, record)
            vector = log[-1][1].features  # type: ignore[union-attr]  # none is a correction
            assert loaded.predict(vector) == folded.predict(vector)
            assert loaded.examples == folded.examples

        # The newest is damaged: an older one serves.
        producer = AIOKafkaProducer(bootstrap_servers=run.config.bootstrap)
        await producer.start()
        await producer.send_and_wait(run.pipeline.snapshots_topic, b"garbage", key_of(found[0].slot, 0), partition=0)
        await producer.stop()
        words = await more(run, parts[1], parts[0])
        assert f"slot {found[0].slot} is not used (bad_hash)" in words
        assert f"starts from a snapshot at version {versions[1]}," in words

        # Nobody signed those: with a key, the whole log is folded.
        words = await more(run, parts[2], [*parts[0], *parts[1]], HEADWATER_SNAPSHOT_KEY="k2,k1")
        assert words.count("is not used (unsigned)") >= 2
        assert "starts from a snapshot" not in words
        assert "k2" not in words
        await run.assert_all_true(year[:8_000])
        signed = [s for s in await store.read() if snapshots.read_manifest(s.manifest).hmac]
        assert snapshots.load(signed[0].manifest, signed[0].chunks, run.pipeline, [b"other", b"k2"]).examples > 0

    asyncio.run(scenario())
