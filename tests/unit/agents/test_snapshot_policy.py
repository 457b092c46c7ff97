"""When a snapshot of the model is due."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from agents.loop import Loop
from agents.snapshots import Finish, SnapshotPolicy, Snapshots
from learning import snapshots
from learning.learn import Learner, Turn
from learning.records import Control, Example
from streaming.snapshots import Stored
from streaming.telemetry import RecordingMetrics
from tests.doubles import TinyFeatures, tiny_pipeline

EXAMPLE = Example("a", "k", 0, 1, 0.5, 0, [1.0, 0.0], TinyFeatures.schema, True, "label")


class Store:
    """Counts what is written."""

    def __init__(self) -> None:
        self.slots: list[int] = []

    async def write(self, slot: int, manifest: bytes, chunks: list[bytes]) -> None:
        """Remember the slot."""
        self.slots.append(slot)


def test_a_snapshot_is_due_after_so_many_examples_and_after_each_control_record() -> None:
    """After a rollback there are fewer examples than were saved, which made none due for as long again."""
    pipeline, store = tiny_pipeline(), Store()
    learner = Learner(pipeline)
    loop: Any = SimpleNamespace(pipeline=pipeline, learner=learner, metrics=RecordingMetrics())
    saved: list[int] = []

    async def considered(policy: SnapshotPolicy) -> None:
        policed = Snapshots(loop, cast("Any", store), policy)
        for offset in range(12):
            if offset == 7:
                learner.take_turn(Turn(offset, 0, learning=True), Learner(pipeline))
            elif offset == 9:
                learner.apply(offset, Control("freeze", 0, "ann"))
            else:
                learner.apply(offset, EXAMPLE)
            before = len(store.slots)
            policed.consider()
            await asyncio.sleep(0)
            if len(store.slots) > before:
                saved.append(offset)

    asyncio.run(considered(SnapshotPolicy(examples=3, seconds=1e9, slots=2)))
    assert saved == [2, 5, 7, 9]
    assert store.slots == [1, 0, 0, 0]


def test_a_worker_that_stops_waits_for_the_snapshot_that_it_is_writing() -> None:
    """Its slot had new chunks and an old manifest, or none, and the next start said that it was damaged."""
    pipeline = tiny_pipeline()
    learner = Learner(pipeline)
    learner.apply(0, EXAMPLE)
    loop: Any = SimpleNamespace(pipeline=pipeline, learner=learner, metrics=RecordingMetrics())
    done: list[int] = []

    async def write(slot: int, *_: Any) -> None:
        await asyncio.sleep(0.1)
        done.append(slot)

    async def stopped() -> None:
        policed = Snapshots(loop, cast("Any", SimpleNamespace(write=write)), SnapshotPolicy(1, 1e9, 2))
        finish = Finish(policed)
        await finish.start()
        await finish.stop()  # with nothing to wait for
        policed.consider()
        finish = Finish(policed)
        await finish.start()
        await finish.stop()

    asyncio.run(stopped())
    assert done == [1]


def test_no_snapshot_is_ever_due_where_none_is_wanted() -> None:
    pipeline, store = tiny_pipeline(), Store()
    loop: Any = SimpleNamespace(pipeline=pipeline, learner=Learner(pipeline), metrics=RecordingMetrics())
    loop.learner.apply(0, Control("freeze", 0, "ann"))
    Snapshots(loop, cast("Any", store), SnapshotPolicy(examples=0, seconds=0.0, slots=2)).consider()
    assert store.slots == []


def test_a_worker_that_starts_from_a_snapshot_says_its_version_before_the_next_lesson() -> None:
    """It said version 0, though it predicted by the snapshot's, until the log had a record beyond that."""
    pipeline, metrics = tiny_pipeline(), RecordingMetrics()
    learner = Learner(pipeline)
    learner.apply(0, EXAMPLE)
    learner.apply(6, Control("freeze", 0, "ann"))
    stored = Stored(0, 0, *snapshots.dump(learner, pipeline, created_ms=1))

    async def read() -> list[Stored]:
        return [stored]

    loop = Loop(cast("Any", SimpleNamespace(engine=SimpleNamespace(metrics=metrics, config=None))), pipeline)
    store = cast("Any", SimpleNamespace(read=read))
    assert asyncio.run(Snapshots(loop, store, SnapshotPolicy(10, 10.0, 4)).restore()) == 7
    said = {name: metrics.value(name) for name in ("model_version", "learning_frozen", "control_offset")}
    assert said == {"model_version": 7, "learning_frozen": 1, "control_offset": 6}
