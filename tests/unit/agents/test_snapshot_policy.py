"""When a snapshot of the model is due."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from agents.snapshots import SnapshotPolicy, Snapshots
from learning.learn import Learner, Turn
from learning.records import Control, Example
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
        snapshots = Snapshots(loop, cast("Any", store), policy)
        for offset in range(12):
            if offset == 7:
                learner.take_turn(Turn(offset, 0, learning=True), Learner(pipeline))
            elif offset == 9:
                learner.apply(offset, Control("freeze", 0, "ann"))
            else:
                learner.apply(offset, EXAMPLE)
            before = len(store.slots)
            snapshots.consider()
            await asyncio.sleep(0)
            if len(store.slots) > before:
                saved.append(offset)

    asyncio.run(considered(SnapshotPolicy(examples=3, seconds=1e9, slots=2)))
    assert saved == [2, 5, 7, 9]
    assert store.slots == [1, 0, 0, 0]


def test_no_snapshot_is_ever_due_where_none_is_wanted() -> None:
    pipeline, store = tiny_pipeline(), Store()
    loop: Any = SimpleNamespace(pipeline=pipeline, learner=Learner(pipeline), metrics=RecordingMetrics())
    loop.learner.apply(0, Control("freeze", 0, "ann"))
    Snapshots(loop, cast("Any", store), SnapshotPolicy(examples=0, seconds=0.0, slots=2)).consider()
    assert store.slots == []
